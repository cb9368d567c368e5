"""The batcher joins and parts rows without ever mixing them up, refuses in time, and loses nobody."""

import asyncio
import random
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, InputError, NotReady, Overloaded
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.serving.admission import PROBE, BatchOptions
from tailorbird.serving.batcher import Batcher
from tailorbird.serving.instance import ThreadInstance
from tailorbird.serving.queueing import Reason
from tailorbird.serving.ticket import Ticket
from tests import bundles

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, ("rows", "length")),),
    outputs=(TensorSpec("y", DType.FP32, ("rows", "length")), TensorSpec("sum", DType.FP32, ("rows",))),
)


def table(*points, instances=1):
    """Rows of the latency table at length 4, from (rows, milliseconds)."""
    return tuple(
        LatencyRow("batch" if number else "opt", {"x": (rows, 4)}, rows, instances, Latency(*[ms] * 6, runs=9))
        for number, (rows, ms) in enumerate(points)
    )


def manifest(fewest=1, most=8, latency=(), signature=SIGNATURE, lengths=(1, 9)):
    low, high = lengths
    profile = Profile(min={"x": (fewest, low)}, opt={"x": (fewest, low)}, max={"x": (most, high)})
    return bundles.manifest(signature=signature, candidate=bundles.candidate(profile=profile), latency=latency)


class Executor:
    """Runs ``y = -x`` in the event loop: at once, after some time, or when it is let go."""

    def __init__(self, seconds=0.0, held=False):
        self.seconds = seconds
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()
        self.batches = []
        self.running = 0
        self.alive = True
        self.closed = 0
        self.failure = None

    async def run(self, inputs):
        self.running += 1
        assert self.running == 1, "one batch at a time"
        try:
            self.batches.append(inputs["x"].copy())
            await self.gate.wait()
            if self.seconds:
                await asyncio.sleep(self.seconds)
            if self.failure is not None:
                raise self.failure
            return {"y": -inputs["x"], "sum": inputs["x"].sum(axis=1)}
        finally:
            self.running -= 1

    def close(self):
        self.closed += 1

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]


def marked(number, rows=1, length=4):
    return {"x": np.full((rows, length), number, np.float32)}


def is_own(inputs, outputs):
    x = inputs["x"]
    return np.array_equal(outputs["y"], -x) and np.array_equal(outputs["sum"], x.sum(axis=1))


async def asked(batcher, inputs, ticket=None):
    """Whether the answer was its own, or the error that was the answer."""
    try:
        return is_own(inputs, await batcher.run(inputs, ticket))
    except Exception as error:
        return error


def starting(batcher, *inputs, ticket=None):
    return [asyncio.ensure_future(asked(batcher, one, ticket)) for one in inputs]


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def served(main):
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(main(), 60))


# --- joining and parting --------------------------------------------------------------------------


def test_what_comes_while_an_executor_runs_is_joined():
    async def main():
        seen = []
        executor = Executor(held=True)
        batcher = Batcher(manifest(), [executor], observer=seen.append)
        tasks = starting(batcher, *(marked(number, rows=number) for number in (1, 2, 3)))
        await settle()
        assert executor.sizes == [1]
        executor.gate.set()
        assert await asyncio.gather(*tasks) == [True] * 3
        assert executor.sizes == [1, 5]
        first, second = seen
        assert (first.rows, first.requests, first.padding, first.reason) == (1, 1, 0, Reason.IDLE)
        assert (second.rows, second.requests, second.padding, second.reason) == (5, 2, 0, Reason.IDLE)
        assert len(second.queued) == 2
        assert min(second.queued) > 0
        assert min(second.assembling, second.running, second.replying) > 0
        assert not second.failed

    served(main)


def test_lengths_are_never_padded_and_never_joined():
    async def main():
        seen = []
        executor = Executor(held=True)
        batcher = Batcher(manifest(), [executor], observer=seen.append)
        tasks = starting(batcher, marked(1), *(marked(number, length=number % 2 + 4) for number in range(4)))
        await settle()
        executor.gate.set()
        assert await asyncio.gather(*tasks) == [True] * 5
        assert [batch.shape for batch in executor.batches] == [(1, 4), (2, 4), (2, 5)]
        assert [batch.reason for batch in seen] == [Reason.IDLE, Reason.BUCKET, Reason.IDLE]

    served(main)


def test_a_static_engine_gets_copies_of_a_real_row_and_they_are_cut_off():
    async def main():
        seen = []
        executor = Executor()
        batcher = Batcher(manifest(fewest=4, most=4, lengths=(4, 4)), [executor], observer=seen.append)
        assert await asyncio.gather(*starting(batcher, marked(7, rows=3), marked(8), marked(9, rows=4))) == [True] * 3
        assert executor.sizes == [4, 4, 4]
        assert executor.batches[0][:, 0].tolist() == [7, 7, 7, 7]
        assert [batch.padding for batch in seen] == [1, 3, 0]
        assert [batch.reason for batch in seen] == [Reason.IDLE, Reason.FULL, Reason.FULL]

    served(main)


@pytest.mark.parametrize("fewest", [1, 4])
def test_too_many_rows_are_cut_and_answered_in_order(fewest):
    async def main():
        executor = Executor()
        batcher = Batcher(manifest(fewest=fewest, most=4), [executor, Executor()])
        inputs = {"x": np.arange(44, dtype=np.float32).reshape(11, 4)}
        assert await asked(batcher, inputs) is True
        assert max(executor.sizes) == 4

    served(main)


def test_of_a_cut_request_that_fails_nothing_more_is_run():
    async def main():
        executor = Executor(held=True)
        executor.failure = BackendError("burnt")
        batcher = Batcher(manifest(most=2), [executor])
        tasks = starting(batcher, marked(1, rows=8))
        await settle()
        executor.gate.set()
        assert [str(error) for error in await asyncio.gather(*tasks)] == ["burnt"]
        assert executor.sizes == [2]
        executor.failure = None
        assert await asked(batcher, marked(2)) is True

    served(main)


OUTSIDE = Signature(inputs=SIGNATURE.inputs, outputs=(*SIGNATURE.outputs, TensorSpec("mean", DType.FP32, ())))
FIXED = Signature(inputs=(TensorSpec("x", DType.FP32, (2, "length")),), outputs=SIGNATURE.outputs)


@pytest.mark.parametrize(("signature", "rows"), [(OUTSIDE, 3), (FIXED, 2)], ids=["output without rows", "no batch dim"])
def test_rows_that_may_not_be_joined_run_alone(signature, rows):
    async def main():
        seen = []
        executor = Executor(held=True)
        batcher = Batcher(manifest(fewest=2, signature=signature), [executor], observer=seen.append)
        tasks = starting(batcher, *(marked(number, rows=rows) for number in range(4)))
        await settle()
        executor.gate.set()
        assert await asyncio.gather(*tasks) == [True] * 4
        assert executor.sizes == [rows] * 4
        assert {batch.reason for batch in seen} == {Reason.ALONE}
        too_few = await asked(batcher, marked(1, rows=1))
        assert type(too_few) is InputError  # not padded either

    served(main)


def test_the_quick_way_copies_nothing():
    async def main():
        class Same(Executor):
            async def run(self, inputs):
                self.got = inputs
                return inputs

        executor = Same()
        inputs = marked(1)
        assert await Batcher(manifest(), [executor]).run(inputs) is inputs
        assert executor.got is inputs

    served(main)


# --- what is refused ------------------------------------------------------------------------------


def test_a_request_that_does_not_fit_is_refused_before_it_meets_others():
    async def main():
        executor = Executor()
        batcher = Batcher(manifest(), [executor], BatchOptions(most_rows=32))
        wrong = {
            "unknown input 'z'": {"z": marked(1)["x"]},
            "input 'x' has the wrong dtype: got float64, expected x FP32[rows,length]": {"x": np.zeros((1, 4))},
            "input 'x' has rank 1: got [4], expected [rows,length]": {"x": np.zeros(4, np.float32)},
            "input 'x' lies outside the engine's profile: got 1x10, expected 1x1 to 32x9": marked(1, length=10),
            "input 'x' lies outside the engine's profile: got 0x4, expected 1x1 to 32x9": marked(1, rows=0),
            "input 'x' lies outside the engine's profile: got 33x4, expected 1x1 to 32x9": marked(1, rows=33),
            "input 'x' is not a numpy array: got list, expected x FP32[rows,length]": {"x": [[1.0]]},
        }
        for message, inputs in wrong.items():
            error = await asked(batcher, inputs)
            assert type(error) is InputError
            assert error.message.startswith(message)
        assert executor.batches == []

    served(main)


def test_a_shape_that_cannot_be_hashed_is_only_a_wrong_input():
    class Odd:
        dtype = np.dtype(np.float32)
        shape: list = [1, 4]  # noqa: RUF012

    async def main():
        assert type(await asked(Batcher(manifest(), [Executor()]), {"x": Odd()})) is InputError

    served(main)


def test_shapes_without_end_are_not_remembered_without_end():
    async def main():
        batcher = Batcher(manifest(lengths=(1, 10**6)), [Executor()])
        for length in range(1, 9000):
            assert batcher._forms.of({"x": np.broadcast_to(np.float32(0), (1, length))}).rows == 1
        assert len(batcher._forms._forms) <= 4096
        assert len(batcher._forms._buckets) <= 4096

    served(main)


def test_too_many_requests_or_rows_are_refused_at_once():
    async def main():
        executor = Executor(held=True)
        batcher = Batcher(manifest(), [executor], BatchOptions(most_requests=3, most_rows=10))
        tasks = starting(batcher, marked(1, rows=8))
        await settle()
        error = await asked(batcher, marked(2, rows=3))
        assert type(error) is Overloaded
        assert error.message == (
            "too many rows are waiting: got 11, expected fewer than 11\nHint: send fewer at once, or later"
        )
        tasks += starting(batcher, marked(3), marked(4))
        await settle()
        error = await asked(batcher, marked(5))
        assert error.message == (
            "too many requests are waiting: got 3, expected fewer than 3\nHint: send fewer at once, or later"
        )
        executor.gate.set()
        assert await asyncio.gather(*tasks) == [True] * 3
        assert await asked(batcher, marked(6, rows=8)) is True

    served(main)


def test_a_deadline_that_cannot_be_met_is_refused_at_once():
    async def main():
        executor = Executor(held=True)
        batcher = Batcher(manifest(most=2, latency=table((1, 100.0), (2, 100.0))), [executor])
        tasks = starting(batcher, marked(1, rows=2), marked(2, rows=2))
        await settle()
        started = time.monotonic()
        error = await asked(batcher, marked(3), Ticket.now(0.25))  # 100 ms run, 100 ms wait: it needs 300 ms
        assert time.monotonic() - started < 0.05
        assert type(error) is Overloaded
        assert error.message.startswith("the deadline cannot be met: got 250 ms, expected about ")
        assert error.message.endswith("Hint: allow more time, or send fewer requests at once")
        assert error.retry_after_s == 1
        tasks += starting(batcher, marked(3), ticket=Ticket.now(0.5))
        executor.gate.set()
        assert await asyncio.gather(*tasks) == [True] * 3

    served(main)


def test_two_executors_meet_what_one_cannot():
    async def main():
        latency = table((1, 100.0), (2, 100.0))
        for count, met in ((1, False), (2, True)):
            executors = [Executor(held=True) for _ in range(count)]
            batcher = Batcher(manifest(most=2, latency=latency), executors)
            tasks = starting(batcher, *(marked(number, rows=2) for number in range(2)))
            await settle()
            tasks += starting(batcher, marked(3), ticket=Ticket.now(0.25))
            await settle()
            for executor in executors:
                executor.gate.set()
            assert [answer is True for answer in await asyncio.gather(*tasks)] == [True, True, met]

    served(main)


def test_an_urgent_level_is_not_behind_those_it_overtakes():
    async def main():
        executor = Executor(held=True)
        batcher = Batcher(manifest(most=1, latency=table((1, 100.0))), [executor])
        tasks = starting(batcher, *(marked(number) for number in range(9)))
        await settle()
        assert type(await asked(batcher, marked(9), Ticket.now(0.5))) is Overloaded
        tasks += starting(batcher, marked(10), ticket=Ticket.now(0.5, priority=1))
        await settle()
        executor.gate.set()
        assert await asyncio.gather(*tasks) == [True] * 10
        assert [int(batch[0, 0]) for batch in executor.batches[:3]] == [0, 10, 1]

    served(main)


def test_a_deadline_that_passes_in_the_queue_is_refused_without_a_run():
    async def main():
        executor = Executor(held=True)
        batcher = Batcher(manifest(), [executor])  # without a table nothing can be foreseen
        first = starting(batcher, marked(1))
        await settle()
        error = await asked(batcher, marked(2), Ticket.now(0.02))
        assert type(error) is Overloaded
        assert error.message == (
            "the deadline has passed while the request waited\nHint: allow more time, or send fewer requests at once"
        )
        gone = await asked(batcher, marked(3), Ticket(time.monotonic(), time.monotonic() - 1))
        assert gone.message.startswith("the deadline has passed\n")
        executor.gate.set()
        assert await asyncio.gather(*first) == [True]
        assert executor.sizes == [1]

    served(main)


def test_a_request_has_the_default_timeout_unless_it_names_one():
    async def main():
        executor = Executor(held=True)
        batcher = Batcher(manifest(), [executor], BatchOptions(default_timeout=0.02))
        first = starting(batcher, marked(1), ticket=Ticket.now(30))
        await settle()
        assert type(await asked(batcher, marked(2))) is Overloaded
        assert type(await asked(batcher, marked(2), Ticket.now())) is Overloaded
        longer = starting(batcher, marked(3), ticket=Ticket.now(30))
        await asyncio.sleep(0.04)
        executor.gate.set()
        assert await asyncio.gather(*first, *longer) == [True, True]

    served(main)


def test_costs_that_are_far_too_high_are_found_out():
    async def main():
        executor = Executor()
        batcher = Batcher(manifest(latency=table((1, 1000.0), (8, 1000.0))), [executor])
        answers = [await asked(batcher, marked(1), Ticket.now(0.5)) for _ in range(PROBE)]
        assert [type(answer) for answer in answers[:-1]] == [Overloaded] * (PROBE - 1)
        assert answers[-1] is True
        answers = [await asked(batcher, marked(1), Ticket.now(0.5)) for _ in range(4 * PROBE)]
        assert answers[-1] is True

    served(main)


def test_a_negative_priority_is_a_wrong_input():
    async def main():
        error = await asked(Batcher(manifest(), [Executor()]), marked(1), Ticket.now(priority=-1))
        assert type(error) is InputError
        assert error.message == "the priority is negative: got -1, expected 0, or 1 for the first level, 2, ..."

    served(main)
