"""Steps: a coroutine of which the first are taken outside the task that takes the others."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any

Answering = Coroutine[Any, Any, None]


class Begun:
    """An answer that is not finished.

    Args:
        answering: its coroutine.
        waits_for: the future that it gave when its first steps ended; None for a bare turn of the loop.
        begun: whether any step was taken.
    """

    __slots__ = ("answering", "begun", "error", "waits_for")

    def __init__(self, answering: Answering, waits_for: Any = None, *, begun: bool = False) -> None:
        self.answering = answering
        self.begun = begun
        self.waits_for = waits_for
        self.error: BaseException | None = None

    def breaks(self, error: BaseException) -> None:
        """The wait of a begun one is over with an error, which its coroutine gets."""
        self.error = error

    async def rest(self) -> None:
        """The steps that are left; raises what the coroutine raises."""
        await (_rest(self) if self.begun else self.answering)


@types.coroutine
def _rest(begun: Begun) -> Generator[Any, Any, None]:
    answering, waits_for = begun.answering, begun.waits_for
    try:
        waits_for = answering.send(None) if begun.error is None and _come(waits_for) else _first(begun)
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                waits_for = answering.throw(error)
            else:
                waits_for = answering.send(sent)
    except StopIteration:
        return


def _first(begun: Begun) -> Any:
    """What is waited for still; where that broke, what the coroutine waits for after it heard of it."""
    return begun.waits_for if begun.error is None else begun.answering.throw(begun.error)


def _come(waits_for: Any) -> bool:
    """Whether a future is done already: then it is not waited for, and its mark is taken off, as tasks do."""
    if waits_for is None or not waits_for.done():
        return False
    waits_for._asyncio_future_blocking = False
    return True
