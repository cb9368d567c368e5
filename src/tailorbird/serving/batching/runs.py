"""Runs: one batch on one executor, timed, with whatever goes wrong made an error of ours, and told to an observer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError, NotReady, TailorbirdError
from tailorbird.domain.signature import Tensors
from tailorbird.serving.batching.executors import Slot, Slots
from tailorbird.serving.batching.forms import Bucket
from tailorbird.serving.batching.queueing import Reason
from tailorbird.serving.trail import Leg


class Batch(msgspec.Struct, frozen=True, gc=False):
    """What became of one batch. Times are in seconds."""

    rows: int
    """Real ones."""
    requests: int
    """How many have rows in it."""
    padding: int
    """Rows that were added."""
    reason: Reason
    queued: tuple[float, ...]
    """From arrival until it was taken out of the queue, for each request."""
    assembling: float
    running: float
    replying: float
    failed: bool = False


Observer = Callable[[Batch], None]


def leg(batch: Batch, taken: float, began: float) -> Leg:
    """The batch as a request with rows in it saw it; times by the monotonic clock."""
    ended = began + batch.running
    return Leg(taken, began, ended, batch.rows, batch.requests, batch.padding, batch.reason, batch.failed)


class Runner:
    """Runs batches.

    Args:
        slots: the executors.
        name: how errors name the model.
    """

    def __init__(self, slots: Slots, name: str) -> None:
        self._slots = slots
        self._name = name

    async def run(self, slot: Slot, bucket: Bucket, rows: int, inputs: Tensors) -> dict[str, Array]:
        """Run once; the slot must have been made busy, and is free afterwards.

        The seconds it took correct the bucket's costs, unless it failed, or began while a cancelled run went on.

        Raises:
            TailorbirdError: whatever the executor raised, as an error of ours.
        """
        started = time.monotonic()
        busy = self._slots.busy
        slot.until = started + bucket.costs.seconds(rows, busy)
        fouled, slot.fouled = slot.fouled, False
        try:
            outputs = await slot.executor.run(inputs)
        except asyncio.CancelledError:
            slot.fouled = True
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise NotReady(f"{self._name} was put away while it ran") from None
        except Exception as error:
            raise as_own(error, self._name) from error.__cause__
        finally:
            slot.busy = False
        if not fouled:
            bucket.costs.observe(rows, busy, time.monotonic() - started)
        return outputs

    def here(self, slot: Slot, bucket: Bucket, rows: int, inputs: Tensors) -> dict[str, Array] | None:
        """Run once in this very thread; None where the executor cannot do that now.

        Raises:
            TailorbirdError: whatever the executor raised, as an error of ours.
        """
        assert slot.here is not None
        started = time.monotonic()
        try:
            outputs = slot.here(inputs)
        except Exception as error:
            raise as_own(error, self._name) from error.__cause__
        if outputs is not None:
            seconds = time.monotonic() - started
            bucket.costs.observe(rows, 1, seconds)
            bucket.brief.observe(rows, seconds)
        return outputs


def as_own(error: Exception, name: str) -> TailorbirdError:
    """The error itself if it is one of ours, else one that says what happened."""
    if isinstance(error, TailorbirdError):
        return error
    wrapped = BackendError(f"{name} failed", got=f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
