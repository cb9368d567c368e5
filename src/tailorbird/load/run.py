"""One run of load against one model of one server: MLPerf's scenarios, a closed loop, or a recorded trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

import msgspec

from tailorbird.domain.errors import TailorbirdError, UsageError, nearest
from tailorbird.domain.files import reason
from tailorbird.domain.signature import Tensors
from tailorbird.load import payloads
from tailorbird.load.arrivals import Arrival, poisson, recorded
from tailorbird.load.connection import ANSWER_SECONDS, Answer, Pool
from tailorbird.load.drive import closed_loop, open_loop, timed
from tailorbird.load.tally import Summary, Tally

MOST_CONNECTIONS = 1024
OFFLINE_WORKERS = 64
WARM_SECONDS = 0.5
_OTHER_SERVER = "see that the address is an inference server's: --url http://host:port"


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

    url: str
    model: str
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
    timeout: float = ANSWER_SECONDS
    """Seconds for one answer, and for those still out when the last request was sent."""


class _Metadata(msgspec.Struct):
    inputs: tuple[payloads.ModelInput, ...]


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
    pool = Pool(load.url, MOST_CONNECTIONS, load.headers, load.timeout)
    try:
        inputs = await _inputs(pool, load.model)
        requests = {rows: _requests(pool, load, inputs, rows, data) for rows in _rows(load, arrivals)}
        await closed_loop(pool, requests[min(requests)], load.rows, 1, WARM_SECONDS, Tally("warm-up"))
        start = time.monotonic()
        if arrivals is None:
            await closed_loop(pool, requests[load.rows], load.rows, _workers(load), load.seconds, tally)
        else:
            await open_loop(pool, requests, arrivals, tally, load.timeout)
        return timed(start)
    finally:
        pool.close()


def _arrivals(load: Load) -> list[Arrival] | None:
    if load.scenario is Scenario.TRACE:
        return recorded(Path(load.trace))
    if load.scenario is Scenario.SERVER:
        return poisson(load.rate, load.seconds, load.seed, load.rows)
    return None


def _rows(load: Load, arrivals: list[Arrival] | None) -> set[int]:
    return {load.rows} if arrivals is None else {one.rows for one in arrivals}


def _workers(load: Load) -> int:
    workers = {Scenario.SINGLE: 1, Scenario.OFFLINE: OFFLINE_WORKERS}.get(load.scenario, load.concurrency)
    if not 1 <= workers <= MOST_CONNECTIONS:
        raise UsageError("the number of clients is out of bounds", got=workers, expected=f"1 to {MOST_CONNECTIONS}")
    return workers


async def _inputs(pool: Pool, model: str) -> tuple[payloads.ModelInput, ...]:
    answer = await _metadata(pool, model)
    if answer.status != 200:
        raise TailorbirdError(f"the server has no model '{model}' to bench", got=f"status {answer.status}",
                              hint=answer.body[:200].decode("utf-8", "replace"))  # fmt: skip
    try:
        return msgspec.json.decode(answer.body, type=_Metadata).inputs
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TailorbirdError(f"the metadata of '{model}' cannot be read", got=error,
                              expected="Open Inference Protocol JSON", hint=_OTHER_SERVER) from error  # fmt: skip


async def _metadata(pool: Pool, model: str) -> Answer:
    try:
        return await pool.ask(pool.request("GET", f"/v2/models/{quote(model, safe='')}"))
    except (ConnectionError, TimeoutError) as error:
        raise TailorbirdError(f"the server does not say what '{model}' takes", got=error,
                              expected="its metadata", hint=_OTHER_SERVER) from error  # fmt: skip


def _requests(
    pool: Pool, load: Load, inputs: tuple[payloads.ModelInput, ...], rows: int, data: Sequence[Tensors]
) -> list[bytes]:
    encode = payloads.plain if load.json else payloads.binary
    dtypes: Mapping[str, str] = {one.name: one.datatype for one in inputs}
    made = (encode(one, dtypes) for one in data or payloads.synthetic(inputs, rows, load.shapes, load.seed))
    path = f"/v2/models/{quote(load.model, safe='')}/infer"
    return [pool.request("POST", path, payload.headers, payload.body) for payload in made]
