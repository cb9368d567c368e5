"""Load against a real server: what it says must be what happened."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tailorbird.cli.bench import bench
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.load.arrivals import steady
from tailorbird.load.connection import Pool
from tailorbird.load.drive import open_loop
from tailorbird.load.run import Load, Scenario, run, scenario_of
from tailorbird.load.tally import Tally
from tailorbird.service.app import running_server
from tests import bundles


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    engine = bundles.engine_file(bundles.version(folder / "v"), folder / "tiny.engine")
    with running_server(engine) as url:
        yield url


@pytest.mark.parametrize("as_json", [False, True])
def test_a_single_stream_is_answered_one_by_one(server: str, as_json: bool) -> None:
    found = run(Load(url=server, model="tiny", seconds=0.5, rows=2, json=as_json))
    assert found.answered == found.sent > 10
    assert (found.refused, found.failed) == (0, 0)
    assert found.rows_rate == pytest.approx(2 * found.rate)
    assert 0 < found.latency_ms["p50"] <= found.latency_ms["p99"] <= found.latency_ms["max"]


def test_poisson_arrivals_are_all_answered(server: str) -> None:
    found = run(Load(url=server, model="tiny", scenario=Scenario.SERVER, rate=100, seconds=1.0, slo_ms=10_000))
    assert found.answered == found.sent == pytest.approx(100, abs=45)
    assert found.goodput == found.rate


def test_a_trace_is_replayed_with_its_rows(server: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        "".join(json.dumps({"at": 5 + number / 50, "rows": 1 + number % 4}) + "\n" for number in range(40))
    )
    found = run(Load(url=server, model="tiny", scenario=Scenario.TRACE, trace=str(trace)))
    assert found.answered == 40
    assert found.rows_rate * found.seconds == pytest.approx(100, rel=0.01)


def test_the_users_own_inputs_are_sent(server: str) -> None:
    wrong = {"x": np.zeros((1, 3), np.float32)}
    found = run(Load(url=server, model="tiny", seconds=0.1), [wrong])
    assert found.answered == 0
    assert all("status 400" in fault for fault in found.faults)


def test_an_unknown_model_is_said_before_the_load(server: str) -> None:
    with pytest.raises(TailorbirdError, match="the server has no model 'tin' to bench"):
        run(Load(url=server, model="tin"))


def test_no_server_is_said_with_a_hint() -> None:
    with pytest.raises(TailorbirdError, match="tailorbird serve"):
        run(Load(url="http://127.0.0.1:9", model="tiny"))


def test_a_scenario_by_a_wrong_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'offline'"):
        scenario_of("ofline")


def test_the_histogram_is_readable_by_other_tools(server: str, tmp_path: Path) -> None:
    from hdrh.histogram import HdrHistogram

    found = run(Load(url=server, model="tiny", seconds=0.2), histogram=tmp_path / "h.hdr")
    read = HdrHistogram.decode((tmp_path / "h.hdr").read_bytes())
    assert read.total_count == found.answered
    assert read.get_value_at_percentile(50) / 1e3 == pytest.approx(found.latency_ms["p50"])


def test_a_stall_is_felt_by_the_requests_it_kept_waiting() -> None:
    """A server that stops for 0.4 s: with coordinated omission only one request would have seen it."""

    async def load(url: str) -> Tally:
        tally, pool = Tally("stall"), Pool(url, most=1)
        await open_loop(pool, {1: [pool.request("GET", "/")]}, steady(100, 0.6), tally)
        pool.close()
        return tally

    with _stalling(0.4) as url:
        found = asyncio.run(load(url)).summary(1.0)
    assert found.answered == 60
    assert found.latency_ms["p50"] > 100  # most of the sixty waited for the one that stalled
    assert found.latency_ms["max"] > 390


class _stalling:  # noqa: N801 - it reads as an adjective: with _stalling(0.4)
    """A real server on a socket whose first answer takes its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.new_event_loop()
        self._started: Callable[[], None]

    def __enter__(self) -> str:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,))
        self._thread.start()
        ready.wait()
        return f"http://127.0.0.1:{self._port}"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    def _serve(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self._until_told(ready))

    async def _until_told(self, ready: threading.Event) -> None:
        self._end, self._first = asyncio.Event(), True
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._end.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            if self._first:
                self._first = False
                await asyncio.sleep(self._seconds)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("limit", "drain", "fault"),
    [(0.1, 30.0, "no answer within 0.1 s"), (30.0, 0.1, "no answer within 0.1 s after the last request")],
)
def test_requests_to_a_silent_server_fail_in_time(limit: float, drain: float, fault: str) -> None:
    async def driven(url: str) -> None:
        pool = Pool(url, 8, seconds=limit)
        await open_loop(pool, {1: [pool.request("GET", "/")]}, steady(20, 0.1), tally, drain)

    tally = Tally("test")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and nobody reads
        asyncio.run(driven(f"127.0.0.1:{silent.getsockname()[1]}"))
    assert tally.summary(1.0).faults == {fault: 2}


def refusal(load: Load, histogram: Path | None = None) -> str:
    with pytest.raises(TailorbirdError) as caught:
        run(load, (), histogram)
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "the server does not say what 'm' takes: got the server closed the connection, expected its metadata"),
        (b"<p>", "the metadata of 'm' cannot be read: got JSON is malformed"),
        (b'{"inputs": [{"name": "x", "datatype": "FP7", "shape": [1]}]}',
         "input 'x' is of a type that is not known here: got FP7, expected BOOL"),
    ],
)  # fmt: skip
def test_strange_metadata_is_refused_with_a_hint(body: bytes | None, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer_once, args=(server, body))
        thread.start()
        said = refusal(Load(url=f"127.0.0.1:{server.getsockname()[1]}", model="m"))
        thread.join()
    assert said.startswith(message)
    assert "\nHint: se" in said


def _answer_once(server: socket.socket, body: bytes | None) -> None:
    with server.accept()[0] as peer:
        peer.recv(65536)
        if body is not None:
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def test_what_would_fail_later_is_refused_before_the_run(tmp_path: Path) -> None:
    gone = tmp_path / "none" / "x"
    assert refusal(Load(url="h", model="m"), gone) == (
        f"the histogram cannot be written: got {gone}, expected a file in an existing folder"
    )
    assert refusal(Load(url="h", model="m", timeout=0)) == (
        "a request needs time for its answer: got 0 s, expected above 0"
    )
    assert refusal(Load(url="http://h:99999", model="m")) == (
        "not a server's address: got http://h:99999, expected http://host:port\nHint: ports are 1 to 65535"
    )


def test_a_bench_without_an_answer_fails_naming_the_commonest_fault(server: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3), np.float32))
    with pytest.raises(TailorbirdError, match="nothing was answered: got status 400") as caught:
        bench("tiny", url=server, seconds=0.1, inputs=tmp_path / "x.npz")
    assert caught.value.exit_code == 1
