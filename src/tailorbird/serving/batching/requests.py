"""Accepted requests until they are answered: their parts, their outcome, and the order in which answers leave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import TailorbirdError, error_from_dict
from tailorbird.domain.signature import Tensors
from tailorbird.serving.batching import rows
from tailorbird.serving.batching.forms import Bucket, Form
from tailorbird.serving.batching.queueing import Piece
from tailorbird.serving.batching.runs import as_own
from tailorbird.serving.trail import Trail

Outputs = dict[str, Array]


class Terms(msgspec.Struct, frozen=True, gc=False):
    """On what terms a request was accepted."""

    rank: int
    """Of its level of priority; smaller ones go first."""
    deadline: float | None = None
    """When its answer is worthless, by the monotonic clock."""
    probe: bool = False
    """Accepted against the odds, to learn whether the odds are right."""
    trail: Trail | None = None
    """Where its way is noted, if anybody traces it."""


class Request:
    """A request that waits for its answer.

    Args:
        future: what its caller awaits.
        arrived: when, by the monotonic clock.
        terms: on which it was accepted.
    """

    __slots__ = ("answers", "arrived", "failure", "future", "missing", "over", "parts", "terms", "timer")

    def __init__(self, future: asyncio.Future[Outputs], arrived: float, terms: Terms) -> None:
        self.future = future
        self.arrived = arrived
        self.terms = terms
        self.over = False
        """Answered, refused or given up: nothing more is to be done for it."""
        self.timer: asyncio.TimerHandle | None = None
        self.parts: list[Part] = []
        self.answers: list[Outputs] = []
        self.missing = 0
        self.failure: TailorbirdError | None = None

    def consist_of(self, parts: Sequence[Part]) -> None:
        """Say what it consists of; the answer is complete when each part has one."""
        self.parts = list(parts)
        self.missing = len(self.parts)
        self.answers = [{} for _ in self.parts]

    def hopeless(self, seconds: float, now: float) -> bool:
        """Whether a run of so many seconds, begun now, ends after its deadline."""
        deadline = self.terms.deadline
        return deadline is not None and now + (0.0 if self.terms.probe else seconds) > deadline

    def set_going(self) -> None:
        """It runs: its deadline no longer ends it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def end(self) -> None:
        """Nothing more is to be done for it; its tensors are let go of."""
        self.over = True
        self.parts = []
        self.set_going()


class Part(Piece):
    """The rows of a request that run together: all of them, unless there are more than one run takes."""

    __slots__ = ("index", "inputs", "request")

    bucket: Bucket

    def __init__(self, request: Request, inputs: Tensors, form: Form, order: int, index: int = 0) -> None:
        super().__init__(form.bucket, form.rows, request.terms.rank, order)
        self.request = request
        self.index = index
        self.inputs = inputs


class Departures:
    """Where answers leave: each as soon as it is there, or in the order in which requests came.

    Args:
        in_order: of arrival, also when a later request was ready before, and whether it is an answer or an
            error. Requests that were given up are skipped.
        name: how errors name the model.
    """

    def __init__(self, *, in_order: bool, name: str) -> None:
        self._name = name
        self._line: deque[Request] | None = deque() if in_order else None

    def enter(self, request: Request) -> None:
        """It has been accepted."""
        if self._line is not None:
            self._line.append(request)

    def answer(self, part: Part, outputs: Outputs) -> None:
        """A part has its answer, and the request may with it."""
        request = part.request
        if request.over:
            return
        request.answers[part.index] = outputs
        request.missing -= 1
        if not request.missing:
            self.leave(request)

    def fail(self, request: Request, failure: TailorbirdError) -> None:
        """The request's answer is an error."""
        if not request.over:
            request.failure = failure
            self.leave(request)

    def leave(self, request: Request) -> None:
        """It is over, and leaves when it is its turn."""
        request.end()
        if self._line is None:
            _deliver(request, self._name)
            return
        while self._line and self._line[0].over:
            _deliver(self._line.popleft(), self._name)


def own_copies(failure: TailorbirdError, count: int) -> list[TailorbirdError]:
    """The error for each of several requests: one instance raised twice would gather the tracebacks of both."""
    copies = [failure] if count else []
    while len(copies) < count:
        copy = error_from_dict(failure.to_dict())
        copy.__cause__ = failure
        copies.append(copy)
    return copies


def _deliver(request: Request, name: str) -> None:
    if request.future.done():  # its caller has gone
        return
    if request.failure is not None:
        request.future.set_exception(request.failure)
    elif not request.missing:
        try:
            outputs = rows.whole(request.answers)
        except Exception as error:  # no memory, say, or an output's other dims differ from part to part
            request.future.set_exception(as_own(error, name))
        else:
            request.future.set_result(outputs)
