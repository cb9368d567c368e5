"""Brief runs are done in the event loop itself: joined within one turn, answered each with its own rows."""

import asyncio
import threading

import numpy as np
import pytest

from tailorbird.domain.errors import BackendError, InputError, NotReady, TailorbirdError
from tailorbird.serving.batching import batcher as batchers
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.batching.batcher import Batcher
from tailorbird.serving.batching.queueing import Reason
from tailorbird.serving.instance import ThreadInstance
from tailorbird.serving.ticket import Ticket
from tailorbird.serving.trail import Trail
from tests.unit.serving.batching.test_batcher import Executor, is_own, manifest, marked, table

BRIEF = table((1, 0.05), (8, 0.08))
LONG = table((1, 5.0), (8, 8.0))


class Engine:
    """y = -x, with a note of the thread and the rows; what is 13 fails, as does a whole run of ``broken``."""

    def __init__(self, failure=None):
        self.runs = []
        self.failure = failure
        self.closed = 0

    def run(self, inputs):
        x = inputs["x"]
        self.runs.append((threading.current_thread(), len(x)))
        if self.failure is not None and (x == 13).any():
            raise self.failure
        return {"y": -x, "sum": x.sum(axis=1)}

    def close(self):
        self.closed += 1

    @property
    def sizes(self):
        return [rows for _, rows in self.runs]

    @property
    def here(self):
        return [thread is threading.current_thread() for thread, _ in self.runs]


def batched(engine, latency=BRIEF, options=None, observer=None, **of_manifest):
    return Batcher(manifest(latency=latency, **of_manifest), [ThreadInstance(engine, "worker")], options, observer)


async def all_of(batcher, requests, ticket=None):
    return await asyncio.gather(*(batcher.run(one, ticket) for one in requests), return_exceptions=True)


def test_requests_of_one_turn_go_together_in_the_loop():
    engine, seen = Engine(), []
    batcher = batched(engine, observer=seen.append)

    async def main():
        requests = [marked(number, rows=1 + number % 2) for number in range(5)]
        answers = await all_of(batcher, requests)
        assert all(map(is_own, requests, answers))
        assert engine.here == [True]

    asyncio.run(main())
    batcher.close()
    assert engine.sizes == [7]
    assert [(one.requests, one.rows, one.padding, one.reason, one.failed) for one in seen] == [
        (5, 7, 0, Reason.IDLE, False)
    ]
    assert len(seen[0].queued) == 5
    assert engine.closed == 1


def test_no_run_is_larger_than_the_engine_takes():
    engine, seen = Engine(), []
    batcher = batched(engine, observer=seen.append)

    async def main():
        requests = [marked(number, rows=3) for number in range(6)]
        assert all(map(is_own, requests, await all_of(batcher, requests)))

    asyncio.run(main())
    assert max(engine.sizes) <= 8
    assert sum(engine.sizes) == 18
    batcher.close()


def test_what_is_not_brief_runs_in_the_thread():
    engine = Engine()
    batcher = batched(engine, LONG)

    async def main():
        assert is_own(marked(1), await batcher.run(marked(1)))
        assert engine.here == [False]

    asyncio.run(main())
    batcher.close()


def test_answers_in_order_are_never_gathered():
    engine = Engine()
    batcher = batched(engine, options=BatchOptions(preserve_ordering=True))

    async def main():
        assert is_own(marked(1), await batcher.run(marked(1)))
        assert engine.here == [False]

    asyncio.run(main())
    batcher.close()


def test_buckets_do_not_mix():
    engine = Engine()
    batcher = batched(engine)

    async def main():
        requests = [marked(number, length=4 + number % 2) for number in range(8)]
        assert all(map(is_own, requests, await all_of(batcher, requests)))
        assert all(engine.here)

    asyncio.run(main())
    batcher.close()


def test_a_batch_is_padded_to_the_fewest_rows():
    engine, seen = Engine(), []
    batcher = batched(engine, observer=seen.append, fewest=4)

    async def main():
        requests = [marked(5), marked(6)]
        assert all(map(is_own, requests, await all_of(batcher, requests)))

    asyncio.run(main())
    batcher.close()
    assert engine.sizes == [4]
    assert seen[0].padding == 2


@pytest.mark.parametrize("failure", [InputError("not thirteen"), BackendError("not thirteen"), ValueError("thirteen")])
def test_one_bad_request_fails_alone(failure):
    engine, seen = Engine(failure), []
    batcher = batched(engine, observer=seen.append)

    async def main():
        requests = [marked(number) for number in (12, 13, 14)]
        answers = await all_of(batcher, requests)
        assert isinstance(answers[1], TailorbirdError)
        assert is_own(requests[0], answers[0])
        assert is_own(requests[2], answers[2])
        assert is_own(marked(1), await batcher.run(marked(1)))

    asyncio.run(main())
    batcher.close()
    assert engine.sizes == [3, 1, 1, 1, 1]
    assert [one.failed for one in seen] == [False, True, False, True, False]
    assert batcher.outstanding == 0


def test_whoever_leaves_in_the_same_turn_is_not_run():
    engine = Engine()
    batcher = batched(engine)

    async def main():
        loop = asyncio.get_running_loop()
        stays, leaves = loop.create_task(batcher.run(marked(1))), loop.create_task(batcher.run(marked(2)))
        loop.call_soon(leaves.cancel)  # behind the first step of both, before the run
        assert is_own(marked(1), await stays)
        with pytest.raises(asyncio.CancelledError):
            await leaves

    asyncio.run(main())
    batcher.close()
    assert engine.sizes == [1]
    assert batcher.outstanding == 0


def test_deadlines_and_trails_come_along():
    engine = Engine()
    batcher = batched(engine)
    trail = Trail()

    async def main():
        ticket = Ticket.now(timeout=5.0)
        late = Ticket(ticket.arrived, ticket.deadline, 0, trail)
        assert is_own(marked(1), await batcher.run(marked(1), late))
        assert all(engine.here)

    asyncio.run(main())
    batcher.close()
    assert [(leg.rows, leg.requests) for leg in trail.legs] == [(1, 1)]
    assert trail.legs[0].taken <= trail.legs[0].began <= trail.legs[0].ended


def test_while_the_thread_still_works_they_run_there():
    engine, gate, began = Engine(), threading.Event(), threading.Event()
    instance = ThreadInstance(engine, "worker")
    batcher = Batcher(manifest(latency=BRIEF), [instance])

    class Slow:
        def __getitem__(self, _):
            began.set()
            gate.wait(10)
            return np.zeros((1, 4), np.float32)

    async def main():
        loop = asyncio.get_running_loop()
        slow = loop.create_task(instance.run(Slow()))
        while not began.is_set():
            await asyncio.sleep(0.001)
        waiting = [loop.create_task(batcher.run(marked(number))) for number in range(3)]
        await asyncio.sleep(0.01)
        assert not any(one.done() for one in waiting)
        gate.set()
        await slow
        answers = await asyncio.gather(*waiting)
        assert all(map(is_own, (marked(number) for number in range(3)), answers))
        assert not any(engine.here)

    asyncio.run(main())
    batcher.close()


class Elsewhere(Executor):
    """Its thread is never free to be helped."""

    def run_here(self, _):
        return None


def test_a_group_that_cannot_be_assembled_gives_the_executor_back(monkeypatch):
    def full(*_):
        monkeypatch.undo()
        raise MemoryError

    async def main():
        batcher = Batcher(manifest(latency=table((1, 0.05), (8, 50.0))), [Elsewhere()], name="model 'm'")
        waiting = asyncio.create_task(batcher.run(marked(1))), asyncio.create_task(batcher.run(marked(2, rows=8)))
        monkeypatch.setattr(batchers, "joined", full)
        async with asyncio.timeout(10):
            group, queued = await asyncio.gather(*waiting, return_exceptions=True)
            assert type(group) is BackendError
            assert group.message == "model 'm' failed: got MemoryError: "
            assert is_own(marked(2, rows=8), queued)
            assert is_own(marked(3), await batcher.run(marked(3)))

    asyncio.run(main())


def test_draining_answers_a_group():
    engine = Engine()
    batcher = batched(engine)

    async def main():
        waiting = [asyncio.get_running_loop().create_task(batcher.run(marked(number))) for number in range(3)]
        await asyncio.sleep(0)
        await batcher.drain()
        answers = await asyncio.gather(*waiting)
        assert all(map(is_own, (marked(number) for number in range(3)), answers))
        with pytest.raises(NotReady, match="being put away"):
            await batcher.run(marked(1))

    asyncio.run(main())
    batcher.close()


def test_closing_in_the_loop_answers_a_group():
    engine = Engine()
    batcher = batched(engine)

    async def main():
        waiting = asyncio.get_running_loop().create_task(batcher.run(marked(7)))
        await asyncio.sleep(0)
        batcher.close()
        assert is_own(marked(7), await waiting)

    asyncio.run(main())
    assert engine.closed == 1


def test_rows_never_mix_however_they_come():
    engine = Engine()
    batcher = batched(engine)

    async def client(number, random):
        for turn in range(60):
            inputs = marked(number + turn / 64, rows=random.integers(1, 12), length=random.integers(1, 4))
            assert is_own(inputs, await batcher.run(inputs))
            if random.random() < 0.3:
                await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*(client(number, np.random.default_rng(number)) for number in range(12)))

    asyncio.run(main())
    batcher.close()
    assert batcher.outstanding == 0
    assert max(engine.sizes) <= 8
