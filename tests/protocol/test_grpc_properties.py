"""Whatever arrives over gRPC is a value or a Tailorbird error; what is sent comes back the same."""

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("grpc", reason="grpcio is not installed")

import grpc
from google.protobuf.message import DecodeError

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import TailorbirdError
from tailorbird.service import tensors
from tailorbird.service.faults import WireError
from tailorbird.service.limits import Limits
from tailorbird.service.rpc import messages, scan, schema
from tailorbird.service.rpc.servicer import Servicer
from tailorbird.serving.dataplane import DataPlane, InferResponse
from tailorbird.serving.hub import Hub
from tests.protocol.engines import fake_model
from tests.protocol.test_wire_properties import arrays

LIMITS = Limits(elements=1 << 16, json_elements=1 << 12)


@given(st.dictionaries(st.text(min_size=1, max_size=8), arrays(), min_size=1, max_size=4), st.text(max_size=8))
@settings(max_examples=150)
def test_round_trip(named, request_id):
    """A response's outputs, sent back as a request's inputs, are the same arrays."""
    outputs = {name: array for name, (_, array) in named.items()}
    dtypes = {name: dtype for name, (dtype, _) in named.items()}
    response = schema.ModelInferResponse.FromString(
        messages.encode_infer(InferResponse("m", 3, outputs, dtypes, id=request_id))
    )
    assert response.model_version == "3"
    request = schema.ModelInferRequest(model_name=response.model_name, id=response.id, model_version="3")
    for output in response.outputs:
        request.inputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
    request.raw_input_contents.extend(response.raw_output_contents)
    got = messages.decode_infer(request.SerializeToString(), LIMITS)
    assert (got.model, got.version, got.id, got.dtypes) == ("m", 3, request_id, dtypes)
    for name, array in outputs.items():
        assert got.inputs[name].dtype == array.dtype
        assert got.inputs[name].shape == array.shape
        assert bytes(tensors.to_binary(dtypes[name], got.inputs[name])) == bytes(tensors.to_binary(dtypes[name], array))


def survives(message):
    """A value, or an error of ours; anything else fails the test."""
    try:
        return messages.decode_infer(message, LIMITS)
    except TailorbirdError:
        return None


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_bytes(message):
    survives(message)


def valid(raw):
    request = schema.ModelInferRequest(model_name="fake", model_version="1", id="7")
    request.parameters["timeout"].int64_param = 5_000_000
    x = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    k = request.inputs.add(name="k", datatype="INT64", shape=[1, 1])
    request.outputs.add(name="y").parameters["a"].bool_param = True
    if raw:
        request.raw_input_contents.extend([bytes(16), bytes(8)])
    else:
        x.contents.fp32_contents.extend([1, 2, 3, 4])
        k.contents.int64_contents.append(-1)
    return request.SerializeToString()


CHANGES = st.lists(st.tuples(st.integers(0, len(valid(False))), st.binary(max_size=3), st.integers(0, 4)), max_size=4)


def changed(message, changes):
    body = bytearray(message)
    for place, insert, remove in changes:
        body[place : place + remove] = insert
    return bytes(body)


@given(st.booleans(), CHANGES)
@settings(max_examples=400)
@example(False, [])
@example(True, [])
def test_mutated_requests(raw, changes):
    result = survives(changed(valid(raw), changes))
    assert changes or result


@given(st.booleans(), CHANGES)
@settings(max_examples=400)
def test_scanning_agrees_with_protobuf(raw, changes):
    """What the scan takes apart, protobuf would have read as the same message."""
    message = changed(valid(raw), changes)
    try:
        header, blobs = scan.split(message, LIMITS)
        apart = schema.ModelInferRequest.FromString(header)
    except (WireError, DecodeError):
        return
    apart.raw_input_contents.extend(map(bytes, blobs))
    whole = schema.ModelInferRequest.FromString(message)
    assert apart.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


PARAMETER = st.fixed_dictionaries(
    {},
    optional={
        "bool_param": st.booleans(),
        "int64_param": st.integers(-(2**63), 2**63 - 1),
        "double_param": st.floats(),
        "string_param": st.text(max_size=3),
    },
)
DIMS = st.lists(st.integers(-1, 4) | st.integers(-(2**63), 2**63 - 1), max_size=4)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=4),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=4),
        "fp32_contents": st.lists(st.floats(width=32), max_size=4),
        "bytes_contents": st.lists(st.binary(max_size=4), max_size=4),
    },
)
INPUT = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "k"]) | st.text(max_size=3),
        "datatype": st.sampled_from([str(dtype) for dtype in DType]) | st.text(max_size=4),
        "shape": DIMS,
    },
    optional={"contents": CONTENTS, "parameters": st.dictionaries(st.text(max_size=3), PARAMETER, max_size=2)},
)
PLAUSIBLE = st.fixed_dictionaries(
    {"model_name": st.sampled_from(["fake", "", "other"]), "inputs": st.lists(INPUT, max_size=3)},
    optional={"raw_input_contents": st.lists(st.binary(max_size=20), max_size=3), "model_version": st.text(max_size=3)},
)


@given(PLAUSIBLE)
@settings(max_examples=300)
def test_plausible_requests(fields):
    survives(schema.ModelInferRequest(**fields).SerializeToString())


class Call:
    """What the operations need of a gRPC call."""

    code = None

    def time_remaining(self):
        return None

    async def abort(self, code, words):
        self.code = code
        raise grpc.aio.AbortError(words)


@pytest.fixture(scope="module")
def operations():
    hub = Hub([fake_model()])
    servicer = Servicer(DataPlane(hub), LIMITS)
    services = servicer.handlers()
    yield {
        name: handler.unary_unary
        for found in services.values()
        for name, handler in found.items()
        if handler.unary_unary
    }
    assert servicer._held == 0
    hub.close()


async def ask(operation, message):
    call = Call()
    try:
        assert isinstance(await operation(message, call), bytes)
    except grpc.aio.AbortError:
        assert call.code is not None
    return call.code


@given(st.data())
@settings(max_examples=300)
def test_no_message_is_the_servers_fault(operations, data):
    """Through every operation, as far as the engine and back."""
    name = data.draw(st.sampled_from(sorted(operations)))
    message = data.draw(
        st.binary(max_size=60)
        | st.tuples(st.booleans(), CHANGES).map(lambda drawn: changed(valid(drawn[0]), drawn[1]))
        | PLAUSIBLE.map(lambda fields: schema.ModelInferRequest(**fields).SerializeToString())
    )
    assert asyncio.run(ask(operations[name], message)) is not grpc.StatusCode.INTERNAL


def test_the_call_and_its_engine_work(operations):
    """Or the test above would prove nothing."""
    assert asyncio.run(ask(operations["ModelInfer"], valid(True))) is None
    assert asyncio.run(ask(operations["ModelInfer"], valid(False))) is None
    assert asyncio.run(ask(operations["ModelInfer"], b"\xff")) is grpc.StatusCode.INVALID_ARGUMENT
