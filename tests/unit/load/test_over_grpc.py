"""Load over gRPC against a real server: what it says must be what happened, as over HTTP."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest

from tailorbird.cli.bench import bench
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.load.arrivals import steady
from tailorbird.load.drive import open_loop
from tailorbird.load.over_grpc import GrpcClient
from tailorbird.load.run import Load, Scenario, run
from tailorbird.load.tally import Tally
from tailorbird.service.app import running_server
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.tls import TlsFiles
from tailorbird.service.options import ServerOptions
from tailorbird.service.rpc import schema
from tailorbird.serving.hub import Hub
from tests.protocol.certificates import Authority
from tests.protocol.doors import locked_server, make_tokens
from tests.protocol.engines import echo_model


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def echo(*arguments: Any, **options: Any) -> Any:
    return echo_model(*arguments, **options)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    models = [echo("echo", DType.FP32, ("rows", 3)), echo("texts", DType.BYTES),
              echo("slow", DType.FP32, ("rows", 3), delay=0.1, outstanding=2)]  # fmt: skip
    port = free_port()
    with running_server(Hub(models), ServerOptions(port=0, grpc_port=port)):
        yield f"127.0.0.1:{port}"


def load(url: str, **fields: Any) -> Load:
    return Load(**{"url": url, "model": "echo", "protocol": "grpc", "seconds": 0.4} | fields)


@pytest.mark.parametrize("model", ["echo", "texts"])
def test_a_single_stream_is_answered_one_by_one(server: str, model: str) -> None:
    found = run(load(server, model=model, rows=2))
    assert found.answered == found.sent > 10
    assert (found.refused, found.failed, found.faults) == (0, 0, {})
    assert found.rows_rate == pytest.approx(2 * found.rate)


@pytest.mark.parametrize("fields", [{"scenario": Scenario.CLOSED, "concurrency": 20}, {"scenario": Scenario.OFFLINE},
                                    {"scenario": Scenario.SERVER, "rate": 100, "slo_ms": 10_000}])  # fmt: skip
def test_every_scenario_runs(server: str, fields: dict[str, Any]) -> None:
    found = run(load(server, **fields))
    assert found.answered == found.sent > 10
    assert found.failed == 0


def test_a_trace_is_replayed(server: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(
        "".join(f'{{"at": {number / 100}, "rows": {1 + number % 3}}}\n' for number in range(30))
    )
    found = run(load(server, scenario=Scenario.TRACE, trace=str(tmp_path / "t")))
    assert (found.answered, round(found.rows_rate * found.seconds)) == (30, 60)


def test_refusals_are_told_from_faults(server: str) -> None:
    found = run(load(server, model="slow", scenario=Scenario.CLOSED, concurrency=8))
    assert found.answered > 0
    assert found.refused > 0
    assert found.faults == {}
    wrong = run(load(server), [{"x": np.zeros((1, 4), np.float32)}])
    assert wrong.answered == 0
    assert all(fault.startswith("status INVALID_ARGUMENT: input 'x'") for fault in wrong.faults)


def test_an_unknown_model_is_said_before_the_load(server: str) -> None:
    with pytest.raises(TailorbirdError, match="the server has no model 'ech' to bench: got status NOT_FOUND"):
        run(load(server, model="ech"))


@pytest.mark.parametrize("url", ["ftp://h", "h:99999", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a server's address"):
        run(load(url))


def test_no_server_is_said_with_a_hint() -> None:
    with pytest.raises(TailorbirdError, match=r"cannot reach 127.0.0.1:\d+: got .*\nHint: .*tailorbird serve"):
        run(load(f"127.0.0.1:{free_port()}"))


def test_json_over_grpc_and_strange_protocols_are_refused() -> None:
    with pytest.raises(UsageError, match="tensors cannot be sent as JSON over gRPC"):
        run(load("h", json=True))
    with pytest.raises(UsageError, match="unknown protocol: got smtp, expected http or grpc"):
        run(load("h", protocol="smtp"))


class Stalling:
    """A real gRPC server that stops for a while at its first request, and notes what each call brought."""

    def __init__(self, seconds: float) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.deadlines: list[float | None] = []
        self._seconds = seconds
        self._one = threading.Lock()

    def __enter__(self) -> str:
        self._server = grpc.server(ThreadPoolExecutor(64))
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        handlers = grpc.method_handlers_generic_handler(schema.INFERENCE, {"ModelInfer": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return f"127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def _answer(self, _: bytes, context: Any) -> bytes:
        with self._one:
            threading.Event().wait(0 if self.metadata else self._seconds)
            self.metadata.append(dict(context.invocation_metadata()))
            self.deadlines.append(context.time_remaining())
        return b""


def driven(url: str, limit: float = 30.0, headers: dict[str, str] | None = None) -> Any:
    async def drive() -> Tally:
        tally, client = Tally("stall"), GrpcClient(url, 64, headers, limit)
        await open_loop(client, {1: [b""]}, steady(100, 0.6), tally)
        await client.close()
        return tally

    return asyncio.run(drive()).summary(1.0)


def test_a_stall_is_felt_by_the_requests_it_kept_waiting() -> None:
    server = Stalling(0.4)
    with server as url:
        found = driven(url, headers={"Authorization": "Bearer x"})
    assert found.answered == 60
    assert found.latency_ms["p50"] > 100
    assert found.latency_ms["max"] > 390
    assert {one["authorization"] for one in server.metadata} == {"Bearer x"}
    assert (
        max(server.deadlines, key=lambda one: one or 0) is None
        or min(left for left in server.deadlines if left is not None) > 10**6
    )  # no deadline: how long the client waits is not the server's to know


def test_requests_to_a_silent_server_fail_in_time() -> None:
    with Stalling(3.0) as url:
        found = driven(url, limit=0.2)
    assert found.answered == 0
    assert found.faults == {"no answer within 0.2 s": 60}


def test_the_command_takes_a_token_and_headers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_TOKEN", "secret")
    bench("echo", url=server, protocol="grpc", seconds=0.1, header=("X-Team: birds",))
    for header in ("no colon", "a b: c", "x: a\nb"):
        with pytest.raises(UsageError, match="that is no header"):
            bench("echo", url=server, header=(header,))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_locked_server_takes_its_token_over_tls(protocol: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)  # type: ignore[no-untyped-call]
    secret = make_tokens(tmp_path / "tokens")["all"]  # type: ignore[no-untyped-call]
    guarding = Guarding(tokens=tmp_path / "tokens", tls=TlsFiles(*authority.server()))
    with locked_server(guarding) as running:  # type: ignore[no-untyped-call]
        url = running.url if protocol == "http" else f"https://{running.grpc}"
        asked = Load(url=url, model="alpha", protocol=protocol, seconds=0.2, ca=str(authority.file),
                     headers={"authorization": f"Bearer {secret}"})  # fmt: skip
        found = run(asked)
        assert found.answered == found.sent > 0
        with pytest.raises(TailorbirdError, match=r"status (401|UNAUTHENTICATED)"):
            run(msgspec.structs.replace(asked, headers={}))
        with pytest.raises(TailorbirdError, match=r"cannot reach|hung up|does not say"):
            run(msgspec.structs.replace(asked, ca=""))
        with pytest.raises(UsageError, match="no certificates in"):
            run(msgspec.structs.replace(asked, ca=str(tmp_path / "none")))
