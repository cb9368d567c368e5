"""Tensors there and back: datatypes, encodings, shapes."""

import gzip
import json
import zlib

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor

from tailorbird.domain.dtype import DType
from tests.conformance.models import values
from tests.conformance.suite import GRPC, HTTP, INVALID, check, refusal, same

BINARY_ONLY = (DType.FP16, DType.BF16)


def _agree(got, wanted):
    return same((got.shape, got.tolist()), (wanted.shape, wanted.tolist()))


for _dtype in DType:

    @check(name=f"{_dtype} as raw bytes")
    def _binary(door, dtype=_dtype):
        sent = values(dtype, rows=2)
        answer = door.client.infer(f"identity_{dtype.lower()}", [door.tensor("x", sent, str(dtype))])
        return _agree(answer.as_numpy("y"), sent)

    @check(**INVALID, name=f"{_dtype} without rows")
    def _empty(door, dtype=_dtype):
        sent = values(dtype)[:0]
        return refusal(door.client.infer, f"identity_{dtype.lower()}", [door.tensor("x", sent, str(dtype))])


def _infer(door, model, *inputs, outputs=None, **members):
    body = {"inputs": list(inputs), **members}
    if outputs is not None:
        body["outputs"] = outputs
    return door.post(f"/v2/models/{model}/infer", body)


def _x(dtype, data, shape=(1, 2), **members):
    return {"name": "x", "datatype": str(dtype), "shape": list(shape), "data": data, **members}


def _data(answer):
    return answer.json()["outputs"][0]["data"] if answer.status_code == 200 else str(answer.status_code)


for _dtype in (dtype for dtype in DType if dtype not in (*BINARY_ONLY, DType.BYTES)):

    @check(name=f"{_dtype} as JSON", over=[HTTP])
    def _as_json(door, dtype=_dtype):
        data = values(dtype).ravel().tolist()
        return same(_data(_infer(door, f"identity_{dtype.lower()}", _x(dtype, data))), data)


@check(name="BYTES as JSON", over=[HTTP])
def _bytes_as_json(door):
    data = ["", "ä \U0001f426"]
    return same(_data(_infer(door, "identity_bytes", _x("BYTES", data))), data)


for _dtype in BINARY_ONLY:

    @check("400", name=f"{_dtype} as JSON is refused", over=[HTTP])
    def _no_json(door, dtype=_dtype):
        return str(_infer(door, f"identity_{dtype.lower()}", _x(dtype, [1, 2])).status_code)


@check("400", name="FP16 asked for as JSON is refused", over=[HTTP])
def _no_json_answer(door):
    answer = _framed(door, "identity_fp16", _x16(), np.array([1, 2], np.float16).tobytes())
    return str(answer.status_code)


def _x16():
    return {"name": "x", "datatype": "FP16", "shape": [1, 2], "parameters": {"binary_data_size": 4}}


@check("400", name="bytes that are no UTF-8 asked for as JSON are refused", over=[HTTP])
def _no_text(door):
    given = {"name": "x", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": 10}}
    return str(_framed(door, "identity_bytes", given, b"\1\0\0\0\xff\1\0\0\0\xfe").status_code)


@check("400", name="NaN asked for as JSON is refused", over=[HTTP])
def _nan(door):
    given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    return str(_framed(door, "identity_fp32", given, np.array([1, np.nan], np.float32).tobytes()).status_code)


@check(name="JSON, nested", over=[HTTP])
def _nested(door):
    return same(_data(_infer(door, "identity_fp32", _x("FP32", [[1.5, 2], [3, 4]], (2, 2)))), [1.5, 2.0, 3.0, 4.0])


@check(name="JSON keeps every bit of a double", over=[HTTP])
def _doubles(door):
    data = [0.1, 5e-324]
    return same(_data(_infer(door, "identity_fp64", _x("FP64", data))), data)


@check(name="JSON keeps every bit of 64 bit integers", over=[HTTP])
def _wide(door):
    data = [2**53 + 1, -(2**63)]
    return same(_data(_infer(door, "identity_int64", _x("INT64", data))), data)


for _kind, _dtype, _wrong in (
    ("a fraction for an integer", "INT32", [1.5, 2]),
    ("text for a number", "INT32", ["1", 2]),
    ("a number for text", "BYTES", [1, "b"]),
    ("a number for BOOL", "BOOL", [1, 0]),
    ("BOOL for a number", "FP32", [True, False]),
    ("null", "FP32", [None, 1]),
    ("more than a type holds", "INT8", [128, 0]),
    ("less than a type holds", "UINT8", [-1, 0]),
    ("too few", "FP32", [1]),
    ("too many", "FP32", [1, 2, 3]),
    ("an object", "FP32", {"a": 1}),
):

    @check("400", name=f"JSON data: {_kind}", over=[HTTP])
    def _wrong_json(door, dtype=_dtype, data=_wrong):
        return str(_infer(door, f"identity_{dtype.lower()}", _x(dtype, data)).status_code)


@check("400", name="JSON data nested otherwise than its shape says", over=[HTTP])
def _other_nesting(door):
    return str(_infer(door, "identity_fp32", _x("FP32", [[1], [2]], (1, 2))).status_code)


@check(name="JSON with members that nobody knows", over=[HTTP])
def _more_members(door):
    return same(_infer(door, "identity_fp32", _x("FP32", [1, 2], more=1), extra={"a": [1]}).status_code, 200)


@check("id, model_name, model_version, outputs: data, datatype, name, shape", over=[HTTP])
def members_of_an_answer(door):
    answer = _infer(door, "identity_fp32", _x("FP32", [1, 2]), id="7").json()
    return f"{', '.join(sorted(answer))}: {', '.join(sorted(answer['outputs'][0]))}"


@check("model_name, model_version, outputs", name="an answer to a request without id", over=[HTTP])
def _no_id(door):
    return ", ".join(sorted(_infer(door, "identity_fp32", _x("FP32", [1, 2])).json()))


def _framed(door, model, given, blob, length=None, **headers):
    text = json.dumps({"inputs": [given]}).encode()
    named = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
    return door.post(f"/v2/models/{model}/infer", text + blob, headers={**named, **headers})


def _x32(size=8):
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}}


TWO = np.array([1, 2], np.float32).tobytes()


@check(name="binary in, JSON out", over=[HTTP])
def _binary_in(door):
    return same(_data(_framed(door, "identity_fp32", _x32(), TWO)), [1.0, 2.0])


@check(name="JSON in, binary out", over=[HTTP])
def _binary_out(door):
    answer = _infer(door, "identity_fp32", _x("FP32", [1, 2]), parameters={"binary_data_output": True})
    length = int(answer.headers["inference-header-content-length"])
    said = json.loads(answer.content[:length])["outputs"][0]
    return same((said["parameters"], answer.content[length:]), ({"binary_data_size": 8}, TWO))


@check(name="binary for all outputs but one", over=[HTTP])
def _all_but_one(door):
    inputs = [{"name": name, "datatype": "INT32", "shape": [1, 4], "data": [1, 2, 3, 4]} for name in ("a", "b")]
    outputs = [{"name": "add", "parameters": {"binary_data": False}}, {"name": "sub"}]
    answer = _infer(door, "sum", *inputs, outputs=outputs, parameters={"binary_data_output": True})
    if "inference-header-content-length" not in answer.headers:
        return "all as JSON"
    length = int(answer.headers["inference-header-content-length"])
    said = json.loads(answer.content[:length])["outputs"]
    return same((said[0]["data"], answer.content[length:]), ([2, 4, 6, 8], bytes(16)))


@check(name="one input binary, one JSON", over=[HTTP])
def _mixed(door):
    binary, plain = (door.tensor(name, np.array([[1, 2, 3, 4]], np.int32), "INT32", binary_data=name == "a")
                     for name in ("a", "b"))  # fmt: skip
    return same(door.client.infer("sum", [plain, binary]).as_numpy("add").tolist(), [[2, 4, 6, 8]])


for _case, _size, _blob in (
    ("a size that is not the shape's", 4, TWO[:4]),
    ("less than its size says", 8, TWO[:4]),
    ("more than its size says", 8, TWO + b"\0"),
    ("a negative size", -8, TWO),
    ("a size that is text", "8", TWO),
    ("a size that is a fraction", 8.5, TWO),
):

    @check("400", name=f"binary data: {_case}", over=[HTTP])
    def _wrong_blob(door, size=_size, blob=_blob):
        return str(_framed(door, "identity_fp32", _x32(size), blob).status_code)


for _case, _length in (("beyond the body", 10**6), ("negative", -1), ("no number", "x"), ("amid the JSON", 5)):

    @check("400", name=f"header length {_case}", over=[HTTP])
    def _wrong_length(door, length=_length):
        return str(_framed(door, "identity_fp32", _x32(), TWO, length).status_code)


@check("400", name="BYTES whose lengths run past their data", over=[HTTP])
def _wrong_bytes(door):
    given = {"name": "x", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": 10}}
    return str(_framed(door, "identity_bytes", given, b"\1\0\0\0\xff\x09\0\0\0\xfe").status_code)


@check("400", name="both data and binary data", over=[HTTP])
def _both(door):
    return str(_framed(door, "identity_fp32", {**_x32(), "data": [1, 2]}, TWO).status_code)


@check("400", name="BOOL that is neither 0 nor 1, as raw bytes", http="400", grpc="INVALID_ARGUMENT")
def _bool(door):
    if door.protocol == GRPC:
        return refusal(door.stub.ModelInfer, raw_request("identity_bool", "BOOL", [1, 2], b"\x02\x01"))
    given = {"name": "x", "datatype": "BOOL", "shape": [1, 2], "parameters": {"binary_data_size": 2}}
    return str(_framed(door, "identity_bool", given, b"\2\1").status_code)


def _raw_body(door, model, body):
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    return door.post(f"/v2/models/{model}/infer", body, headers=headers)


@check(name="a body that is the one input", over=[HTTP])
def _raw(door):
    answer = _raw_body(door, "identity_fp32", TWO)
    length = int(answer.headers["inference-header-content-length"])
    return same(answer.content[length:], TWO)


@check(name="a body that is the one input, of open size", over=[HTTP])
def _raw_open(door):
    answer = _raw_body(door, "open", TWO * 3)
    length = int(answer.headers["inference-header-content-length"])
    said = json.loads(answer.content[:length])["outputs"][0]
    return same((said["shape"], answer.content[length:]), ([1, 6], TWO * 3))


@check("400", name="a body that is the one input, of the wrong size", over=[HTTP])
def _raw_wrong(door):
    return str(_raw_body(door, "identity_fp32", TWO + b"\0").status_code)


@check("400", name="a body that is the one input, of a model with two", over=[HTTP])
def _raw_two(door):
    return str(_raw_body(door, "sum", bytes(16)).status_code)


PACKED = {"gzip": gzip.compress, "deflate": zlib.compress}
for _name, _pack in PACKED.items():

    @check(name=f"requests in {_name}", over=[HTTP])
    def _packed(door, name=_name, pack=_pack):
        body = pack(json.dumps({"inputs": [_x("FP32", [1, 2])]}).encode())
        answer = door.post("/v2/models/identity_fp32/infer", body, headers={"Content-Encoding": name})
        return same(_data(answer), [1.0, 2.0])

    @check(name=f"requests in {_name}, by the client")
    def _packed_by_client(door, name=_name):
        sent = values(DType.FP32)
        option = "request_compression_algorithm" if door.protocol == HTTP else "compression_algorithm"
        answer = door.client.infer("identity_fp32", [door.tensor("x", sent, "FP32")], **{option: name})
        return _agree(answer.as_numpy("y"), sent)

    @check("as they are", name=f"answers to whom asks for {_name}", over=[HTTP])
    def _packed_answer(door, name=_name):
        body = {"inputs": [_x("FP32", [0] * 120, (60, 2))]}
        answer = door.post("/v2/models/identity_fp32/infer", body, headers={"Accept-Encoding": name})
        return answer.headers.get("content-encoding", "as they are")

    @check(name=f"answers in {_name}, by the client", over=[HTTP])
    def _packed_answer_by_client(door, name=_name):
        sent = values(DType.FP32, rows=30)
        inputs = [door.tensor("x", sent, "FP32")]
        answer = door.client.infer("identity_fp32", inputs, response_compression_algorithm=name)
        return _agree(answer.as_numpy("y"), sent)

    @check("400", name=f"what is said to be {_name} and is not", over=[HTTP])
    def _not_packed(door, name=_name):
        headers = {"Content-Encoding": name}
        return str(door.post("/v2/models/identity_fp32/infer", b"{}" * 20, headers=headers).status_code)


@check("501", name="requests in a compression that is not known", over=[HTTP])
def _unknown_packing(door):
    headers = {"Content-Encoding": "br"}
    return str(door.post("/v2/models/identity_fp32/infer", b"{}", headers=headers).status_code)


def raw_request(model, dtype, shape, *blobs, **fields):
    """A gRPC message with one input ``x``."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype=dtype, shape=shape)
    return service_pb2.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=blobs, **fields)


FIELDS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{"INT64": "int64_contents", "UINT64": "uint64_contents", "BOOL": "bool_contents"},
    **{"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"},
}
for _dtype in DType:
    if _dtype not in BINARY_ONLY:

        @check(name=f"{_dtype} in typed contents", over=[GRPC])
        def _typed(door, dtype=_dtype):
            sent = values(dtype)
            message = raw_request(f"identity_{dtype.lower()}", str(dtype), [1, 2])
            getattr(message.inputs[0].contents, FIELDS[dtype]).extend(sent.ravel().tolist())
            (blob,) = door.stub.ModelInfer(message).raw_output_contents
            if dtype is DType.BYTES:
                return same(deserialize_bytes_tensor(blob).tolist(), sent.ravel().tolist())
            return same(blob, sent.tobytes())


def _contents(model, dtype, **contents):
    message = raw_request(model, dtype, [1, 2])
    for field, given in contents.items():
        getattr(message.inputs[0].contents, field).extend(given)
    return message


for _case, _message in (
    ("in the field of another type", _contents("identity_int32", "INT32", fp32_contents=[1, 2])),
    ("in two fields", _contents("identity_int32", "INT32", int_contents=[1, 2], fp32_contents=[1, 2])),
    ("too few", _contents("identity_int32", "INT32", int_contents=[1])),
    ("too many", _contents("identity_int32", "INT32", int_contents=[1, 2, 3])),
    ("none", _contents("identity_int32", "INT32")),
    ("beyond INT8", _contents("identity_int8", "INT8", int_contents=[128, 0])),
    ("of FP16", _contents("identity_fp16", "FP16", fp32_contents=[1, 2])),
):

    @check("INVALID_ARGUMENT", name=f"typed contents: {_case}", over=[GRPC])
    def _wrong_contents(door, message=_message):
        return refusal(door.stub.ModelInfer, message)


@check("INVALID_ARGUMENT", name="both typed and raw contents", over=[GRPC])
def _both_contents(door):
    message = _contents("identity_fp32", "FP32", fp32_contents=[1, 2])
    message.raw_input_contents.append(TWO)
    return refusal(door.stub.ModelInfer, message)


for _case, _blobs in (("too few", [TWO[:4]]), ("too many bytes", [TWO + b"\0"]), ("too many tensors", [TWO, TWO])):

    @check("INVALID_ARGUMENT", name=f"raw contents: {_case}", over=[GRPC])
    def _wrong_raw(door, blobs=_blobs):
        return refusal(door.stub.ModelInfer, raw_request("identity_fp32", "FP32", [1, 2], *blobs))


@check("INVALID_ARGUMENT", name="raw contents: BYTES whose lengths run past their data", over=[GRPC])
def _wrong_bytes_raw(door):
    return refusal(door.stub.ModelInfer, raw_request("identity_bytes", "BYTES", [1, 1], b"\x09\0\0\0a"))
