"""Calls over gRPC that say nothing: they end, and their places are free again."""

import asyncio
import time

import numpy as np
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

import grpc

from tailorbird.domain.dtype import DType
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.tls import TlsFiles
from tailorbird.service.limits import Limits
from tailorbird.service.rpc import schema
from tailorbird.serving.hub import Hub
from tests.protocol.certificates import Authority
from tests.protocol.doors import locked_server
from tests.protocol.engines import echo_model
from tests.protocol.grpc_server import grpc_server

INFER, STREAM = f"/{schema.INFERENCE}/ModelInfer", f"/{schema.INFERENCE}/ModelStreamInfer"
LIVE = f"/{schema.INFERENCE}/ServerLive"
LIMITS = Limits(read_seconds=0.5, idle_seconds=1.0, grpc_calls=8)
LATE = (grpc.StatusCode.DEADLINE_EXCEEDED, "the message did not arrive within 0.5 s")


@pytest.fixture(scope="module")
def address():
    models = [echo_model("echo", DType.FP32), echo_model("slow", DType.FP32, delay=2.0)]
    with grpc_server(Hub(models), LIMITS) as running:
        yield running.address


def message(model="echo"):
    request = schema.ModelInferRequest(model_name=model, raw_input_contents=[np.ones(1, np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    return request.SerializeToString()


def spoken(address, talk, credentials=None):
    """What a coroutine finds that is given a channel."""

    async def main():
        opened = (
            grpc.aio.insecure_channel(address) if credentials is None else grpc.aio.secure_channel(address, credentials)
        )
        async with opened as channel:
            return await asyncio.wait_for(talk(channel), 20)

    return asyncio.run(main())


async def ended(call):
    """A call's status."""
    return await call.code(), await call.details()


@pytest.mark.parametrize("method", [INFER, LIVE, "/grpc.health.v1.Health/Check"])
def test_a_call_without_its_message(address, method):
    async def talk(channel):
        began = time.monotonic()
        return await ended(channel.stream_unary(method)()), time.monotonic() - began

    status, seconds = spoken(address, talk)
    assert status == LATE
    assert 0.4 < seconds < 5


def test_a_call_that_ends_without_its_message(address):
    async def talk(channel):
        call = channel.stream_unary(LIVE)()
        await call.done_writing()
        return await ended(call)

    assert spoken(address, talk) == (grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")


def test_a_call_without_its_message_behind_a_certificate(tmp_path):
    """Where the gate looks at certificates, before."""
    authority = Authority(tmp_path)
    files = TlsFiles(*authority.server(), client_authorities=authority.file)
    certificate, key = authority.issue("robot")
    shown = grpc.ssl_channel_credentials(authority.file.read_bytes(), key.read_bytes(), certificate.read_bytes())

    async def talk(channel):
        answer = await channel.unary_unary(LIVE)(b"")
        return answer, await ended(channel.stream_unary(LIVE)())

    with locked_server(Guarding(tls=files), limits=LIMITS) as running:
        answer, status = spoken(running.grpc, talk, shown)
    assert schema.ServerLiveResponse.FromString(answer).live
    assert status == LATE


def test_places_of_silent_calls_are_free_again(address):
    async def talk(channel):
        silent = [channel.stream_stream(STREAM)() for _ in range(8)]
        await asyncio.sleep(0.2)
        with pytest.raises(grpc.aio.AioRpcError, match="Concurrent RPC limit"):
            await channel.unary_unary(LIVE)(b"")
        await asyncio.gather(*(call.code() for call in silent))
        await asyncio.sleep(0.1)
        return await channel.unary_unary(LIVE)(b"")

    assert schema.ServerLiveResponse.FromString(spoken(address, talk)).live


@pytest.mark.parametrize(
    ("sent", "words"), [(0, "no message arrived within 0.5 s"), (2, "no message arrived within 1 s")]
)
def test_a_stream_that_falls_silent(address, sent, words):
    async def talk(channel):
        call = channel.stream_stream(STREAM)()
        for _ in range(sent):
            await call.write(message())
            assert not schema.ModelStreamInferResponse.FromString(await call.read()).error_message
            await asyncio.sleep(0.7)  # longer than the first message may take
        return await ended(call)

    assert spoken(address, talk) == (grpc.StatusCode.DEADLINE_EXCEEDED, words)


def test_a_stream_whose_answer_is_being_made_is_not_silent(address):
    async def talk(channel):
        call = channel.stream_stream(STREAM)()
        await call.write(message("slow"))
        assert not schema.ModelStreamInferResponse.FromString(await call.read()).error_message
        await asyncio.sleep(0.5)
        await call.write(message())
        assert not schema.ModelStreamInferResponse.FromString(await call.read()).error_message
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        return await call.code()

    assert spoken(address, talk) is grpc.StatusCode.OK
