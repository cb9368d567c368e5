"""Messages to requests, responses to messages."""

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")

from tailorbird.domain.dtype import DType
from tailorbird.service.faults import WireError
from tailorbird.service.limits import Limits
from tailorbird.service.rpc import messages, schema
from tailorbird.serving.dataplane import InferResponse

LIMITS = Limits(tensors=4, parameters=2, elements=1000)
TENSOR = {"name": "x", "datatype": "FP32", "shape": [2]}
DATA = np.float32([1, 2]).tobytes()


def request(**fields):
    return schema.ModelInferRequest(**{"model_name": "m", "inputs": [TENSOR], "raw_input_contents": [DATA], **fields})


def decode(**fields):
    return messages.decode_infer(request(**fields).SerializeToString(), LIMITS)


def refused(**fields):
    with pytest.raises(WireError) as caught:
        decode(**fields)
    return caught.value.message


def test_a_raw_request():
    got = decode(
        model_version="3",
        id="r",
        parameters={
            "a": {"bool_param": False},
            "priority": {"uint64_param": 2**64 - 1},
        },
        outputs=[{"name": "y"}, {"name": "n"}],
    )
    assert (got.model, got.version, got.id, got.outputs) == ("m", 3, "r", ("y", "n"))
    assert got.parameters == {"a": False, "priority": 2**64 - 1}
    assert got.inputs["x"].tolist() == [1, 2]
    assert got.dtypes == {"x": DType.FP32}


@pytest.mark.parametrize(
    ("choice", "value"), [("int64_param", -5), ("string_param", "s"), ("double_param", 0.5), ("bool_param", True)]
)
def test_every_kind_of_parameter(choice, value):
    (got,) = decode(parameters={"p": {choice: value}}).parameters.values()
    assert got == value
    assert type(got) is type(value)


def test_raw_contents_go_to_the_inputs_in_order():
    inputs = [{**TENSOR, "name": "a"}, {"name": "b", "datatype": "BYTES", "shape": [2]}, {**TENSOR, "name": "c"}]
    got = decode(inputs=inputs, raw_input_contents=[DATA, b"\1\0\0\0z\0\0\0\0", DATA[::-1]])
    assert got.inputs["a"].tolist() == [1, 2]
    assert got.inputs["b"].tolist() == [b"z", b""]
    assert got.inputs["c"].tobytes() == DATA[::-1]


def test_large_tensors_are_views_of_the_message():
    data = bytes(1000)
    message = request(inputs=[{"name": "x", "datatype": "UINT8", "shape": [1000]}], raw_input_contents=[data])
    got = messages.decode_infer(message.SerializeToString(), LIMITS).inputs["x"]
    assert not got.flags.owndata
    assert not got.flags.writeable


MANY = {"int64_param": 1}
BAD = [
    ({"model_name": ""}, "the request names no model: got 0 characters, expected 1 to 128"),
    ({"model_name": "m" * 129}, "the request names no model: got 129 characters, expected 1 to 128"),
    ({"model_version": "-1"}, "the model's version is no version: got '-1', expected digits, or nothing"),
    ({"model_version": "9" * 19},
     "the model's version is no version: got '9999999999999999999', expected digits, or nothing"),
    ({"id": "i" * 1025}, "the request's id is too long: got 1025 characters, expected at most 1024"),
    ({"inputs": [{**TENSOR, "name": "x" * 1025}]},
     "an input's name is too long: got 1025 characters, expected at most 1024"),
    ({"inputs": [{**TENSOR, "name": ""}]}, "an input has no name"),
    ({"outputs": [{"name": "y" * 1025}]}, "an output's name is too long: got 1025 characters, expected at most 1024"),
    ({"inputs": [TENSOR, TENSOR], "raw_input_contents": [DATA, DATA]}, "input 'x' is given twice"),
    ({"inputs": [{**TENSOR, "datatype": "FP8"}]},
     "input 'x' has an unknown datatype: got 'FP8', expected BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, "
     "INT32, INT64, FP16, BF16, FP32, FP64, BYTES"),
    ({"inputs": [{**TENSOR, "shape": [2, -1]}]}, "input 'x' has a negative dim: got -1"),
    ({"inputs": [{**TENSOR, "shape": [2**62, 2**62]}]},
     "input 'x' has too many elements: got [4611686018427387904,4611686018427387904], expected at most 1000"),
    ({"inputs": [{**TENSOR, "shape": [0, 2**62]}]},
     "input 'x' has too many elements: got [0,4611686018427387904], expected at most 1000"),
    ({"inputs": [{**TENSOR, "shape": [1] * 17}]}, "input 'x' has too many dims: got 17, expected at most 16"),
    ({"raw_input_contents": [DATA + b"\0"]},
     "input 'x' has binary data of the wrong size: got 9 bytes, expected 8 bytes for FP32 [2]"),
    ({"raw_input_contents": [DATA, DATA]},
     "the request's raw_input_contents do not match its inputs: got 2, expected 1, one for each input in order"),
    ({"inputs": [TENSOR, {**TENSOR, "name": "k"}]},
     "the request's raw_input_contents do not match its inputs: got 1, expected 2, one for each input in order"),
    ({"inputs": []},
     "the request's raw_input_contents do not match its inputs: got 1, expected 0, one for each input in order"),
    ({"inputs": [{**TENSOR, "contents": {"fp32_contents": [1, 2]}}]},
     "input 'x' has contents in a request with raw_input_contents\n"
     "Hint: send all inputs the one way or all the other"),
    ({"inputs": [{**TENSOR, "contents": {}}]},
     "input 'x' has contents in a request with raw_input_contents\n"
     "Hint: send all inputs the one way or all the other"),
    ({"raw_input_contents": []}, "input 'x' has data of the wrong length: got 0 elements, expected 2 for its shape"),
    ({"parameters": {"p": {}}}, "the request has a parameter without a value: got 'p'"),
    ({"parameters": {"p" * 1025: MANY}},
     "the name of a parameter of the request is too long: got 1025 characters, expected at most 1024"),
    ({"parameters": {"a": MANY, "b": MANY, "c": MANY}},
     "the request has too many parameters: got at least 3, expected at most 2"),
    ({"inputs": [{**TENSOR, "parameters": {"a": MANY, "b": MANY, "c": MANY}}]},
     "input 'x' has too many parameters: got 3, expected at most 2"),
    ({"inputs": [{**TENSOR, "parameters": {"shared_memory_region": {"string_param": "s"}}}]},
     "input 'x' has the parameter shared_memory_region: got shared memory is off on this server"),
    ({"outputs": [{"name": "y", "parameters": {"classification": {"int64_param": 0}}}]},
     "output 'y' has a classification that is no number of classes: got 0, expected a whole number, 1 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "text"), BAD)
def test_bad_requests(fields, text):
    assert refused(**fields) == text


def test_names_that_are_not_utf8():
    with pytest.raises(WireError, match=r"^the message is not valid protobuf: got "):
        messages.decode_infer(b"\x0a\x01\xff", LIMITS)


def test_other_messages_are_small():
    with pytest.raises(WireError) as caught:
        messages.parse(schema.ModelReadyRequest, bytes(65537))
    assert caught.value.message == "the message is too large: got 65537 bytes, expected at most 65536 bytes"


ANSWER = InferResponse(
    "m", 7, {"y": np.float32([[1], [2]]).T, "s": np.array([b"ab"], object)}, {"y": DType.FP32, "s": DType.BYTES}, "r"
)


def check(response):
    assert (response.model_name, response.model_version, response.id) == ("m", "7", "r")
    described = [(one.name, one.datatype, list(one.shape), one.HasField("contents")) for one in response.outputs]
    assert described == [("y", "FP32", [1, 2], False), ("s", "BYTES", [1], False)]
    assert list(response.raw_output_contents) == [DATA, b"\2\0\0\0ab"]


def test_a_response_is_raw():
    check(schema.ModelInferResponse.FromString(messages.encode_infer(ANSWER)))


def test_a_response_in_a_stream():
    got = schema.ModelStreamInferResponse.FromString(messages.encode_stream(ANSWER))
    assert got.error_message == ""
    check(got.infer_response)


def test_an_error_in_a_stream():
    got = schema.ModelStreamInferResponse.FromString(messages.encode_stream_error("no", "r"))
    assert (got.error_message, got.infer_response.id) == ("no", "r")
    got = schema.ModelStreamInferResponse.FromString(messages.encode_stream_error("no"))
    assert not got.HasField("infer_response")


def test_the_id_of_a_refused_request():
    def found(message):
        return messages.request_id(message, LIMITS)

    assert found(request(id="r", model_name="").SerializeToString()) == "r"
    assert found(request(id="r" * 1025).SerializeToString()) == ""
    assert found(b"\xff") == ""


def test_bytes_elements_are_counted_over_the_whole_request():
    few = Limits(bytes_elements=6)
    for raw in (True, False):
        for sizes, name in (([4, 2], ""), ([7], "x0"), ([4, 3], "x1")):
            request = schema.ModelInferRequest(model_name="m")
            for number, size in enumerate(sizes):
                tensor = request.inputs.add(name=f"x{number}", datatype="BYTES", shape=[size])
                if raw:
                    request.raw_input_contents.append(bytes(4 * size))
                else:
                    tensor.contents.bytes_contents.extend([b""] * size)
            if not name:
                assert len(messages.decode_infer(request.SerializeToString(), few).inputs) == 2
                continue
            with pytest.raises(
                WireError, match=f"input '{name}' has too many BYTES elements: got 7, expected at most 6"
            ):
                messages.decode_infer(request.SerializeToString(), few)
