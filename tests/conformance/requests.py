"""Requests to models: what may be asked, and how what may not is refused."""

import numpy as np
from tritonclient.grpc import service_pb2

from tests.conformance.data import raw_request
from tests.conformance.servers import BODY_BYTES
from tests.conformance.suite import GRPC, HTTP, INVALID, NOT_FOUND, check, refusal, refused_as, same

ONE = np.array([[1.5, 2]], np.float32)
FOURS = np.array([[1, 2, 3, 4]], np.int32)


def one(door, array=ONE, datatype="FP32"):
    return [door.tensor("x", array, datatype)]


def pair(door):
    return [door.tensor("a", FOURS, "INT32"), door.tensor("b", FOURS * 2, "INT32")]


def names(door, answer):
    found = answer.get_response()
    return [one["name"] if door.protocol == HTTP else one.name for one in (
        found["outputs"] if door.protocol == HTTP else found.outputs)]  # fmt: skip


@check("add, sub")
def all_outputs(door):
    return ", ".join(names(door, door.client.infer("sum", pair(door))))


@check("sub")
def one_output(door):
    answer = door.client.infer("sum", pair(door), outputs=[door.wanted("sub")])
    return same((answer.as_numpy("sub").tolist(), answer.as_numpy("add")), ([[-1, -2, -3, -4]], None)) and ", ".join(
        names(door, answer)
    )


@check("sub, add")
def outputs_in_the_order_asked_for(door):
    answer = door.client.infer("sum", pair(door), outputs=[door.wanted("sub"), door.wanted("add")])
    return ", ".join(names(door, answer))


@check(**INVALID)
def an_output_asked_for_twice(door):
    return refusal(door.client.infer, "sum", pair(door), outputs=[door.wanted("sub"), door.wanted("sub")])


@check(**INVALID)
def an_unknown_output(door):
    return refusal(door.client.infer, "sum", pair(door), outputs=[door.wanted("product")])


@check()
def inputs_in_any_order(door):
    answer = door.client.infer("sum", pair(door)[::-1])
    return same(answer.as_numpy("sub").tolist(), [[-1, -2, -3, -4]])


@check()
def outputs_as_json_or_binary_as_asked(door):
    if door.protocol == GRPC:
        return "ok"
    outputs = [door.wanted("add", binary_data=False), door.wanted("sub", binary_data=True)]
    answer = door.client.infer("sum", pair(door), outputs=outputs)
    return same((answer.as_numpy("add").tolist(), answer.as_numpy("sub").tolist()),
                ([[3, 6, 9, 12]], [[-1, -2, -3, -4]]))  # fmt: skip


@check()
def several_rows(door):
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    return same(door.client.infer("identity_fp32", one(door, rows)).as_numpy("y").tolist(), rows.tolist())


@check("ok")
def more_rows_than_the_batch_size(door):
    rows = np.zeros((65, 2), np.float32)
    return refusal(door.client.infer, "identity_fp32", one(door, rows))


@check("my id")
def ids_come_back(door):
    found = door.client.infer("identity_fp32", one(door), request_id="my id").get_response()
    return found["id"] if door.protocol == HTTP else found.id


def _version(door, answer):
    found = answer.get_response()
    return found["model_version"] if door.protocol == HTTP else found.model_version


@check("1")
def version_that_is_asked_for(door):
    return _version(door, door.client.infer("sum", pair(door), model_version="1"))


@check("2")
def version_without_one_is_the_highest(door):
    return _version(door, door.client.infer("sum", pair(door)))


@check(**NOT_FOUND)
def version_that_is_unknown(door):
    return refusal(door.client.infer, "sum", pair(door), model_version="9")


@check(http="404", grpc="INVALID_ARGUMENT")
def version_that_is_no_number(door):
    return refusal(door.client.infer, "sum", pair(door), model_version="x")


@check(http="404", grpc="INVALID_ARGUMENT")
def version_that_is_negative(door):
    return refusal(door.client.infer, "sum", pair(door), model_version="-1")


@check(**NOT_FOUND)
def version_zero(door):
    return refusal(door.client.infer, "sum", pair(door), model_version="0")


@check(**NOT_FOUND)
def unknown_model(door):
    return refusal(door.client.infer, "nobody", one(door))


@check("INVALID_ARGUMENT", over=[GRPC])
def model_without_a_name(door):
    return refusal(door.stub.ModelInfer, raw_request("", "FP32", [1, 2], ONE.tobytes()))


@check(**INVALID)
def missing_input(door):
    return refusal(door.client.infer, "sum", pair(door)[:1])


@check(**INVALID)
def unknown_input(door):
    return refusal(door.client.infer, "sum", [*pair(door), *one(door)])


@check(**INVALID)
def an_input_given_twice(door):
    return refusal(door.client.infer, "identity_fp32", one(door) * 2)


@check(**INVALID)
def no_inputs(door):
    return refusal(door.client.infer, "identity_fp32", [])


@check(**INVALID)
def wrong_datatype(door):
    return refusal(door.client.infer, "identity_fp32", one(door, ONE.astype(np.float64), "FP64"))


@check(**INVALID)
def datatype_of_the_same_size(door):
    return refusal(door.client.infer, "identity_fp32", one(door, ONE.astype(np.int32), "INT32"))


@check(**INVALID)
def wrong_rank(door):
    return refusal(door.client.infer, "identity_fp32", one(door, ONE[0]))


@check(**INVALID)
def wrong_dim(door):
    return refusal(door.client.infer, "identity_fp32", one(door, np.zeros((1, 3), np.float32)))


@check(**INVALID)
def inputs_of_unequal_rows(door):
    inputs = [door.tensor("a", FOURS, "INT32"), door.tensor("b", FOURS.repeat(2, 0), "INT32")]
    return refusal(door.client.infer, "sum", inputs)


@check(**INVALID)
def unknown_datatype(door):
    return _odd(door, datatype="FP31")


@check(**INVALID)
def negative_dim(door):
    return _odd(door, shape=[-1, -2])


@check(**INVALID)
def huge_shape(door):
    return _odd(door, shape=[2**40, 2**40])


@check(**INVALID)
def shape_whose_product_overflows_to_the_right_size(door):
    return _odd(door, shape=[2**32, 2**32, 2])


def _odd(door, datatype="FP32", shape=(1, 2)):
    """A request that the official client would not make."""
    if door.protocol == HTTP:
        given = {"name": "x", "datatype": datatype, "shape": list(shape), "data": [1, 2]}
        return str(door.post("/v2/models/identity_fp32/infer", {"inputs": [given]}).status_code)
    return refusal(door.stub.ModelInfer, raw_request("identity_fp32", datatype, shape, ONE.tobytes()))


for _name, _body in {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "no inputs member": b"{}",
    "inputs that are no list": b'{"inputs":3}',
    "an input that is no object": b'{"inputs":[3]}',
    "an input without a name": b'{"inputs":[{"datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
    "an input without a shape": b'{"inputs":[{"name":"x","datatype":"FP32","data":[1,2]}]}',
    "an input without a datatype": b'{"inputs":[{"name":"x","shape":[1,2],"data":[1,2]}]}',
    "an input without data": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2]}]}',
    "a shape that is text": b'{"inputs":[{"name":"x","datatype":"FP32","shape":"1,2","data":[1,2]}]}',
    "a shape of fractions": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1.5,2],"data":[1,2]}]}',
    "an id that is a number": b'{"id":7,"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
    "text behind the JSON": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]} more',
    "JSON nested 100,000 deep": b'{"inputs":' + b"[" * 100_000,
    "bytes that are no text": b"\xff\xfe\x00",
}.items():

    @check("400", name=f"body: {_name}", over=[HTTP])
    def _wrong_body(door, body=_body):
        return str(door.post("/v2/models/identity_fp32/infer", body).status_code)


@check("INVALID_ARGUMENT", over=[GRPC])
def bytes_that_are_no_message(door):
    call = door.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    return refusal(call, b"\xff\xff\xff", timeout=10)


@check(**refused_as("413", "RESOURCE_EXHAUSTED"), name="more than the server takes")
def too_large(door):
    """Triton of that release has no such limit for HTTP, and gRPC's is 2 GiB."""
    rows = np.zeros((BODY_BYTES // 2, 2), np.float32)
    return refusal(door.client.infer, "open", one(door, rows.reshape(1, -1)))


@check(**refused_as("500", "INTERNAL"))
def model_that_fails(door):
    return refusal(door.client.infer, "failing", one(door))


@check("secret is kept")
def words_of_a_model_that_fails(door):
    try:
        door.client.infer("failing", one(door))
    except door.module.InferenceServerException as error:
        return "secret is told" if "secret" in str(error) else "secret is kept"
    return "no error"


@check("JSON with the member error", over=[HTTP])
def body_of_an_error(door):
    answer = door.raw.get("/v2/models/nobody")
    return "JSON with the member error" if list(answer.json()) == ["error"] else answer.text


@check("application/json", over=[HTTP])
def content_type_of_an_error(door):
    return door.raw.get("/v2/models/nobody").headers.get("content-type", "none")


for _name, _value in {"priority": 1, "timeout": 5_000_000, "mine": "text", "yes": True, "half": 0.5}.items():

    @check(name=f"parameter {_name} = {_value!r}")
    def _parameter(door, name=_name, value=_value):
        if name in ("priority", "timeout"):
            return same(_run(door, **{name: value}), ONE.tolist())
        return same(_run(door, parameters={name: value}), ONE.tolist())


def _run(door, **options):
    return door.client.infer("identity_fp32", one(door), **options).as_numpy("y").tolist()


for _name, _value in {"priority": -1, "timeout": "soon"}.items():

    @check(**INVALID, name=f"parameter {_name} = {_value!r}")
    def _wrong_parameter(door, name=_name, value=_value):
        if door.protocol == HTTP:
            given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
            body = {"inputs": [given], "parameters": {name: value}}
            return str(door.post("/v2/models/identity_fp32/infer", body).status_code)
        message = raw_request("identity_fp32", "FP32", [1, 2], ONE.tobytes())
        kind = "string_param" if isinstance(value, str) else "int64_param"
        message.parameters[name].CopyFrom(service_pb2.InferParameter(**{kind: value}))
        return refusal(door.stub.ModelInfer, message)


@check("ok")
def sequences_for_a_model_without_state(door):
    return same(_run(door, sequence_id=5, sequence_start=True), ONE.tolist())


@check("ok")
def headers_of_ones_own(door):
    return same(_run(door, headers={"x-mine": "1"}), ONE.tolist())
