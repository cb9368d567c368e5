"""Whatever arrives is a value or a Tailorbird error; what is sent comes back the same."""

import json
import struct

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import TailorbirdError
from tailorbird.service.limits import Limits
from tailorbird.service.routes import route
from tailorbird.service.web import compression, wire
from tailorbird.serving.dataplane import InferResponse

LIMITS = Limits(elements=1 << 16, json_elements=1 << 12)
BINARY_ONLY = {DType.FP16, DType.BF16}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw):
    """A dtype and an array of it."""
    dtype = draw(st.sampled_from(list(DType)))
    if dtype is DType.BYTES:
        array = draw(hnp.arrays(object, SHAPES, elements=st.text(st.characters(codec="utf-8"), max_size=5)))
        flat = np.empty(array.size, object)
        flat[:] = [text.encode() for text in array.ravel()]
        return dtype, flat.reshape(array.shape)
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.is_float and dtype is not DType.BF16 else {}
    elements = hnp.from_dtype(dtype.numpy, **finite)
    return dtype, draw(hnp.arrays(dtype.numpy, SHAPES, elements=elements))


def as_request(answer, json_bytes):
    """A response's body as a request's: the two have one form."""
    text = json.loads(answer[:json_bytes])
    renamed = json.dumps({"inputs": text["outputs"], "id": text.get("id", "")}).encode()
    return renamed + answer[json_bytes:], len(renamed)


@given(st.dictionaries(st.text(min_size=1, max_size=8), arrays(), max_size=4), st.booleans(), st.text(max_size=8))
@settings(max_examples=100)
def test_round_trip(named, binary, request_id):
    outputs = {name: array for name, (_, array) in named.items()}
    dtypes = {name: dtype for name, (dtype, _) in named.items()}
    form = wire.ReplyForm(outputs={name: binary or dtype in BINARY_ONLY for name, dtype in dtypes.items()})
    body = wire.encode_infer(InferResponse("m", 1, outputs, dtypes, id=request_id), form)
    length = len(body.data) if body.json_bytes is None else body.json_bytes
    request, _ = wire.decode_infer(*as_request(body.data, length), "m", 1, LIMITS)
    assert request.id == request_id
    assert request.dtypes == dtypes
    for name, array in outputs.items():
        got = request.inputs[name]
        assert got.dtype == array.dtype
        assert got.shape == array.shape
        assert got.tolist() == array.tolist()


def survives(call, *arguments):
    """A value, or an error of ours; anything else fails the test."""
    try:
        return call(*arguments)
    except TailorbirdError:
        return None


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_random_bytes(body, length):
    survives(wire.decode_infer, body, length, "m", None, LIMITS)


VALID = json.dumps(
    {
        "id": "1",
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [[1.5, 2], [3, 4]]},
            {"name": "b", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
            {"name": "c", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": 2}},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
    }
).encode()
BLOBS = struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + b"bc" + b"\x01\x02"


@given(st.lists(st.tuples(st.integers(0, len(VALID + BLOBS)), st.binary(max_size=3), st.integers(0, 4)), max_size=4))
@settings(max_examples=250)
@example([])
def test_mutated_requests(changes):
    body = bytearray(VALID + BLOBS)
    for place, insert, remove in changes:
        body[place : place + remove] = insert
    result = survives(wire.decode_infer, bytes(body), len(VALID), "m", None, LIMITS)
    assert changes or result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
PARAMETERS = st.dictionaries(st.just("binary_data_size") | st.text(max_size=3), JSON, max_size=3)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3),
        "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=4) | JSON,
        "datatype": st.sampled_from([str(dtype) for dtype in DType]) | st.text(max_size=4),
    },
    optional={"data": JSON, "parameters": PARAMETERS},
)


@given(st.fixed_dictionaries({"inputs": st.lists(TENSOR, max_size=3)}, optional={"outputs": JSON, "parameters": JSON}))
@settings(max_examples=150)
def test_plausible_requests(request):
    survives(wire.decode_infer, json.dumps(request).encode(), None, "m", None, LIMITS)


@given(st.sampled_from(["gzip", "deflate", "br", ""]), st.binary(max_size=60))
def test_random_compressed_bytes(encoding, body):
    survives(compression.decompress, encoding, body, 1000)


@given(st.sampled_from(["GET", "POST", "PUT"]), st.binary(max_size=40).map(lambda tail: b"/v2/models/" + tail))
def test_random_paths(method, path):
    survives(route, method, path)
