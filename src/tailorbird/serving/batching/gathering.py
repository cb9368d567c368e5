"""Gathering: requests of one turn of the event loop, joined in one brief run that the loop does itself.

While an executor in another thread is busy, requests pile up and make the next batch. A run in the loop leaves them no
such time: so each waits until the loop has read what else has come in this very turn, some microseconds, and all of
them go together. Where nobody ever came, nobody is waited for, but once in a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError, InputError, NotReady, TailorbirdError
from tailorbird.domain.signature import Tensors
from tailorbird.serving.batching.executors import Slot
from tailorbird.serving.batching.forms import Bucket, Form, Rules
from tailorbird.serving.batching.queueing import Reason
from tailorbird.serving.batching.requests import Terms, own_copies
from tailorbird.serving.batching.rows import joined, parted
from tailorbird.serving.batching.runs import Batch, Observer, Runner, as_own, leg

Outputs = dict[str, Array]

ALONE = 8
"""After so many groups of one the next guest is not made to wait for others."""
PROBE = 32
"""But one in so many is, to see whether others come by now."""


class Guest:
    """One request of a gathering."""

    __slots__ = ("arrived", "form", "future", "inputs", "terms")

    def __init__(
        self, future: asyncio.Future[Outputs], form: Form, inputs: Tensors, arrived: float, terms: Terms
    ) -> None:
        self.future = future
        self.form = form
        self.inputs = inputs
        self.arrived = arrived
        self.terms = terms


class Gathering:
    """At most one group at a time, of one bucket, for one executor, which counts as busy from the first guest on.

    Args:
        runner: runs it.
        rules: what a run takes.
        name: how errors name the model.
        observer: told of every run; None for nobody.
    """

    def __init__(self, runner: Runner, rules: Rules, name: str, observer: Observer | None) -> None:
        self._runner = runner
        self._rules = rules
        self._name = name
        self._observer = observer
        self._guests: list[Guest] = []
        self._rows = 0
        self._slot: Slot | None = None
        self._bucket: Bucket | None = None
        self._alone = 0
        """Groups of one since the last larger one."""

    @property
    def expects_others(self) -> bool:
        """Whether waiting for the end of the loop's turn is likely to bring another guest."""
        return self._alone < ALONE or not self._alone % PROBE

    def admits(self, form: Form) -> bool:
        """Whether a group is there that this request may join."""
        bucket = self._bucket
        return bucket is form.bucket and self._rules.joins and self._rows + form.rows <= bucket.brief.rows

    def begin(self, slot: Slot, bucket: Bucket) -> None:
        """Begin a group; whoever does it calls :meth:`run` at the end of the event loop's turn."""
        slot.busy = True
        self._slot, self._bucket = slot, bucket

    def join(self, guest: Guest) -> None:
        """Come in."""
        self._guests.append(guest)
        self._rows += guest.form.rows

    def run(self) -> tuple[Slot, list[Guest]] | None:
        """Run the group that is there, if any, and answer it.

        Returns:
            The executor and the requests, where it cannot run in this thread now: it is busy still, and they are
            to be run otherwise.
        """
        slot, guests = self._slot, [guest for guest in self._guests if not guest.future.done()]
        self._guests, self._rows, self._slot, self._bucket = [], 0, None, None
        if slot is None:
            return None
        self._alone = self._alone + 1 if len(guests) < 2 else 0
        if guests and not self._answer(slot, guests):
            return slot, guests
        slot.busy = False
        return None

    def _answer(self, slot: Slot, guests: list[Guest]) -> bool:
        """Whether the executor could run in this thread."""
        taken = began = time.monotonic()
        counts = [guest.form.rows for guest in guests]
        rows, padding = sum(counts), max(0, self._rules.fewest - sum(counts)) if self._rules.joins else 0
        failed = True
        try:
            inputs = joined([guest.inputs for guest in guests], padding)
            began = time.monotonic()
            outputs = self._runner.here(slot, guests[0].form.bucket, rows + padding, inputs)
            if outputs is None:
                return False
            ended = time.monotonic()
            for guest, answer in zip(guests, parted(outputs, counts, padding), strict=True):
                guest.future.set_result(answer)
            failed = False
        except Exception as error:
            ended = time.monotonic()
            self._fail(slot, guests, as_own(error, self._name))
        queued = tuple([taken - guest.arrived for guest in guests])
        self._tell(guests, taken, Batch(rows, len(guests), padding, self._reason(rows), queued, began - taken,
                                        ended - began, time.monotonic() - ended, failed))  # fmt: skip
        return True

    def _fail(self, slot: Slot, guests: list[Guest], error: TailorbirdError) -> None:
        """One request's rows may have failed the others': each runs alone then."""
        if len(guests) > 1 and isinstance(error, (InputError, BackendError)):
            for guest in guests:
                if not self._answer(slot, [guest]):
                    guest.future.set_exception(NotReady(f"{self._name} is being put away"))
            return
        for guest, own in zip(guests, own_copies(error, len(guests)), strict=True):
            guest.future.set_exception(own)

    def _reason(self, rows: int) -> Reason:
        if not self._rules.joins:
            return Reason.ALONE
        return Reason.FULL if rows == self._rules.most else Reason.IDLE

    def _tell(self, guests: Sequence[Guest], taken: float, batch: Batch) -> None:
        if self._observer is not None:
            self._observer(batch)
        for guest in guests:
            trail = guest.terms.trail
            if trail is not None:
                trail.legs.append(leg(batch, taken, taken + batch.assembling))
