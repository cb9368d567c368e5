"""Instances: a session that serves requests one after another while its caller waits without blocking."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import Protocol

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError, NotReady, Overloaded, TailorbirdError
from tailorbird.domain.signature import Tensors
from tailorbird.serving.ticket import Ticket

OUTSTANDING = 256
"""Requests that may wait for, or be inside, one instance."""
CLOSE_SECONDS = 30.0
"""How long closing waits for a run: as long as a server drains."""
left_behind: list[str] = []
"""Instances whose engines ran on when they were closed. A process with one of them must not end in the usual way: what
is torn down while it runs ends it with a signal."""

Outputs = dict[str, Array]
_Loop = asyncio.AbstractEventLoop
_Job = tuple[_Loop, "asyncio.Future[Outputs]", Tensors]


class Instance(Protocol):
    """What serves a model: the hub and the data plane know no more of it than this."""

    @property
    def alive(self) -> bool:
        """Whether anything is there to run requests."""

    @property
    def outstanding(self) -> int:
        """Requests accepted and not yet answered."""

    async def run(self, inputs: Tensors, ticket: Ticket | None = None) -> Outputs:
        """Answer one request; raises what :meth:`Engine.run` raises, :class:`Overloaded` or :class:`NotReady`."""

    def close(self) -> None:
        """Refuse new requests, answer those accepted, release the engine; blocks until that is done."""


class Engine(Protocol):
    """What an instance runs: a :class:`tailorbird.backends.base.Session`, or a loaded engine with its files."""

    def run(self, inputs: Tensors) -> Outputs:
        """Run once, in whichever single thread calls."""

    def close(self) -> None:
        """Release it."""


class ThreadInstance:
    """One engine and the one thread that runs it.

    The way there is a :class:`SimpleQueue`, the way back ``call_soon_threadsafe``: an executor would
    add a second future, a work item and two locks to each request.

    Args:
        engine: owned from here on, and closed by :meth:`close`.
        name: how the thread is called, and how errors name the instance.
        outstanding: requests accepted and not yet answered, at most.
    """

    def __init__(self, engine: Engine, name: str = "instance", outstanding: int = OUTSTANDING) -> None:
        self._engine = engine
        self._name = name
        self._limit = outstanding
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # whoever has it may use the engine
        self._accepted = 0  # written under the lock
        self._finished = 0  # written by the worker alone
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def outstanding(self) -> int:
        """Requests accepted and not yet answered."""
        return self._accepted - self._finished

    async def run(self, inputs: Tensors) -> Outputs:
        """Answer one request, in turn, without blocking the event loop.

        Args:
            inputs: every input by name, with the signature's dtypes and a shape inside the profile.

        Raises:
            InputError: names, dtypes or shapes do not fit.
            BackendError: the runtime failed; the instance lives on.
            Overloaded: too many requests wait already.
            NotReady: the instance is closing.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outputs] = loop.create_future()
        self._accept((loop, future, inputs))
        return await future

    def run_here(self, inputs: Tensors) -> Outputs | None:
        """Run once in the thread that calls; None where the instance's own is at work, or its engine is being closed.

        Raises:
            TailorbirdError: as :meth:`run`.
        """
        if self.outstanding or not self._turn.acquire(blocking=False):
            return None
        try:
            return None if self._closing else self._run(inputs)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Refuse new requests, answer those accepted, close the engine; blocks until the thread has ended.

        A run without an end is waited for :data:`CLOSE_SECONDS`, and then left to itself: nobody can end a thread.
        """
        with self._lock:
            if not self._closing:
                self._closing = True
                self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            left_behind.append(self._name)

    def _accept(self, job: _Job) -> None:
        with self._lock:
            if self._closing:
                raise NotReady(f"{self._name} is being put away", hint="send the request again in a moment")
            if self.outstanding >= self._limit:
                raise Overloaded(f"{self._name} has too many requests waiting", got=self.outstanding,
                                 expected=f"fewer than {self._limit}", hint="send fewer at once, or later")  # fmt: skip
            self._accepted += 1
            self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._serve(*job)
            self._finished += 1
            del job  # while the queue is empty the last request's tensors would stay alive
        with self._turn, contextlib.suppress(TailorbirdError):
            self._engine.close()

    def _serve(self, loop: _Loop, future: asyncio.Future[Outputs], inputs: Tensors) -> None:
        if future.cancelled():
            return
        outputs: Outputs | None = None
        failure: TailorbirdError | None = None
        try:
            with self._turn:
                outputs = self._run(inputs)
        except TailorbirdError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, future, outputs, failure)

    def _run(self, inputs: Tensors) -> Outputs:
        """Whatever goes wrong, it must end neither the thread nor the server."""
        try:
            return self._engine.run(inputs)
        except TailorbirdError:
            raise
        except BaseException as error:
            failure = BackendError(f"{self._name} failed", got=f"{type(error).__name__}: {error}")
            raise failure from error


def _settle(future: asyncio.Future[Outputs], outputs: Outputs | None, failure: TailorbirdError | None) -> None:
    """Runs in the event loop."""
    if future.done():  # cancelled while it ran
        return
    if outputs is None:
        future.set_exception(failure or BackendError("the engine returned nothing"))
    else:
        future.set_result(outputs)
