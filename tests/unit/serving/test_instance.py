"""A thread instance answers in turn, refuses what is too much, and lives on after a fault."""

import asyncio
import threading

import numpy as np
import pytest

from tailorbird.domain.errors import BackendError, InputError, NotReady, Overloaded
from tailorbird.serving import instance as instance_module
from tailorbird.serving.instance import ThreadInstance


class Scripted:
    """An engine whose answer each input's own function decides."""

    def __init__(self):
        self.threads = set()
        self.closed = 0
        self.seen = []

    def run(self, inputs):
        self.threads.add(threading.current_thread().name)
        self.seen.append(inputs)
        return inputs["act"]() if "act" in inputs else inputs

    def close(self):
        self.closed += 1


@pytest.fixture
def engine():
    return Scripted()


def failing(error):
    def act():
        raise error

    return {"act": act}


async def refusal(instance, inputs):
    try:
        await instance.run(inputs)
    except Exception as error:
        return error
    return None


def test_it_answers_from_its_own_thread(engine):
    instance = ThreadInstance(engine, "worker")
    rows = {"x": np.arange(3)}
    assert asyncio.run(instance.run(rows)) is rows
    instance.close()
    assert engine.threads == {"worker"}
    assert engine.closed == 1


def test_the_loop_goes_on_while_it_runs(engine):
    release = threading.Event()

    async def main():
        waiting = asyncio.ensure_future(instance.run({"act": lambda: release.wait(10) and {}}))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        release.set()
        assert await waiting == {}

    instance = ThreadInstance(engine)
    asyncio.run(main())
    instance.close()


def test_a_fault_answers_that_request_and_no_other(engine):
    async def main():
        errors = [InputError("bad rows"), BackendError("burnt"), ValueError("odd"), SystemExit(3), StopIteration()]
        answers = [await refusal(instance, failing(error)) for error in errors]
        assert answers[:2] == errors[:2]
        assert [str(answer) for answer in answers[2:]] == [
            "worker failed: got ValueError: odd",
            "worker failed: got SystemExit: 3",
            "worker failed: got StopIteration: ",
        ]
        assert all(type(answer) is BackendError for answer in answers[2:])
        assert await instance.run({}) == {}

    instance = ThreadInstance(engine, "worker")
    asyncio.run(main())
    instance.close()


def test_too_many_are_refused_at_once(engine):
    release = threading.Event()
    held = {"act": lambda: release.wait(10) and {}}

    async def main():
        waiting = [asyncio.ensure_future(instance.run(held)) for _ in range(2)]
        await asyncio.sleep(0)
        error = await refusal(instance, {})
        assert type(error) is Overloaded
        assert error.message == (
            "worker has too many requests waiting: got 2, expected fewer than 2\nHint: send fewer at once, or later"
        )
        release.set()
        await asyncio.gather(*waiting)
        assert await instance.run({}) == {}

    instance = ThreadInstance(engine, "worker", outstanding=2)
    asyncio.run(main())
    instance.close()
    assert instance.outstanding == 0


def test_close_answers_what_was_accepted_and_refuses_the_rest(engine):
    release = threading.Event()

    async def main():
        accepted = [asyncio.ensure_future(instance.run({"act": lambda: release.wait(10) and {}})) for _ in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(instance.close))
        while not instance._closing:
            await asyncio.sleep(0.001)
        error = await refusal(instance, {})
        assert type(error) is NotReady
        assert error.message == "worker is being put away\nHint: send the request again in a moment"
        assert not engine.closed
        release.set()
        assert await asyncio.gather(*accepted) == [{}] * 5
        await closing
        assert engine.closed == 1

    instance = ThreadInstance(engine, "worker")
    asyncio.run(main())
    instance.close()  # a second time does nothing
    assert engine.closed == 1


def test_a_cancelled_request_is_not_run(engine):
    release = threading.Event()

    async def main():
        first = asyncio.ensure_future(instance.run({"act": lambda: release.wait(10) and {}}))
        second = asyncio.ensure_future(instance.run({"late": 1}))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await first == {}

    instance = ThreadInstance(engine)
    asyncio.run(main())
    instance.close()
    assert len(engine.seen) == 1
    assert instance.outstanding == 0


def test_it_outlives_the_loop_that_asked(engine):
    release = threading.Event()

    async def main():
        asyncio.ensure_future(instance.run({"act": lambda: release.wait(10) and {}}))  # noqa: RUF006
        await asyncio.sleep(0)

    instance = ThreadInstance(engine)
    asyncio.run(main())
    release.set()
    assert asyncio.run(instance.run({})) == {}
    instance.close()


def test_a_close_that_fails_ends_the_thread_all_the_same():
    class Stuck(Scripted):
        def close(self):
            raise BackendError("will not go")

    ThreadInstance(Stuck()).close()


def test_it_can_run_in_the_thread_that_calls(engine):
    instance = ThreadInstance(engine, "worker")
    rows = {"x": np.arange(3)}
    assert instance.run_here(rows) is rows
    assert engine.threads == {threading.current_thread().name}
    instance.close()
    assert instance.run_here(rows) is None
    assert engine.closed == 1


@pytest.mark.parametrize("error", [InputError("no"), BackendError("no")])
def test_what_fails_in_the_thread_that_calls_is_raised_there(engine, error):
    instance = ThreadInstance(engine, "worker")
    with pytest.raises(type(error), match="no"):
        instance.run_here(failing(error))
    with pytest.raises(BackendError, match=r"worker failed.*KeyError"):
        instance.run_here(failing(KeyError("x")))
    assert instance.run_here({}) == {}
    instance.close()


def test_it_does_not_run_here_while_its_own_thread_is_at_work(engine):
    instance = ThreadInstance(engine, "worker")
    gate, began = threading.Event(), threading.Event()

    def act():
        began.set()
        gate.wait(10)
        return {}

    async def main():
        slow = asyncio.get_running_loop().create_task(instance.run({"act": act}))
        while not began.is_set():
            await asyncio.sleep(0.001)
        assert instance.run_here({}) is None
        gate.set()
        await slow

    asyncio.run(main())
    instance.close()
    assert len(engine.seen) == 1


def test_a_run_without_end_is_left_to_itself(engine, monkeypatch):
    monkeypatch.setattr(instance_module, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(instance_module, "left_behind", [])
    release, running = threading.Event(), threading.Event()
    instance = ThreadInstance(engine, "hung")

    def act():
        running.set()
        return release.wait(30) and {}

    async def main():
        waiting = asyncio.ensure_future(instance.run({"act": act}))
        await asyncio.to_thread(running.wait, 10)
        await asyncio.to_thread(instance.close)
        assert instance_module.left_behind == ["hung"]
        assert engine.closed == 0
        release.set()
        assert await waiting == {}, "who waits all the same is answered"

    asyncio.run(main())
    instance._thread.join(10)
    assert engine.closed == 1
