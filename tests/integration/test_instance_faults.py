"""Processes of instances killed, stopped and starved while they serve: every request gets one answer, and its own."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tailorbird.domain.errors import BackendError, NotReady
from tailorbird.serving.processes.events import Event, Happening
from tailorbird.serving.processes.process import ProcessInstance, start_instances
from tailorbird.serving.processes.supervise import ProcessOptions
from tests import bundles, processes

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processes.turns(tmp_path_factory.mktemp("faults") / "1")


@contextlib.contextmanager
def serving(version: Path, **options: Any) -> Iterator[tuple[ProcessInstance, list[Event]]]:
    events: list[Event] = []
    instance = ProcessInstance(version, "turns", options=ProcessOptions(**options), observer=events.append)
    try:
        instance.wait_ready()
        yield instance, events
    finally:
        instance.close()


def of(events: list[Event], what: Happening) -> list[Event]:
    return [event for event in events if event.what is what]


async def outcome(instance: ProcessInstance, inputs: Any) -> Any:
    try:
        return await instance.run(inputs)
    except Exception as error:
        return error


async def recovered(instance: ProcessInstance, mark: float) -> None:
    """It serves again, and its answers are the right ones."""
    while not instance.alive:
        await asyncio.sleep(0.005)
    assert (await instance.run(processes.rows(mark)))["y"].tolist() == [[mark] * 4] * 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_answers_the_request_in_it_and_the_next_ones_succeed(version: Path, number: signal.Signals) -> None:
    async def main(instance: ProcessInstance, events: list[Event]) -> None:
        inside = asyncio.ensure_future(outcome(instance, processes.rows(1, turns=processes.LONG)))
        behind = asyncio.ensure_future(outcome(instance, processes.rows(2)))
        await asyncio.sleep(0.1)
        killed = time.monotonic()
        os.kill(events[0].pid, number)
        error = await inside
        took = time.monotonic() - killed
        assert type(error) is BackendError
        assert error.message == f"turns crashed: got {number.name}"
        assert took < 1, "100 ms on a machine with nothing else to do"
        assert type(await behind) is NotReady
        assert type(await outcome(instance, processes.rows(3))) is NotReady
        await recovered(instance, 4)

    with serving(version) as (instance, events):
        asyncio.run(main(instance, events))
        assert [event.cause for event in of(events, Happening.CRASHED)] == [f"turns crashed: got {number.name}"]
        assert [event.seconds for event in of(events, Happening.RESTARTING)] == [0.1]


def test_one_that_hangs_is_ended_at_its_limit(version: Path) -> None:
    async def main(instance: ProcessInstance, events: list[Event]) -> None:
        os.kill(events[0].pid, signal.SIGSTOP)
        error = await outcome(instance, processes.rows(1))
        assert type(error) is BackendError
        assert error.message == "turns took too long and was ended: expected an answer within 0.5 s"
        await recovered(instance, 2)
        error = await outcome(instance, processes.rows(3, turns=processes.LONG))  # as much of a hang as the other
        assert error.message == "turns took too long and was ended: expected an answer within 0.5 s"

    with serving(version, run_limit_s=0.5) as (instance, events):
        asyncio.run(main(instance, events))
        assert not processes.is_running(events[0].pid)


def test_a_crash_touches_no_other_instance(version: Path) -> None:
    events: list[Event] = []
    instances = start_instances(version, 2, "turns", observer=events.append)
    other = instances[1]

    async def main() -> None:
        steady = asyncio.ensure_future(outcome(other, processes.rows(7, turns=60_000)))
        await asyncio.sleep(0.05)
        os.kill(next(event.pid for event in events if event.instance == "turns instance 0"), signal.SIGKILL)
        assert (await steady)["y"][0, 0] == 7
        while not of(events, Happening.CRASHED):
            await asyncio.sleep(0.005)
        assert (await other.run(processes.rows(8)))["y"][0, 0] == 8

    asyncio.run(main())
    assert {event.instance for event in of(events, Happening.CRASHED)} <= {"turns instance 0"}
    for instance in instances:
        instance.close()


def test_killed_while_it_starts(version: Path) -> None:
    events: list[Event] = []

    def kill_the_first(event: Event) -> None:
        events.append(event)
        if len(of(events, Happening.STARTED)) == 1 and event.what is Happening.STARTED:
            os.kill(event.pid, signal.SIGKILL)

    instance = ProcessInstance(version, "turns", observer=kill_the_first)
    instance.wait_ready()
    assert [event.what for event in events] == [Happening.STARTED, Happening.CRASHED, Happening.RESTARTING,
                                                Happening.STARTED, Happening.READY]  # fmt: skip
    assert asyncio.run(instance.run(processes.rows(5)))["y"][0, 0] == 5
    instance.close()


async def load(instance: ProcessInstance, seconds: float, clients: int = 8) -> Counter[str]:
    """Clients that send marked rows one after another; what became of them, by kind."""
    kinds: Counter[str] = Counter()
    until = time.monotonic() + seconds

    async def client(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            mark, count = chance.randrange(1 << 20), chance.randrange(1, 65)
            answer = await asyncio.wait_for(outcome(instance, processes.rows(mark, count, chance.randrange(3000))), 20)
            if isinstance(answer, dict):
                assert answer["y"].shape == (count, 4)
                assert (answer["y"] == mark).all(), "rows of another request"
                kinds["answered"] += 1
            else:
                kinds[type(answer).__name__] += 1
                await asyncio.sleep(0.01)

    await asyncio.gather(*map(client, range(clients)))
    return kinds


async def kills(events: list[Event], seconds: float) -> int:
    """SIGKILL and SIGSEGV in turn, each into a process that has just become ready."""
    done, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        if len(ready := of(events, Happening.READY)) > done:
            await asyncio.sleep(random.Random(done).uniform(0.05, 0.4))
            os.kill(ready[-1].pid, (signal.SIGKILL, signal.SIGSEGV)[done % 2])
            done += 1
        await asyncio.sleep(0.01)
    return done


def under_kills(version: Path, seconds: float) -> tuple[Counter[str], int]:
    async def main(instance: ProcessInstance, events: list[Event]) -> tuple[Counter[str], int]:
        kinds, done = await asyncio.gather(load(instance, seconds), kills(events, seconds))
        await recovered(instance, 1)
        return kinds, done

    with serving(version) as (instance, events):
        return asyncio.run(main(instance, events))


def test_kills_under_load(version: Path) -> None:
    kinds, done = under_kills(version, 4)
    assert done >= 1
    assert kinds["answered"] > 0
    assert set(kinds) <= {"answered", "BackendError", "NotReady"}
    assert kinds["BackendError"] <= done, "only the request in the process may end with it"


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_two_minutes_of_kills_under_load(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailorbird.serving.processes.backoff.LONGEST_WAIT_S", 0.2)
    kinds, done = under_kills(version, 120)
    assert done > 30
    assert kinds["BackendError"] <= done
    assert set(kinds) <= {"answered", "BackendError", "NotReady"}


SERVER = """
import asyncio, sys, threading
from pathlib import Path
from tailorbird.serving.processes.events import Event, Happening
from tailorbird.serving.processes.process import ProcessInstance
from tests import processes

def started(event):
    print(event.pid, event.what, flush=True)

async def main(instance):
    await instance.run(processes.rows(1, turns=processes.LONG))

instance = ProcessInstance(Path(sys.argv[1]), observer=started)
instance.wait_ready()
asyncio.run(main(instance))
"""


def test_a_killed_server_leaves_no_process_and_no_memory(version: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", SERVER, str(version)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline().split()[0])
        assert server.stdout.readline().split() == [str(pid), "ready"]
        time.sleep(0.2)  # the run has begun, and would go on for days
        assert processes.is_running(pid)
        server.kill()
        server.wait()
        processes.eventually(lambda: not processes.is_running(pid))
    assert set(Path("/dev/shm").iterdir()) <= before


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_two_hundred_starts_leave_nothing(tmp_path: Path) -> None:
    version = bundles.version(tmp_path / "1")

    def cycle() -> None:
        instance = ProcessInstance(version)
        instance.wait_ready()
        assert asyncio.run(instance.run(bundles.INPUTS))["y"].shape == (2, 16)
        instance.close()

    for _ in range(10):
        cycle()
    descriptors, memory = processes.descriptors(), resident()
    for _ in range(200):
        cycle()
    assert processes.descriptors() == descriptors
    assert resident() < memory * 1.02 + 1_000_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
