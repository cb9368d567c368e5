"""Executors: what runs batches below the batcher, and which of them are free."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tailorbird.domain.dtype import Array
from tailorbird.domain.signature import Tensors


class Executor(Protocol):
    """Runs one batch at a time, without blocking the event loop.

    It may have an attribute ``alive``: False while it cannot run (its process died, and has not been started
    again). Without one it counts as alive. When a run is cancelled it may be asked for the next one before
    the cancelled one has ended, and has to keep that waiting.

    It may have a method ``run_here(inputs)``, which runs in the thread that calls, and returns None where it cannot
    at the moment.
    """

    async def run(self, inputs: Tensors) -> dict[str, Array]:
        """Run once; whatever it raises is the answer to all requests of the batch."""

    def close(self) -> None:
        """Release it; blocks until that is done."""


class Slot:
    """One executor, and what it is doing.

    Args:
        executor: owned from here on.
    """

    __slots__ = ("busy", "executor", "fouled", "here", "mortal", "until")

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.mortal = hasattr(executor, "alive")
        self.here: Callable[[Tensors], dict[str, Array] | None] | None = getattr(executor, "run_here", None)
        """Runs in the thread that calls."""
        self.busy = False
        self.until = 0.0
        """When its run is expected to end, by the monotonic clock."""
        self.fouled = False
        """The run before was cancelled and may go on, so that the next one's time will say little."""

    @property
    def alive(self) -> bool:
        """Whether it can run."""
        return not self.mortal or bool(self.executor.alive)  # type: ignore[attr-defined]


class Slots:
    """The executors of one batcher."""

    def __init__(self, executors: Sequence[Executor]) -> None:
        self.all = tuple(map(Slot, executors))
        self._mortal = any(slot.mortal for slot in self.all)

    @property
    def alive(self) -> int:
        """How many can run."""
        return sum(slot.alive for slot in self.all) if self._mortal else len(self.all)

    @property
    def busy(self) -> int:
        """How many are running."""
        return sum([slot.busy for slot in self.all])

    def free(self) -> Slot | None:
        """The first that is idle and alive."""
        for slot in self.all:
            if not slot.busy and slot.alive:
                return slot
        return None

    def only_free(self) -> bool:
        """Whether at most one is idle and alive."""
        return len(self.all) == 1 or sum(not slot.busy and slot.alive for slot in self.all) <= 1

    def start_after(self, work: float) -> float:
        """Seconds until a newcomer starts, behind ``work`` seconds of work for one executor.

        The executors that are alive share the work as it becomes their turn: the moment t is sought at which
        sum(max(0, t - r)) = work over the seconds r that each is still busy with.
        """
        now = time.monotonic()
        left = sorted(max(0.0, slot.until - now) if slot.busy else 0.0 for slot in self.all if slot.alive)
        if not left:
            return 0.0
        level = left[0]
        for count, following in enumerate([*left[1:], float("inf")], start=1):
            spare = count * (following - level)
            if work <= spare:
                break
            work -= spare
            level = following
        return level + work / count
