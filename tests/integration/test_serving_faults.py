"""The whole server when things go wrong around it: killed, told to stop under load, its log stuck, its disk full."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvloop

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import TailorbirdError
from tailorbird.service.app import running_server
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tailorbird.serving.processes.process import ProcessInstance
from tailorbird.serving.starting import run_limit_s
from tests import processes
from tests.protocol.engines import echo_model
from tests.stress import models
from tests.stress.clients import Http, Stream, Tally, Unary
from tests.stress.marks import Marks
from tests.stress.server import Server, gone, serving

BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "INT64", "data": [1, 2, 3, 4]}]}
ANSWER = [4, 7, 10, 13]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    models.repository(folder, 1)
    return folder / "repository"


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version whose runs are as long as the request says."""
    return processes.turns(tmp_path_factory.mktemp("endless") / "1")


def asks(place: str, model: str = "quick") -> bool:
    answer = httpx.post(f"http://{place}/v2/models/{model}/infer", json=BODY, timeout=30)
    return answer.status_code == 200 and answer.json()["outputs"][0]["data"] == ANSWER


# --- the end of the server ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_server_that_dies_leaves_no_process(repository: Path, number: signal.Signals) -> None:
    with serving(repository, "--instances", "2") as server:
        instances = server.children()
        assert len(instances) == 4
        os.kill(server.pid, number)
        server.process.wait(10)
        assert gone(instances)


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_told_to_stop_under_load_it_answers_all_it_accepted(repository: Path, isolation: str) -> None:
    """Over HTTP, gRPC and streams: what the server says that it answered is what its clients got."""
    tally = Tally()
    with serving(repository, "--isolation", isolation, "--access-log") as server:
        traffic = threading.Thread(target=lambda: uvloop.run(until_it_is_gone(server, tally)))
        traffic.start()
        processes.eventually(lambda: tally.asked > 150, 60)
        assert server.stop() == 0
        traffic.join(30)
        assert not traffic.is_alive()
        assert not tally.mixed
        said = Counter((line["protocol"], str(line["status"])) for line in server.events("request"))
        answered = Counter({kind: count for kind, count in tally.kinds.items() if "answered" in kind})
        assert said["http", "200"] == answered["http answered"] > 0
        assert said["grpc", "OK"] == answered["grpc answered"] + answered["stream answered"] > 0
        assert set(said) == {("http", "200"), ("grpc", "OK")}, said


async def until_it_is_gone(server: Server, tally: Tally) -> None:
    """Clients that go on until nobody answers."""
    kinds = [(Http, server.http)] * 3 + [(Unary, server.grpc)] * 2 + [(Stream, server.grpc)] * 2

    async def work(kind: Any, place: str, number: int) -> None:
        client = kind(place, Marks(number, tuple(models.TURNS), timeouts=False), tally)
        client.leaves = 0.0
        with contextlib.suppress(OSError, EOFError, StopAsyncIteration):
            while server.process.poll() is None:
                await client.session(time.monotonic() + 1)

    await asyncio.gather(*(work(kind, place, number) for number, (kind, place) in enumerate(kinds)))


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_an_engine_that_hangs_does_not_keep_the_server(endless: Path, isolation: str) -> None:
    """It drains for as long as it always does, gives the run up, and ends."""
    script = """
import sys
from tailorbird.service.web import listener
from tailorbird.serving import instance
from tailorbird.cli.main import main
listener.DRAIN_SECONDS, instance.CLOSE_SECONDS = 1, 1.0
sys.argv = ["tailorbird", "serve", sys.argv[1], "--port", "0", "--grpc-port", "0", "--isolation", sys.argv[2]]
sys.exit(main())
"""
    command = [sys.executable, "-c", script, str(endless), isolation]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        server = Server(process, "")
        server.wait_ready()
        instances = server.children()
        with ThreadPoolExecutor(2) as pool:
            hung = pool.submit(outcome, server.http, processes.LONG)
            processes.eventually(lambda: busy(server))
            behind = pool.submit(outcome, server.http, 1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert {type(one.result()) for one in (hung, behind)} <= GONE
        assert gone(instances)


GONE = {int, httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectError}


def outcome(place: str, turns: int) -> Any:
    """The status of an answer, or what became of the connection."""
    inputs = [{"name": "n", "shape": [], "datatype": "INT64", "data": [turns]},
              {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]  # fmt: skip
    try:
        return httpx.post(f"http://{place}/v2/models/tiny/infer", json={"inputs": inputs}, timeout=60).status_code
    except httpx.TransportError as error:
        return error


def busy(server: Server) -> bool:
    """Whether the server or one of its instances uses the processor for a while."""
    there = [psutil.Process(pid) for pid in (server.pid, *server.children())]
    before = sum(sum(one.cpu_times()[:2]) for one in there)
    time.sleep(0.5)
    return sum(sum(one.cpu_times()[:2]) for one in there) - before > 0.1


def test_a_run_hangs_by_its_own_latency_table() -> None:
    assert run_limit_s(()) == 60
    assert run_limit_s(models._latencies(0)) == 30
    slow = models._latencies(2_500_000)  # five seconds a run
    assert run_limit_s(slow) == pytest.approx(20 * 5 * 1.2, rel=0.01)


# --- its instances ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_one_instance_killed_in_a_batch_costs_that_batch_only(repository: Path, number: signal.Signals) -> None:
    with serving(repository) as server, ThreadPoolExecutor(12) as pool:
        assert asks(server.http)
        stop = threading.Event()
        kinds: Counter[int] = Counter()

        def ask(model: str) -> None:
            with httpx.Client(base_url=f"http://{server.http}", timeout=60) as client:
                while not stop.is_set():
                    answer = client.post(f"/v2/models/{model}/infer", json=BODY)
                    assert answer.status_code != 200 or answer.json()["outputs"][0]["data"] == ANSWER
                    kinds[answer.status_code if model == "slow" else -answer.status_code] += 1
                    if answer.status_code != 200:
                        time.sleep(0.05)

        asking = [pool.submit(ask, model) for model in ["slow"] * 8 + ["quick"] * 2]
        processes.eventually(lambda: kinds[200] > 50)
        strike(instance_of(server, "slow"), number)
        before = kinds[200]
        processes.eventually(lambda: kinds[200] > before + 50, 40)
        stop.set()
        for one in asking:
            one.result(60)
        assert set(kinds) <= {200, 500, 503, -200}, "the other model notices nothing"
        assert kinds[500] <= 8, "one batch"
        assert number is not signal.SIGSTOP or set(kinds) == {200, -200}


def strike(pid: int, number: signal.Signals) -> None:
    """A signal; a stop is a pause, after which it goes on."""
    os.kill(pid, number)
    if number is signal.SIGSTOP:
        time.sleep(1)
        os.kill(pid, signal.SIGCONT)


def instance_of(server: Server, model: str) -> int:
    """The process that runs a model."""
    return int(next(event["pid"] for event in server.events("instance ready") if event["model"] == model))


def test_an_instance_without_memory_refuses_and_lives_on(tmp_path: Path) -> None:
    """What its process cannot hold is that request's error; the next, smaller one is answered."""
    import numpy as np

    async def main() -> None:
        small = {"x": np.ones((2, 2), np.float32), "t": np.array([b"a"], object)}
        assert (await instance.run(small))["y"].shape == (2, 2)
        (pid,) = {child.pid for child in psutil.Process().children()} - before
        now = psutil.Process(pid).memory_info().vms
        _limit_memory(pid, now + (64 << 20))
        large = {"x": np.ones((12000, 12000), np.float32), "t": small["t"]}  # 576 MB in, and as much out
        with pytest.raises(TailorbirdError):
            await instance.run(large)
        while not instance.alive:
            await asyncio.sleep(0.01)
        assert (await instance.run(small))["y"].shape == (2, 2)

    before = {child.pid for child in psutil.Process().children()}  # other tests' may still be ending
    instance = ProcessInstance(processes.copies(tmp_path / "1"), "copies")
    try:
        instance.wait_ready()
        asyncio.run(main())
    finally:
        instance.close()


def _limit_memory(pid: int, size: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_AS, (size, size))


# --- its log and its disk ---


def test_a_log_that_nobody_reads_holds_up_nobody(repository: Path) -> None:
    """Its pipe is full after some hundred lines; thousands are written."""
    with serving(repository, "--access-log") as server:
        server.deaf.set()
        asked = json.dumps(BODY).encode()
        with httpx.Client(base_url=f"http://{server.http}", timeout=20) as client:
            for _ in range(700):
                assert client.post("/v2/models/quick/infer", content=asked).status_code == 200
        server.deaf.clear()


def test_a_log_on_a_full_disk(repository: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tailorbird", "serve", str(repository), "--port", str(port), "--grpc-port", "0",
               "--access-log", "--isolation", "thread"]  # fmt: skip
    with Path("/dev/full").open("w") as full, subprocess.Popen(command, stderr=full, stdout=full) as process:
        place = f"127.0.0.1:{port}"
        processes.eventually(lambda: process.poll() is not None or answers(place), 60)
        assert process.poll() is None, "it ended"
        assert asks(place)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_recording_on_a_full_disk(repository: Path, tmp_path: Path) -> None:
    """No file may become longer than 8 KiB: the recording ends there, the answers do not."""
    with serving(repository, "--isolation", "thread", "--record", str(tmp_path / "trace"), file_blocks=16) as server:
        with httpx.Client(base_url=f"http://{server.http}", timeout=20) as client:
            for _ in range(1500):
                assert client.post("/v2/models/quick/infer", json=BODY).status_code == 200
            time.sleep(1.5)
            for _ in range(100):
                assert client.post("/v2/models/quick/infer", json=BODY).status_code == 200
        assert server.stop() == 0
        assert any(path.stat().st_size for path in (tmp_path / "trace").rglob("*"))


def test_a_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines go by a clock that does not."""
    real = time.time
    body = {"parameters": {"timeout": 5_000_000},
            "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}  # fmt: skip
    with running_server(Hub([echo_model("echo", DType.FP32)]), ServerOptions(port=0, grpc_port=0)) as url:
        for years in (0, 10, -10, 0):
            monkeypatch.setattr(time, "time", lambda years=years: real() + years * 365.25 * 86400)
            for _ in range(5):
                assert httpx.post(f"{url}/v2/models/echo/infer", json=body).status_code == 200
            for path in ("/metrics", "/v2/models/echo/stats", "/"):
                assert httpx.get(url + path).status_code == 200, path


def answers(place: str) -> bool:
    try:
        return httpx.get(f"http://{place}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
