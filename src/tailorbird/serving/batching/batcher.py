"""The batcher: many requests, few runs. It counts rows, joins what may be joined, and refuses what cannot be met.

What it decides by is the engine's own latency table. An idle executor takes what waits at once, so that batches
form by themselves while executors are busy; only where the table says that it pays does it wait for more.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Sequence

from msgspec.structs import replace

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError, InputError, NotReady, TailorbirdError
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.signature import Tensors
from tailorbird.serving.batching.admission import Admission, BatchOptions, too_late
from tailorbird.serving.batching.costs import CostTable
from tailorbird.serving.batching.executors import Executor, Slot, Slots
from tailorbird.serving.batching.forms import Form, Forms, Rules
from tailorbird.serving.batching.gathering import Gathering, Guest
from tailorbird.serving.batching.patience import Patience
from tailorbird.serving.batching.queueing import Queue, Reason
from tailorbird.serving.batching.requests import Departures, Part, Request, Terms, own_copies
from tailorbird.serving.batching.rows import cut, joined, parted
from tailorbird.serving.batching.runs import Batch, Observer, Runner, as_own, leg
from tailorbird.serving.batching.work import Work
from tailorbird.serving.ticket import Ticket
from tailorbird.serving.trail import Trail

Outputs = dict[str, Array]


class Batcher:
    """Requests in front of one or more executors of one engine.

    All of it happens in one event loop; only :meth:`close` may be called from elsewhere.

    Args:
        manifest: of the engine: signature, profile and latency table.
        executors: at least one; owned from here on, and closed by :meth:`close`.
        options: limits and habits.
        observer: told of every batch when it is over; it must be quick and raise nothing.
        name: how errors name the model.
    """

    def __init__(
        self,
        manifest: Manifest,
        executors: Sequence[Executor],
        options: BatchOptions | None = None,
        observer: Observer | None = None,
        name: str = "the model",
    ) -> None:
        options = options or BatchOptions()
        table, signature, profile = CostTable(manifest.latency), manifest.signature, manifest.candidate.profile
        self._name = name
        self._observer = observer
        self._in_order = options.preserve_ordering
        self._rules = rules = Rules.of(signature, profile)
        row_limit = options.row_limit(rules.most)
        self._forms = Forms(signature, profile, rules, table, row_limit, len(executors))
        self._slots = slots = Slots(executors)
        self._runner = Runner(slots, name)
        self._gathering = Gathering(self._runner, rules, name, observer)
        self._brief = any(slot.here is not None for slot in slots.all)
        work = Work(rules, table, slots)
        self._queue: Queue[Part] = Queue(work.seconds, in_order=self._in_order)
        self._admission = Admission(options, row_limit, work, slots, self._queue)
        self._patience = Patience(self._queue, slots, rules, options.max_queue_delay)
        self._departures = Departures(in_order=self._in_order, name=name)
        self._orders = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._closing = False
        self._empty = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether any executor is there to run requests."""
        return not self._closing and bool(self._slots.alive)

    @property
    def instances(self) -> tuple[int, int]:
        """How many executors are alive, and how many there are."""
        return self._slots.alive, len(self._slots.all)

    @property
    def outstanding(self) -> int:
        """Requests accepted and not yet answered."""
        return self._admission.requests

    async def run(self, inputs: Tensors, ticket: Ticket | None = None) -> Outputs:
        """Answer one request.

        When it is cancelled it leaves the queue; if its rows are running already, only their answer is dropped.

        Args:
            inputs: every input by name, with the signature's dtypes, and a shape inside the profile but for the
                rows, of which there may be fewer or more than one run takes.
            ticket: deadline and priority.

        Raises:
            InputError: names, dtypes or shapes do not fit.
            Overloaded: there is no room, or the answer would come, or has come, too late.
            NotReady: no executor is alive, or the batcher is closing.
            TailorbirdError: the run failed.
        """
        self._check_open()
        form = self._forms.of(inputs)
        now = time.monotonic()
        admission = self._admission
        terms = admission.check(form, ticket, now)
        admission.requests += 1
        admission.rows += form.rows
        try:
            future = self._gathered(form, inputs, now, terms)
            if future is not None:
                return await future
            form.bucket.arrivals.note(now, form.rows)
            slot = self._at_once(form)
            if slot is not None:
                return await self._run_alone(slot, form, inputs, terms.trail)
            return await self._run_queued(form, inputs, now, terms)
        finally:
            admission.requests -= 1
            admission.rows -= form.rows
            if self._closing and not admission.requests:
                self._empty.set()

    async def drain(self) -> None:
        """Refuse new requests, and return when all that were accepted are answered."""
        self._closing = True
        self._patience.stop()
        self._dispatch()
        if self._admission.requests:
            await self._empty.wait()

    def close(self) -> None:
        """Refuse new requests, answer those accepted, close the executors; blocks until that is done.

        Called inside the event loop, which cannot go on meanwhile, it refuses what still waits; await
        :meth:`drain` first.
        """
        self._closing = True
        loop = self._loop
        if loop is not None and loop.is_running():
            if self._thread == threading.get_ident():
                self._run_gathered()
                self._refuse_all(self._being_put_away())
            else:
                self._drain_in(loop)
        for slot in self._slots.all:
            slot.executor.close()

    def _drain_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drain in the loop's thread while this one blocks, for as long as the loop runs."""
        drained = threading.Event()

        def begin() -> None:
            task = loop.create_task(self.drain())
            self._tasks.add(task)
            task.add_done_callback(lambda _: drained.set())
            task.add_done_callback(self._tasks.discard)

        with contextlib.suppress(RuntimeError):  # it has just been closed
            loop.call_soon_threadsafe(begin)
        while loop.is_running() and not drained.wait(0.05):
            pass

    def _check_open(self) -> None:
        if self._closing:
            raise self._being_put_away()
        if not self._slots.alive:
            raise self._nobody()
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._thread = loop, threading.get_ident()

    def _gathered(self, form: Form, inputs: Tensors, now: float, terms: Terms) -> asyncio.Future[Outputs] | None:
        """The shortest way, for brief runs: with what else comes in this turn of the loop. None for the others."""
        gathering = self._gathering
        if not gathering.admits(form):
            if not self._brief or len(self._queue) or self._in_order or not form.bucket.brief.allows(form.rows):
                return None
            self._run_gathered()  # a group that this request may not join
            slot = self._slots.free()
            if slot is None or slot.here is None:
                return None
            gathering.begin(slot, form.bucket)
            if gathering.expects_others:
                asyncio.get_running_loop().call_soon(self._run_gathered)
        guest = Guest(asyncio.get_running_loop().create_future(), form, inputs, now, terms)
        gathering.join(guest)
        if not self._rules.joins or not gathering.expects_others:
            self._run_gathered()
        return guest.future

    def _run_gathered(self) -> None:
        left = self._gathering.run()
        if left is not None:
            slot, guests = left
            self._start(slot, [self._part_of(guest) for guest in guests], Reason.IDLE)
        if len(self._queue):
            self._dispatch()

    def _part_of(self, guest: Guest) -> Part:
        request = Request(guest.future, guest.arrived, guest.terms)
        part = Part(request, guest.inputs, guest.form, next(self._orders))
        request.consist_of([part])
        return part

    def _at_once(self, form: Form) -> Slot | None:
        """An executor for a request that nobody is before and nothing is to be done to; None if it has to queue."""
        rules = self._rules
        if len(self._queue) or self._in_order or not rules.fewest <= form.rows <= rules.most:
            return None
        slot = self._slots.free()
        return None if slot is None or self._patience.holds(form) else slot

    async def _run_alone(self, slot: Slot, form: Form, inputs: Tensors, trail: Trail | None) -> Outputs:
        """The short way: the caller's own task runs the executor, and nothing is copied."""
        slot.busy = True
        started = time.monotonic()
        failed = True
        try:
            outputs = await self._runner.run(slot, form.bucket, form.rows, inputs)
            failed = False
            return outputs
        finally:
            if len(self._queue):
                self._dispatch()
            if self._observer is not None or trail is not None:
                reason = Reason.ALONE
                if self._rules.joins:
                    reason = Reason.FULL if form.rows == self._rules.most else Reason.IDLE
                batch = Batch(form.rows, 1, 0, reason, (0.0,), 0.0, time.monotonic() - started, 0.0, failed)
                if self._observer is not None:
                    self._observer(batch)
                if trail is not None:
                    trail.legs.append(leg(batch, started, started))

    async def _run_queued(self, form: Form, inputs: Tensors, now: float, terms: Terms) -> Outputs:
        """The long way: queued, perhaps in parts, joined with others, run, parted."""
        loop = asyncio.get_running_loop()
        request = Request(loop.create_future(), now, terms)
        request.consist_of(self._parts(form, inputs, request))
        if terms.deadline is not None:
            request.timer = loop.call_later(terms.deadline - now, self._expire, request)
        self._departures.enter(request)
        for part in request.parts:
            self._queue.add(part)
        self._dispatch()
        try:
            return await request.future
        finally:
            if not request.over:  # its caller has gone
                self._withdraw(request)
                self._departures.leave(request)

    def _parts(self, form: Form, inputs: Tensors, request: Request) -> list[Part]:
        most = self._rules.most
        if not self._rules.joins or form.rows <= most:
            part = Part(request, inputs, form, next(self._orders))
            part.alone = not self._rules.joins
            return [part]
        parts = []
        for index, start in enumerate(range(0, form.rows, most)):
            piece = Form(form.bucket, min(most, form.rows - start))
            parts.append(Part(request, cut(inputs, start, most), piece, next(self._orders), index))
        return parts

    def _dispatch(self) -> None:
        """Start what can be started now."""
        while len(self._queue):
            slot = self._slots.free()
            if slot is None:
                if not self._slots.alive:
                    self._refuse_all(self._nobody())
                return
            if not self._closing and self._patience.waits(self._dispatch):
                return
            parts, reason = self._queue.take(self._rules.most)
            reason = self._patience.reason(reason)
            parts = self._timely(parts)
            if parts:
                self._start(slot, parts, reason)

    def _timely(self, parts: list[Part]) -> list[Part]:
        """Those that can still be answered in time; the others are refused."""
        if all(part.request.terms.deadline is None for part in parts):
            return parts
        now = time.monotonic()
        seconds = parts[0].bucket.costs.seconds(sum(part.rows for part in parts), self._slots.busy + 1)
        late = [part.request for part in parts if part.request.hopeless(seconds, now)]
        for request in late:
            self._refuse(request, too_late("the deadline cannot be met any more"))
        return [part for part in parts if not part.request.over] if late else parts

    def _start(self, slot: Slot, parts: list[Part], reason: Reason) -> None:
        """Assemble a batch, and let a task of its own run it."""
        taken = time.monotonic()
        rows = sum(part.rows for part in parts)
        padding = max(0, self._rules.fewest - rows) if self._rules.joins else 0
        for part in parts:
            part.request.set_going()
        try:
            inputs = joined([part.inputs for part in parts], padding)
        except Exception as error:  # no memory, say
            slot.busy = False  # a gathering had it already
            self._fail(parts, as_own(error, self._name))
            return
        slot.busy = True
        queued = tuple([taken - part.request.arrived for part in parts])
        batch = Batch(rows, len(parts), padding, reason, queued, time.monotonic() - taken, 0.0, 0.0)
        task = asyncio.get_running_loop().create_task(self._serve(slot, parts, inputs, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, slot: Slot, parts: list[Part], inputs: Tensors, batch: Batch) -> None:
        started = time.monotonic()
        failed = False
        try:
            outputs = await self._runner.run(slot, parts[0].bucket, batch.rows + batch.padding, inputs)
            running = time.monotonic() - started
            self._dispatch()  # the executor first: it is idle
            self._answer(parts, outputs, batch.padding)
        except asyncio.CancelledError:
            self._fail(parts, self._being_put_away())
            raise
        except Exception as error:
            running, failed = time.monotonic() - started, True
            if isinstance(error, TailorbirdError):
                self._recover(slot, parts, error)
            else:  # a fault of ours: nobody is to wait for ever
                self._fail(parts, as_own(error, self._name))
            self._dispatch()
        replying = time.monotonic() - started - running
        batch = replace(batch, running=running, replying=replying, failed=failed)
        if self._observer is not None:
            self._observer(batch)
        for part, queued in zip(parts, batch.queued, strict=True):
            trail = part.request.terms.trail
            if trail is not None:
                trail.legs.append(leg(batch, part.request.arrived + queued, started))

    def _answer(self, parts: list[Part], outputs: Outputs, padding: int) -> None:
        answers = parted(outputs, [part.rows for part in parts], padding)
        for part, answer in zip(parts, answers, strict=True):
            self._departures.answer(part, answer)

    def _recover(self, slot: Slot, parts: list[Part], error: TailorbirdError) -> None:
        """One request's rows may have failed a batch (text that is not UTF-8, an index out of range): each runs alone.

        Not where the executor died of it: the next one would, too.
        """
        if len(parts) > 1 and slot.alive and isinstance(error, (InputError, BackendError)):
            for part in parts:
                part.alone = True
            self._queue.put_back([part for part in parts if not part.request.over])
        else:
            self._fail(parts, error)

    def _fail(self, parts: Sequence[Part], error: TailorbirdError) -> None:
        for part, own in zip(parts, own_copies(error, len(parts)), strict=True):
            self._refuse(part.request, own)

    def _refuse(self, request: Request, error: TailorbirdError) -> None:
        self._withdraw(request)
        self._departures.fail(request, error)

    def _withdraw(self, request: Request) -> None:
        """Take out of the queue what of it still waits."""
        for part in request.parts:
            self._queue.remove(part)

    def _expire(self, request: Request) -> None:
        self._refuse(request, too_late("the deadline has passed while the request waited"))

    def _refuse_all(self, error: TailorbirdError) -> None:
        self._fail(list(self._queue), error)

    def _nobody(self) -> NotReady:
        return NotReady(f"{self._name} is not ready: nothing is alive to run it", hint="send the request again later")

    def _being_put_away(self) -> NotReady:
        return NotReady(f"{self._name} is being put away", hint="send the request again in a moment")
