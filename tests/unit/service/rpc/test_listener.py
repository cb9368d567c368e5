"""The listener: start, drain, and the ways it cannot start."""

import asyncio

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.service.rpc.listener import GrpcListener
from tailorbird.service.web.listener import bind
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub

PLANE = DataPlane(Hub())


def start_and_drain(host, port):
    async def main():
        listener = GrpcListener(PLANE, host, port)
        try:
            await listener.start()
            return listener.address
        finally:
            await listener.drain(1)

    return asyncio.run(main())


def test_a_free_port_is_found_and_left():
    address = start_and_drain("127.0.0.1", 0)
    host, port = address.split(":")
    assert host == "127.0.0.1"
    bind("127.0.0.1", int(port)).close()


def test_a_taken_port():
    """Two servers of gRPC would share it: half the calls would go to whoever listens there already."""
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(TailorbirdError) as caught:
            start_and_drain("127.0.0.1", port)
    assert caught.value.message == (
        f"cannot listen for gRPC on 127.0.0.1:{port}: got the address could not be bound\n"
        "Hint: another process may listen there: choose another port, or 0 for any free one"
    )


def test_a_port_of_another_grpc_server():
    async def main():
        first = GrpcListener(PLANE, "127.0.0.1", 0)
        await first.start()
        second = GrpcListener(PLANE, "127.0.0.1", first.port)
        try:
            with pytest.raises(TailorbirdError, match=r"^cannot listen for gRPC on "):
                await second.start()
        finally:
            await second.drain(1)
            await first.drain(1)

    asyncio.run(main())


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_port(port):
    with pytest.raises(UsageError) as caught:
        start_and_drain("127.0.0.1", port)
    assert caught.value.message == f"cannot listen on 127.0.0.1:{port}: got no such port, expected 0 to 65535"


@pytest.mark.parametrize("host", ["999.1.1.1", "no host.invalid"])
def test_no_address(host):
    with pytest.raises(TailorbirdError, match=r"^cannot listen for gRPC on "):
        start_and_drain(host, 0)


def test_draining_twice_or_before_the_start_is_nothing():
    async def main():
        listener = GrpcListener(PLANE, "127.0.0.1", 0)
        await listener.drain(1)
        await listener.start()
        await listener.drain(1)
        await listener.drain(1)

    asyncio.run(main())


def test_an_address_of_ipv6_is_in_brackets():
    assert GrpcListener(PLANE, "::1", 8001).address == "[::1]:8001"
