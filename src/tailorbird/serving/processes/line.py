"""The line: the server's end of one process, in the event loop. One run is in the process, the others wait in turn."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import msgspec

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError, InputError, NotReady, TailorbirdError
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.serving.processes.messages import MESSAGE_BYTES, Done, Failed, Run, encode, to_answer
from tailorbird.serving.processes.spawn import Child
from tailorbird.serving.processes.tensors import Layout, Reader

ASIDE_BYTES = 1 << 20
"""What is larger is copied in a thread of its own: a fraction of a millisecond is all that the loop gives."""

_HANG_UP_S = 0.05
"""Between a closed line and a process's end; after that it is killed."""

_Outputs = dict[str, Array]
T = TypeVar("T")


class Job:
    """One request, on its way."""

    __slots__ = ("future", "inputs", "timer")

    def __init__(self, future: asyncio.Future[_Outputs], inputs: Tensors) -> None:
        self.future = future
        self.inputs: Tensors = inputs
        self.timer: asyncio.TimerHandle | None = None


class Line:
    """Runs sent to a process and their answers, each exactly once.

    :meth:`lost` may be called from any thread, all else in the event loop that serves.

    Args:
        child: a process that has said it is ready.
        signature: of its engine.
        name: of the instance, for errors.
        run_limit_s: seconds a run may take before the process is killed.
    """

    def __init__(self, child: Child, signature: Signature, name: str, run_limit_s: float) -> None:
        self._child = child
        self._signature = signature
        self._name = name
        self._run_limit_s = run_limit_s
        self._outputs = Reader(signature.outputs, child.outputs)
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._number = 0
        self._buffer = bytearray(MESSAGE_BYTES)
        self._view = memoryview(self._buffer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone: TailorbirdError | None = None
        self._lock = threading.Lock()  # between a loop that takes the line up and a thread that finds the process dead
        child.control.setblocking(False)

    @property
    def outstanding(self) -> int:
        """Requests taken and not yet answered."""
        return len(self._waiting) + (self._current is not None)

    @property
    def served(self) -> bool:
        """Whether a loop is there that goes on answering."""
        return self._loop is not None and self._loop.is_running()

    def submit(self, inputs: Tensors) -> asyncio.Future[_Outputs]:
        """Send a run, or let it wait for those before it.

        Args:
            inputs: checked against the signature; their memory must not change until the answer is there.

        Raises:
            NotReady: the process is gone.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._take_up(loop)
        job = Job(loop.create_future(), inputs)
        if self._current is None:
            self._begin(job)
        else:
            self._waiting.append(job)
        return job.future

    def lost(self, error: TailorbirdError, release: Callable[[], None]) -> None:
        """The process has ended: answer what was in it with ``error``, what waited with :class:`NotReady`.

        Args:
            error: why it ended.
            release: called once nothing here needs the process's line and memory any more.
        """
        with self._lock:
            self._gone = error
            loop = self._loop
        try:
            if loop is None:
                raise RuntimeError
            loop.call_soon_threadsafe(self._end, error, release)
        except RuntimeError:  # no loop ever served here, or it has closed: nobody waits
            release()

    def _take_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first loop that sends, or the next one after that one has closed, listens from here on."""
        with self._lock:
            if self._gone is not None:
                raise self._refusal()
            before, self._loop = self._loop, loop
        if before is not None and not before.is_closed():
            before.remove_reader(self._child.control)
        loop.add_reader(self._child.control, self._readable)
        if self._current is not None:
            self._current.timer = loop.call_later(self._run_limit_s, self._late)

    def _begin(self, job: Job) -> None:
        self._current = job
        assert self._loop is not None
        job.timer = self._loop.call_later(self._run_limit_s, self._late)
        try:
            layout = Layout(self._signature.inputs, job.inputs)
            limit = self._child.inputs.limit
            if layout.extent > limit:
                raise InputError("the inputs are too large for one run", got=f"{layout.extent} bytes",
                                 expected=f"at most {limit} bytes")  # fmt: skip
            self._send(job, layout)
        except TailorbirdError as error:
            self._current = None  # what waits behind it is the caller's to send: this must not call itself
            _settle(job, error)

    def _send(self, job: Job, layout: Layout) -> None:
        self._number += 1
        message = encode(Run(self._number, layout.extent, layout.places))
        if len(message) > MESSAGE_BYTES:
            raise BackendError(f"{self._name} has too many inputs for one message", got=f"{len(message)} bytes",
                               expected=f"at most {MESSAGE_BYTES} bytes")  # fmt: skip
        if layout.extent < ASIDE_BYTES:
            layout.write(self._child.inputs)
            self._tell(message)
        else:
            self._aside(job, lambda: layout.write(self._child.inputs), lambda _: self._tell(message))

    def _tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # the process has ended: whoever watches it says so in a moment
            self._child.control.send(message)

    def _readable(self) -> None:
        try:
            count = self._child.control.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it ended with a message unread
            count = 0
        if not count:
            self._hung_up()
            return
        try:
            self._hear(to_answer.decode(self._view[:count]))
        except (msgspec.MsgspecError, TailorbirdError) as error:
            self._broken(error)

    def _hear(self, answer: Done | Failed) -> None:
        job = self._current
        if job is None or answer.number != self._number:
            raise BackendError("an answer that nobody waits for", got=answer.number, expected=self._number)
        if isinstance(answer, Failed):
            self._finish(job, answer.fault.rebuilt())
            return
        views = self._outputs.read(answer.tensors, answer.extent)
        if answer.extent < ASIDE_BYTES:
            self._finish(job, _copies(views))
        else:
            self._aside(job, lambda: _copies(views), lambda copies: self._finish(job, copies))

    def _aside(self, job: Job, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do ``work`` in a thread; unless the process is lost meanwhile, go on with ``then`` in the loop."""

        def done(future: asyncio.Future[T]) -> None:
            error = None if future.cancelled() else future.exception()
            if self._current is not job or future.cancelled():
                return
            if error is None:
                then(future.result())
            elif isinstance(error, TailorbirdError):
                self._finish(job, error)
            else:
                self._finish(job, BackendError(f"{self._name} failed", got=f"{type(error).__name__}: {error}"))

        assert self._loop is not None
        self._loop.run_in_executor(None, work).add_done_callback(done)

    def _finish(self, job: Job, answer: _Outputs | TailorbirdError) -> None:
        """Answer the current request and send the next."""
        self._current = None
        _settle(job, answer)
        while self._waiting and self._current is None:
            following = self._waiting.popleft()
            if not following.future.cancelled():
                self._begin(following)

    def _end(self, error: TailorbirdError, release: Callable[[], None]) -> None:
        """In the loop, once the process has ended."""
        assert self._loop is not None
        self._loop.remove_reader(self._child.control)
        current, self._current = self._current, None
        if current is not None:
            _settle(current, error)
        while self._waiting:
            _settle(self._waiting.popleft(), self._refusal())
        self._outputs.forget()
        release()

    def _hung_up(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._child.control)
        error = BackendError(f"{self._name} closed its line")
        self._loop.call_later(_HANG_UP_S, self._child.condemn, error)

    def _broken(self, error: Exception) -> None:
        """What says something wrong once may say anything next: it is not listened to any more."""
        assert self._loop is not None
        self._loop.remove_reader(self._child.control)
        said = error.message if isinstance(error, TailorbirdError) else str(error)
        self._child.condemn(BackendError(f"{self._name} gave an answer that cannot be", got=said))

    def _late(self) -> None:
        expected = f"an answer within {self._run_limit_s:g} s"
        self._child.condemn(BackendError(f"{self._name} took too long and was ended", expected=expected))

    def _refusal(self) -> NotReady:
        return NotReady(f"{self._name} has just ended", hint="send the request again in a moment")


def _copies(views: _Outputs) -> _Outputs:
    """Owned by the caller: the next run writes over the segment. Texts are copies already."""
    return {name: view.copy() for name, view in views.items()}


def _settle(job: Job, answer: _Outputs | TailorbirdError) -> None:
    if job.timer is not None:
        job.timer.cancel()
    job.inputs = {}
    if job.future.done():  # the client has left
        return
    with contextlib.suppress(RuntimeError):  # its loop has closed
        if isinstance(answer, TailorbirdError):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)
