"""One run of load against one model of one server: MLPerf's scenarios, a closed loop, or a recorded trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from tailorbird.domain.errors import TailorbirdError, UsageError, nearest
from tailorbird.domain.files import reason
from tailorbird.domain.signature import Tensors
from tailorbird.load import payloads
from tailorbird.load.arrivals import Arrival, poisson, recorded
from tailorbird.load.client import ANSWER_SECONDS, Client
from tailorbird.load.connection import Pool
from tailorbird.load.drive import closed_loop, open_loop, timed
from tailorbird.load.over_http import HttpClient
from tailorbird.load.tally import Summary, Tally

MOST_CONNECTIONS = 1024
OFFLINE_WORKERS = 64
WARM_SECONDS = 0.5
MOST_BODIES = 256
"""Requests made beforehand, where a trace has many looks."""
DEFAULT_URL = {"http": "127.0.0.1:8000", "grpc": "127.0.0.1:8001"}


class Scenario(StrEnum):
    """How requests come."""

    SINGLE = "single-stream"
    """One at a time: MLPerf's SingleStream."""
    CLOSED = "closed"
    """So many clients, each waiting for its answer."""
    SERVER = "server"
    """Poisson arrivals at a rate: MLPerf's Server."""
    OFFLINE = "offline"
    """As much at once as the server takes: MLPerf's Offline."""
    TRACE = "trace"
    """As recorded."""


def scenario_of(text: str) -> Scenario:
    """A scenario by its name; raises :class:`UsageError` naming the nearest."""
    names = tuple(map(str, Scenario))
    if text not in names:
        close = nearest(text, names)
        raise UsageError(f"unknown scenario '{text}'", expected=", ".join(names),
                         hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    return Scenario(text)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, where, and for how long."""

    url: str = ""
    """The server's address; empty for the protocol's own port of this machine."""
    model: str
    protocol: str = "http"
    """Or ``grpc``."""
    scenario: Scenario = Scenario.SINGLE
    seconds: float = 10.0
    rate: float = 0.0
    """Requests a second, for the server scenario."""
    concurrency: int = 1
    """Clients of the closed loop."""
    rows: int = 1
    shapes: dict[str, tuple[int, ...]] = {}
    """Whole shapes of inputs with dynamic dims, by name."""
    trace: str = ""
    slo_ms: float | None = None
    json: bool = False
    """Tensors as JSON instead of binary."""
    seed: int = 0
    headers: dict[str, str] = {}
    ca: str = ""
    """A file of certificates that a server's has to be signed by, where it is not one that the system trusts."""
    timeout: float = ANSWER_SECONDS
    """Seconds for one answer, and for those still out when the last request was sent."""


def run(load: Load, data: Sequence[Tensors] = (), histogram: Path | None = None) -> Summary:
    """Run it.

    Args:
        load: the run.
        data: inputs to send in rotation; synthetic ones by default.
        histogram: a file for the latencies as an HDR histogram.

    Raises:
        UsageError: the run makes no sense, or the model's shapes are not known.
        TailorbirdError: the server cannot be reached, or does not know the model.
    """
    _check(load, histogram)
    tally = Tally(load.scenario, load.slo_ms)
    seconds = asyncio.run(_run(load, data, tally))
    if histogram is not None:
        _write(histogram, tally.encoded())
    return tally.summary(seconds)


def _check(load: Load, histogram: Path | None) -> None:
    """What would fail after the run is refused before it."""
    if load.protocol not in DEFAULT_URL:
        raise UsageError("unknown protocol", got=load.protocol, expected=" or ".join(DEFAULT_URL))
    if load.json and load.protocol == "grpc":
        raise UsageError("tensors cannot be sent as JSON over gRPC", hint="leave --json-tensors out")
    if not load.timeout > 0:
        raise UsageError("a request needs time for its answer", got=f"{load.timeout:g} s", expected="above 0")
    if histogram is not None and (histogram.is_dir() or not histogram.absolute().parent.is_dir()):
        raise UsageError("the histogram cannot be written", got=histogram, expected="a file in an existing folder")


def _write(histogram: Path, content: bytes) -> None:
    try:
        histogram.write_bytes(content)
    except OSError as error:
        raise TailorbirdError(f"cannot write the histogram {histogram}", got=reason(error)) from error


async def _run(load: Load, data: Sequence[Tensors], tally: Tally) -> float:
    arrivals = _arrivals(load)
    client = _client(load)
    try:
        inputs = await client.inputs(load.model)
        requests = _requests(client, load, inputs, arrivals, data)
        await closed_loop(client, next(iter(requests.values())), load.rows, 1, WARM_SECONDS, Tally("warm-up"))
        start = time.monotonic()
        if arrivals is None:
            await closed_loop(client, requests[load.rows], load.rows, _workers(load), load.seconds, tally)
        else:
            await open_loop(client, requests, arrivals, tally, load.timeout)
        return timed(start)
    finally:
        await client.close()


def _client(load: Load) -> Client:
    url = load.url or DEFAULT_URL[load.protocol]
    if load.protocol == "grpc":
        from tailorbird.load.over_grpc import GrpcClient

        return GrpcClient(url, MOST_CONNECTIONS, load.headers, load.timeout, load.ca)
    return HttpClient(Pool(url, MOST_CONNECTIONS, load.headers, load.timeout, load.ca), json=load.json)


def _arrivals(load: Load) -> list[Arrival] | None:
    if load.scenario is Scenario.TRACE:
        return recorded(Path(load.trace), load.model)
    if load.scenario is Scenario.SERVER:
        return poisson(load.rate, load.seconds, load.seed, load.rows)
    return None


def _requests(
    client: Client,
    load: Load,
    inputs: tuple[payloads.ModelInput, ...],
    arrivals: list[Arrival] | None,
    data: Sequence[Tensors],
) -> dict[object, list[bytes]]:
    """Whole requests for each look; where there are many looks, fewer different ones of each."""
    dtypes: Mapping[str, str] = {one.name: one.datatype for one in inputs}
    looks = {one.look: one for one in arrivals or [Arrival(0.0, load.rows)]}
    varieties = max(1, min(payloads.VARIETIES, MOST_BODIES // len(looks)))
    return {
        look: [
            client.request(load.model, one, dtypes)
            for one in data
            or payloads.synthetic(inputs, like.rows, dict(like.shapes) | load.shapes, load.seed, varieties)
        ]
        for look, like in looks.items()
    }


def _workers(load: Load) -> int:
    workers = {Scenario.SINGLE: 1, Scenario.OFFLINE: OFFLINE_WORKERS}.get(load.scenario, load.concurrency)
    if not 1 <= workers <= MOST_CONNECTIONS:
        raise UsageError("the number of clients is out of bounds", got=workers, expected=f"1 to {MOST_CONNECTIONS}")
    return workers
