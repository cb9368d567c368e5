"""Bodies as they stand on the wire, byte for byte."""
# ruff: noqa: E501 - a message is easier to judge in one piece

import json

import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.service.faults import WireError
from tailorbird.service.limits import Limits
from tailorbird.service.web import wire
from tailorbird.serving.dataplane import InferResponse

SMALL = Limits(tensors=2, parameters=2, elements=100, json_elements=10)
CASES = {
    "BOOL": ([True, False], b"\x01\x00"),
    "UINT8": ([0, 255], b"\x00\xff"),
    "UINT16": ([1, 65535], b"\x01\x00\xff\xff"),
    "UINT32": ([1, 2**32 - 1], b"\x01\x00\x00\x00\xff\xff\xff\xff"),
    "UINT64": ([1, 2**64 - 1], b"\x01" + bytes(7) + b"\xff" * 8),
    "INT8": ([-128, 127], b"\x80\x7f"),
    "INT16": ([-2, 1], b"\xfe\xff\x01\x00"),
    "INT32": ([-2, 1], b"\xfe\xff\xff\xff\x01\x00\x00\x00"),
    "INT64": ([-(2**63), 2**63 - 1], bytes(7) + b"\x80" + b"\xff" * 7 + b"\x7f"),
    "FP32": ([1.5, -2.0], b"\x00\x00\xc0\x3f\x00\x00\x00\xc0"),
    "FP64": ([1.5, -2.0], b"\x00" * 6 + b"\xf8\x3f" + b"\x00" * 7 + b"\xc0"),
    "BYTES": (["a", "é,"], b"\x01\x00\x00\x00a\x03\x00\x00\x00\xc3\xa9,"),
}
"""Each datatype as JSON and as the binary extension has it."""


def tensor(**fields):
    return {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2], **fields}


def decode(request, blobs=b"", limits=SMALL, **fields):
    """Decode a request with blobs behind it, or without."""
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    length = fields.get("json_bytes", len(text) if blobs else None)
    return wire.decode_infer(text + blobs, length, "m", None, limits)


def refusal(*args, **fields):
    with pytest.raises(WireError) as caught:
        decode(*args, **fields)
    return caught.value.message


def response(dtype, values, shape=None, **fields):
    array = np.array(values, DType(dtype).numpy)
    array = array if shape is None else array.reshape(shape)
    return InferResponse("m", 3, {"y": array}, {"y": DType(dtype)}, **fields)


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CASES)
def test_json_and_binary_say_the_same(dtype):
    values, blob = CASES[dtype]
    by_json, _ = decode({"inputs": [tensor(datatype=dtype, data=values)]})
    stated = {"name": "x", "shape": [2], "datatype": dtype, "parameters": {"binary_data_size": len(blob)}}
    by_binary, _ = decode({"inputs": [stated]}, blob)
    for request in (by_json, by_binary):
        assert request.dtypes == {"x": DType(dtype)}
        assert request.inputs["x"].dtype == DType(dtype).numpy
        expected = [value.encode() for value in values] if dtype == "BYTES" else values
        assert request.inputs["x"].tolist() == expected


def test_all_of_a_request_is_read():
    request, form = decode(
        {
            "id": "42",
            "parameters": {"priority": 1, "binary_data_output": True},
            "inputs": [tensor()],
            "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
            "unknown": [{"future": "field"}],
        }
    )
    assert (request.model, request.version, request.id) == ("m", None, "42")
    assert request.parameters == {"priority": 1, "binary_data_output": True}
    assert request.outputs == ("y", "z")
    assert (form.is_binary("y"), form.is_binary("z")) == (False, True)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [1, 2, 3, 4]),
        ([2, 2], [[1, 2], [3, 4]]),
        ([1, 2, 2], [[[1, 2], [3, 4]]]),
        ([], [1]),
        ([2, 0], [[], []]),
    ],
)
def test_data_may_be_flat_or_nested(shape, data):
    for dtype in ("FP32", "INT64"):
        request, _ = decode({"inputs": [tensor(shape=shape, datatype=dtype, data=data)]})
        np.testing.assert_array_equal(request.inputs["x"], np.array(data, DType(dtype).numpy).reshape(shape))


def test_nested_strings():
    request, _ = decode({"inputs": [tensor(shape=[2, 1], datatype="BYTES", data=[["a,"], ["b["]])]})
    assert request.inputs["x"].tolist() == [[b"a,"], [b"b["]]


def test_binary_tensors_follow_in_the_order_of_the_json():
    inputs = [
        {"name": "a", "shape": [1], "datatype": "INT16", "parameters": {"binary_data_size": 2}},
        {"name": "b", "shape": [1], "datatype": "INT8", "data": [7]},
        {"name": "c", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
    ]
    request, _ = decode({"inputs": inputs}, b"\x05\x00" + b"\x00" * 6 + b"\xf8\x3f", Limits())
    assert [request.inputs[name].tolist() for name in "abc"] == [[5], [7], [1.5]]
    assert all(array.flags.aligned for array in request.inputs.values())


def test_fp16_and_bf16_travel_as_bytes():
    for dtype, kind in (("FP16", np.float16), ("BF16", np.uint16)):
        stated = {"name": "x", "shape": [2], "datatype": dtype, "parameters": {"binary_data_size": 4}}
        request, _ = decode({"inputs": [stated]}, b"\x00\x3c\x00\xc0")
        assert request.inputs["x"].dtype == kind


D = "\nHint: send it as binary data"
REFUSED = {
    "no JSON": (b"", "the request's JSON is not valid: got Input data was truncated"),
    "not JSON": (b"{]", "the request's JSON is not valid: got JSON is malformed: object keys must be strings (byte 1)"),
    "not UTF-8": (b'{"inputs":[{"name":"\xff"}]}', "the request's JSON is not valid: got 'utf-8' codec can't decode byte 0xff "
                  "in position 0: invalid start byte"),
    "a list": (b"[]", "the request's JSON is not valid: got Expected `object`, got `array`"),
    "deep": (b'{"x":' + b"[" * 100_000, "the request is nested too deeply"),
    "deep data": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 100_000, "the request is nested too deeply"),
    "no inputs": ({}, "the request's JSON is not valid: got Object missing required field `inputs`"),
    "no name": ({"inputs": [{"shape": [1], "datatype": "FP32"}]}, "the request's JSON is not valid: got Object missing required field `name` - at `$.inputs[0]`"),
    "empty name": ({"inputs": [tensor(name="")]}, "the request's JSON is not valid: got Expected `str` of length >= 1 - at `$.inputs[0].name`"),
    "long name": ({"inputs": [tensor(name="a" * 1025)]}, "the request's JSON is not valid: got Expected `str` of length <= 1024 - at `$.inputs[0].name`"),
    "long id": ({"id": "a" * 1025, "inputs": []}, "the request's JSON is not valid: got Expected `str` of length <= 1024 - at `$.id`"),
    "id a number": ({"id": 1, "inputs": []}, "the request's JSON is not valid: got Expected `str`, got `int` - at `$.id`"),
    "negative dim": ({"inputs": [tensor(shape=[-1])]}, "the request's JSON is not valid: got Expected `int` >= 0 - at `$.inputs[0].shape[0]`"),
    "huge dim": ({"inputs": [tensor(shape=[2**63])]}, "the request's JSON is not valid: got Expected `int` <= 9223372036854775807 - at `$.inputs[0].shape[0]`"),
    "dim a bool": ({"inputs": [tensor(shape=[True])]}, "the request's JSON is not valid: got Expected `int`, got `bool` - at `$.inputs[0].shape[0]`"),
    "dim a float": ({"inputs": [tensor(shape=[2.0])]}, "the request's JSON is not valid: got Expected `int`, got `float` - at `$.inputs[0].shape[0]`"),
    "null parameter": ({"inputs": [], "parameters": {"a": None}}, "the request's JSON is not valid: got Expected `bool | int | float | str`, got `null` - at `$.parameters[...]`"),
    "many inputs": ({"inputs": [tensor()] * 3}, "the request has too many inputs: got 3, expected at most 2"),
    "many outputs": ({"inputs": [], "outputs": [{"name": "y"}] * 3}, "the request has too many outputs: got 3, expected at most 2"),
    "many parameters": ({"inputs": [], "parameters": dict.fromkeys("abc", 1)}, "the request has too many parameters: got 3, expected at most 2"),
    "many of a tensor": ({"inputs": [tensor(parameters=dict.fromkeys("abc", 1))]}, "input 'x' has too many parameters: got 3, expected at most 2"),
    "twice": ({"inputs": [tensor(), tensor()]}, "input 'x' is given twice"),
    "datatype": ({"inputs": [tensor(datatype="FLOAT")]}, "input 'x' has an unknown datatype: got 'FLOAT', expected BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES"),
    "rank": ({"inputs": [tensor(shape=[1] * 17)]}, "input 'x' has too many dims: got 17, expected at most 16"),
    "elements": ({"inputs": [tensor(shape=[101])]}, "input 'x' has too many elements: got [101], expected at most 100"),
    "overflow": ({"inputs": [tensor(shape=[2**62] * 4)]}, f"input 'x' has too many elements: got [{','.join([str(2**62)] * 4)}], expected at most 100"),
    "zero is no excuse": ({"inputs": [tensor(shape=[0, 2**62])]}, "input 'x' has too many elements: got [0,4611686018427387904], expected at most 100"),
    "JSON elements": ({"inputs": [tensor(shape=[11])]}, "input 'x' has too many elements for JSON: got 11, expected at most 10" + D),
    "FP16": ({"inputs": [tensor(datatype="FP16")]}, "input 'x' is FP16, which JSON cannot carry" + D),
    "BF16": ({"inputs": [tensor(datatype="BF16")]}, "input 'x' is BF16, which JSON cannot carry" + D),
    "no data": ({"inputs": [{"name": "x", "shape": [1], "datatype": "INT8"}]}, "input 'x' has no data: expected data, or the parameter binary_data_size"),
    "data a number": ({"inputs": [tensor(shape=[1], data=5)]}, "input 'x' has no list of data: expected FP32 [1], flat or nested"),
    "data null": ({"inputs": [tensor(data=None)]}, "input 'x' has no list of data: expected FP32 [2], flat or nested"),
    "short": ({"inputs": [tensor(data=[1])]}, "input 'x' has data of the wrong length: got 1 elements, expected 2 for shape [2]"),
    "empty": ({"inputs": [tensor(data=[])]}, "input 'x' has data of the wrong length: got 0 elements, expected 2 for shape [2]"),
    "long": ({"inputs": [tensor(data=[1, 2, 3])]}, "input 'x' has data of the wrong length: got 3 elements, expected 2 for shape [2]"),
    "not empty": ({"inputs": [tensor(shape=[0], data=[1, 2])]}, "input 'x' has data of the wrong length: got 2 elements, expected 0 for shape [0]"),
    "short strings": ({"inputs": [tensor(datatype="BYTES", data=["a"])]}, "input 'x' has data that does not fit: got cannot reshape array of size 1 into shape (2,), expected BYTES [2], flat or nested"),
    "ragged": ({"inputs": [tensor(shape=[2, 2], data=[[1], [2, 3, 4]])]}, "input 'x' has data that does not fit: got lists of other lengths than 2 at depth 2, expected FP32 [2,2], flat or nested"),
    "mixed": ({"inputs": [tensor(shape=[2, 2], data=[1, 2, [3, 4]])]}, "input 'x' has data that does not fit: got Expected `float`, got `array` - at `$[2]`, expected FP32 [2,2], flat or nested"),
    "transposed": ({"inputs": [tensor(shape=[2, 1], data=[[1, 2]])]}, "input 'x' has data that does not fit: got lists of other lengths than 2 at depth 1, expected FP32 [2,1], flat or nested"),
    "deeper": ({"inputs": [tensor(data=[[1, 2]])]}, "input 'x' has data that does not fit: got Expected `float`, got `array` - at `$[0]`, expected FP32 [2], flat or nested"),
    "scalar nested": ({"inputs": [tensor(shape=[], data=[[1]])]}, "input 'x' has data that does not fit: got Expected `float`, got `array`, expected FP32 [], flat or nested"),
    "text": ({"inputs": [tensor(data=["a", 1])]}, "input 'x' has data that does not fit: got Expected `float`, got `str` - at `$[0]`, expected FP32 [2], flat or nested"),
    "bool as float": ({"inputs": [tensor(data=[True, 1])]}, "input 'x' has data that does not fit: got Expected `float`, got `bool` - at `$[0]`, expected FP32 [2], flat or nested"),
    "bool as int": ({"inputs": [tensor(datatype="INT32", data=[True, 1])]}, "input 'x' has data that does not fit: got Expected `int`, got `bool` - at `$[0]`, expected INT32 [2], flat or nested"),
    "int as bool": ({"inputs": [tensor(datatype="BOOL", data=[1, 0])]}, "input 'x' has data that does not fit: got Expected `bool`, got `int` - at `$[0]`, expected BOOL [2], flat or nested"),
    "float as int": ({"inputs": [tensor(datatype="INT32", data=[1.5, 0])]}, "input 'x' has data that does not fit: got Expected `int`, got `float` - at `$[0]`, expected INT32 [2], flat or nested"),
    "over int8": ({"inputs": [tensor(datatype="INT8", data=[128, 0])]}, "input 'x' has data that does not fit: got Expected `int` <= 127 - at `$[0]`, expected INT8 [2], flat or nested"),
    "under uint8": ({"inputs": [tensor(datatype="UINT8", data=[-1, 0])]}, "input 'x' has data that does not fit: got Expected `int` >= 0 - at `$[0]`, expected UINT8 [2], flat or nested"),
    "over int64": ({"inputs": [tensor(datatype="INT64", data=[2**63, 0])]}, "input 'x' has data that does not fit: got Python int too large to convert to C long, expected INT64 [2], flat or nested"),
    "over uint64": ({"inputs": [tensor(datatype="UINT64", data=[2**64, 0])]}, "input 'x' has data that does not fit: got Python int too large to convert to C long, expected UINT64 [2], flat or nested"),
    "under uint64": ({"inputs": [tensor(datatype="UINT64", data=[-1, 0])]}, "input 'x' has data that does not fit: got Expected `int` >= 0 - at `$[0]`, expected UINT64 [2], flat or nested"),
    "over fp32": ({"inputs": [tensor(data=[1e39, 0])]}, "input 'x' has data that does not fit: got Expected `float` < 3.4028235677973366e+38 - at `$[0]`, expected FP32 [2], flat or nested"),
    "NaN": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "the request's JSON is not valid: got JSON is malformed: invalid character (byte 61)"),
    "shared memory": ({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}, "input 'x' has the parameter shared_memory_region: got shared memory is off on this server"),
    "classification": ({"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"classification": 0}}]}, "output 'y' has a classification that is no number of classes: got 0, expected a whole number, 1 or more"),
    "flag": ({"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "output 'y' has a binary_data that is no boolean: got 1"),
    "request flag": ({"inputs": [tensor()], "parameters": {"binary_data_output": "yes"}}, "the request has a binary_data_output that is no boolean: got 'yes'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_json(case):
    request, text = REFUSED[case]
    assert refusal(request) == text


def blob(size, dtype="FP32", **fields):
    return {
        "inputs": [{"name": "x", "shape": [2], "datatype": dtype, "parameters": {"binary_data_size": size}, **fields}]
    }


H = "\nHint: is Inference-Header-Content-Length the length of the JSON?"
REFUSED_BINARY = {
    "short": (blob(4), bytes(4), "input 'x' has binary data of the wrong size: got 4 bytes, expected 8 bytes for FP32 [2]"),
    "cut": (blob(8), bytes(7), "input 'x' runs past the end of the body: got 7 bytes, expected 8 bytes" + H),
    "more": (blob(8), bytes(9), "the body is longer than its tensors: got 1 bytes too many"),
    "negative": (blob(-1), bytes(8), "input 'x' has a binary_data_size that is no size: got -1"),
    "true": (blob(True), bytes(8), "input 'x' has a binary_data_size that is no size: got True"),
    "text": (blob("8"), bytes(8), "input 'x' has a binary_data_size that is no size: got '8'"),
    "both": (blob(8, data=[1, 2]), bytes(8), "input 'x' has both data and binary_data_size"),
    "bool": (blob(2, "BOOL"), b"\x02\x00", "input 'x' has a BOOL that is neither 0 nor 1: got 2"),
    "strings short": (blob(4, "BYTES"), bytes(4), "input 'x' has binary data of the wrong size: got 4 bytes, expected at least 8 bytes for 2 BYTES elements"),
    "string past": (blob(9, "BYTES"), b"\x00\x00\x00\x00\xff\xff\xff\xffa", "input 'x' has a BYTES element that runs past its data: got element 1"),
    "length past": (blob(9, "BYTES"), b"\x04\x00\x00\x00abcde", "input 'x' has a BYTES element that runs past its data: got element 1"),
    "strings more": (blob(9, "BYTES"), bytes(9), "input 'x' has binary data of the wrong size: got 9 bytes, expected 8 bytes for its 2 BYTES elements"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_BINARY)
def test_refused_binary(case):
    request, data, text = REFUSED_BINARY[case]
    assert refusal(request, data) == text


def test_the_json_cannot_be_longer_than_the_body():
    text = refusal({"inputs": []}, b"x", json_bytes=99)
    assert text == "Inference-Header-Content-Length is out of range: got 99, expected 0 to 15, the body's length"


def test_bytes_without_their_json_length_are_no_json():
    assert refusal(json.dumps(blob(8)).encode() + bytes(8)).startswith(
        "the request's JSON is not valid: got JSON is malf"
    )


# --- raw requests ---------------------------------------------------------------------------------


def raw(body, *dims, dtype=DType.FP32, inputs=1):
    specs = tuple(TensorSpec(f"x{index}", dtype, dims) for index in range(inputs))
    request, form = wire.decode_raw(body, Signature(specs, ()), "m", 1, SMALL)
    assert form.is_binary("anything")
    return request.inputs["x0"]


def test_a_raw_body_is_one_row():
    assert raw(bytes(8), "N", 2).shape == (1, 2)
    assert raw(bytes(12), "N", "L").shape == (1, 3)
    assert raw(bytes(8), 2).shape == (2,)
    assert raw(b"text", "N", dtype=DType.BYTES).tolist() == [b"text"]
    assert raw(b"", "N", "L").shape == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((bytes(8), "N", 2), "a body without JSON needs a model with one input: got 2 inputs\n"
         "Hint: set Inference-Header-Content-Length to the length of the JSON"),
        ((bytes(8), "N", "H", "W"), "a body without JSON leaves the shape open: got 2 dynamic dims of x0 FP32[N,H,W], "
         "expected at most one besides the batch"),
        ((bytes(7), "N", 2), "input 'x0' has binary data of the wrong size: got 7 bytes, expected 8 bytes for FP32 [1,2]"),
        ((bytes(7), "N", "L"), "input 'x0' has binary data of the wrong size: got 7 bytes, expected 4 bytes for FP32 [1,1]"),
        ((bytes(404), "N", "L"), "input 'x0' has too many elements: got [1,101], expected at most 100"),
    ],
)  # fmt: skip
def test_refused_raw_bodies(arguments, text):
    with pytest.raises(WireError) as caught:
        raw(*arguments, inputs=2 if "one input" in text else 1)
    assert caught.value.message == text


# --- responses ------------------------------------------------------------------------------------


def test_a_json_response():
    body = wire.encode_infer(response("FP32", [[1, 2.5]], id="7"), wire.ReplyForm())
    assert body.json_bytes is None
    assert body.data == (
        b'{"model_name":"m","model_version":"3",'
        b'"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1.0,2.5]}],"id":"7"}'
    )


def test_a_binary_response():
    body = wire.encode_infer(response("FP32", [1, 2.5]), wire.ReplyForm(binary=True))
    text = (
        b'{"model_name":"m","model_version":"3",'
        b'"outputs":[{"name":"y","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}}]}'
    )
    assert body == wire.Body(text + b"\x00\x00\x80\x3f\x00\x00\x20\x40", len(text))


@pytest.mark.parametrize("dtype", CASES)
def test_outputs_mirror_inputs(dtype):
    values, blob = CASES[dtype]
    items = [value.encode() for value in values] if dtype == "BYTES" else values
    assert json.loads(wire.encode_infer(response(dtype, items), wire.ReplyForm()).data)["outputs"][0]["data"] == values
    body = wire.encode_infer(response(dtype, items), wire.ReplyForm(outputs={"y": True}))
    assert body.data[body.json_bytes :] == blob


def test_an_output_that_is_not_contiguous_is_written_row_major():
    body = wire.encode_infer(response("INT8", np.arange(6).reshape(2, 3).T), wire.ReplyForm(binary=True))
    assert body.data[body.json_bytes :] == bytes([0, 3, 1, 4, 2, 5])


ASK = '\nHint: ask for it as binary data: "parameters": {"binary_data": true}'


@pytest.mark.parametrize(
    ("dtype", "values", "text"),
    [
        ("FP32", [1, np.nan], "output 'y' holds NaN or Infinity, which JSON cannot carry" + ASK),
        ("FP64", [-np.inf], "output 'y' holds NaN or Infinity, which JSON cannot carry" + ASK),
        ("FP16", [1], "output 'y' is FP16, which JSON cannot carry" + ASK),
        ("BF16", [1], "output 'y' is BF16, which JSON cannot carry" + ASK),
        ("BYTES", [b"\xff"], "output 'y' holds bytes that are not UTF-8, which JSON cannot carry" + ASK),
    ],
)
def test_what_json_cannot_carry_is_refused_and_goes_as_binary(dtype, values, text):
    with pytest.raises(InputError) as caught:
        wire.encode_infer(response(dtype, values), wire.ReplyForm())
    assert caught.value.message == text
    assert wire.encode_infer(response(dtype, values), wire.ReplyForm(binary=True)).json_bytes


def test_the_word_null_is_no_fault():
    assert wire.encode_infer(response("FP32", [1], id="null"), wire.ReplyForm()).data.endswith(b'"id":"null"}')


def test_errors():
    assert wire.encode_error('a "b"\nHint: c') == b'{"error":"a \\"b\\"\\nHint: c"}'
