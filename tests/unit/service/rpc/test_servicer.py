"""What the call itself says about a request."""

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

from tailorbird.service.limits import Limits
from tailorbird.service.rpc import schema
from tailorbird.service.rpc.administrative import ADMINISTRATIVE
from tailorbird.service.rpc.operations import INFERENCE, NOT_OFFERED
from tailorbird.service.rpc.servicer import Servicer, _within
from tailorbird.service.rpc.sharing import SHARED_MEMORY
from tailorbird.serving.dataplane import DataPlane, InferRequest
from tailorbird.serving.hub import Hub


@pytest.mark.parametrize(
    ("stated", "seconds", "timeout"),
    [
        ({}, None, {}),
        ({"timeout": 5}, None, {"timeout": 5}),
        ({}, 1.5, {"timeout": 1_500_000}),
        ({"timeout": 0}, 1.5, {"timeout": 1_500_000}),  # the protocol's word for none
        ({"timeout": 2_000_000, "priority": 1}, 1.5, {"timeout": 1_500_000, "priority": 1}),
        ({"timeout": 1_000_000}, 1.5, {"timeout": 1_000_000}),
        ({}, 0.0, {"timeout": 1}),  # 0 would mean none
        ({"timeout": -1}, 1.5, {"timeout": -1}),
        ({"timeout": "soon"}, 1.5, {"timeout": "soon"}),
        ({"timeout": True}, 1.5, {"timeout": True}),
    ],
)
def test_the_shorter_of_timeout_and_deadline_counts(stated, seconds, timeout):
    request = InferRequest("m", {}, parameters=stated)
    got = _within(request, seconds)
    assert got.parameters == timeout
    assert request.parameters == stated


def test_every_published_operation_is_answered():
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from tritonclient.grpc import service_pb2

    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    handlers = Servicer(DataPlane(Hub()), Limits()).handlers()[schema.INFERENCE]
    assert set(handlers) == {method.name for method in service.methods}
    for method in service.methods:
        handler = handlers[method.name]
        assert (handler.request_streaming, handler.response_streaming) == (
            method.client_streaming,
            method.server_streaming,
        )
        assert handler.request_deserializer is None  # bytes are judged before anything is made of them


def test_every_operation_we_compiled_is_offered_or_refused():
    compiled = {method.name for method in schema.POOL.FindServiceByName(schema.INFERENCE).methods}
    offered = {*INFERENCE, *ADMINISTRATIVE, *SHARED_MEMORY, "ModelInfer", "ModelStreamInfer"}
    assert compiled == offered
    assert not offered & set(NOT_OFFERED)
