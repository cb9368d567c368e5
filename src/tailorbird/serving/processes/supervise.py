"""Supervision: a process that dies is started again, ever later the oftener it does, and in the end not at all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import BackendError, NotReady, TailorbirdError
from tailorbird.domain.manifest import Manifest, encode_manifest
from tailorbird.repository.signing.trust import Signer
from tailorbird.serving.processes.backoff import Backoff
from tailorbird.serving.processes.events import Event, Happening, Observer
from tailorbird.serving.processes.line import Line
from tailorbird.serving.processes.memory import SEGMENT_BYTES
from tailorbird.serving.processes.messages import MESSAGE_BYTES, Failed, Ready, Start, at_start, encode
from tailorbird.serving.processes.spawn import Child, Wake

_LOOK_S = 0.002
"""Between two looks at whether everything is answered."""


class ProcessOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an instance's process is run."""

    allow_unsigned: bool = False
    """For local experiments; see :func:`tailorbird.repository.signing.trust.verified`."""
    cores: tuple[int, ...] = ()
    """CPU cores it keeps to; empty for all that the server may use."""
    start_limit_s: float = 120.0
    """Seconds from its start to ready."""
    run_limit_s: float = 60.0
    """Seconds a run may take before the process is killed."""
    grace_s: float = 5.0
    """Seconds it has to end once it is told to."""
    starts: int = 5
    """Starts that may fail in a row before it stays down."""
    segment_bytes: int = SEGMENT_BYTES
    """Shared memory for the inputs of one run, and as much for its outputs; given as it is needed."""
    spin_s: float = 0.0
    """Seconds it looks for the next run before it sleeps: faster answers for processor time."""


class Keeper:
    """Keeps one process alive, from a thread of its own: a process dies with the thread that started it.

    Args:
        version_dir: the version to serve.
        manifest: of it; a process that opened another one is refused.
        name: of the instance, for errors, events and the thread.
        options: how to run it.
        observer: told of everything that happens.
    """

    def __init__(
        self, version_dir: Path, manifest: Manifest, name: str, options: ProcessOptions, observer: Observer
    ) -> None:
        self._version_dir = version_dir
        self._manifest = manifest
        self._digest = digest_bytes(encode_manifest(manifest))
        self._name = name
        self._options = options
        self._observer = observer
        self._settled = threading.Event()  # the first start succeeded, or none will
        self._was_ready = False
        self._closing = threading.Event()
        self._child: Child | None = None
        self._next_try: float | None = None
        self.line: Line | None = None
        """To the process that is ready; None while there is none."""
        self.signer: Signer | None = None
        """Who signed the version, as the process found."""
        self.failure: TailorbirdError | None = None
        """Why there will be no further start. For the log, not for clients."""
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Block until the process is ready for the first time.

        Raises:
            BundleError: the version is altered, not trusted, or not for this machine.
            BackendError: its process does not start; it has been tried several times.
            NotReady: it was closed meanwhile.
        """
        self._settled.wait()
        if not self._was_ready:
            raise self.failure or self.refusal()

    def refusal(self) -> NotReady:
        """What to tell a client while there is no process."""
        again = "send the request again in a moment"
        if self._closing.is_set():
            return NotReady(f"{self._name} is being put away", hint=again)
        if self.failure is not None:
            return NotReady(f"{self._name} is down: its process does not start", hint="the server's log has the reason")
        if (due := self._next_try) is None:
            return NotReady(f"{self._name} is starting", hint=again)
        left = max(0.1, due - time.monotonic())
        return NotReady(f"{self._name} crashed and is started again", hint=f"send the request again in {left:.1f} s")

    def close(self) -> None:
        """Let the process answer what it was sent, end it, and wait for that; never in the thread of the loop."""
        self._closing.set()
        line = self.line
        while line is not None and line is self.line and line.outstanding and line.served:
            time.sleep(_LOOK_S)
        if (child := self._child) is not None:
            child.dismiss() if self.line is not None else child.kill()
            self._thread.join(self._options.grace_s)
            child.kill()
        self._thread.join()
        if child is not None and not (line is not None and line.served):  # no loop will do it
            child.close()

    def _keep(self) -> None:
        backoff = Backoff(self._options.starts)
        while not self._closing.is_set():
            end = self._life()
            wait_s = self._wait_after(end, backoff)
            end.tell()  # only now, so that a refusal knows of the next try
            if wait_s is None:
                break
            self._tell(Happening.RESTARTING, seconds=wait_s)
            self._closing.wait(wait_s)
            self._next_try = None
        self._settled.set()

    def _wait_after(self, end: _End, backoff: Backoff) -> float | None:
        """Seconds until the next start; None for no further one."""
        if self._closing.is_set():
            return None
        wait_s = None if end.refused and not self._was_ready else backoff.after(end.lived_s)
        if wait_s is None:
            self.failure = end.error
            self._tell(Happening.GAVE_UP, cause=end.error.message)
        else:
            self._next_try = time.monotonic() + wait_s
        return wait_s

    def _life(self) -> _End:
        """One process, from its start to its end."""
        child: Child | None = None
        try:
            child = Child(self._name, self._options.segment_bytes)
            started = time.monotonic()
            self._child = child
            self._tell(Happening.STARTED, pid=child.pid)
            end = self._started(child, started)
        except TailorbirdError as error:
            end = _End(None, error)
        except Exception as error:  # the thread that watches must not die
            end = _End(None, BackendError(f"{self._name} cannot start", got=f"{type(error).__name__}: {error}"))
        if child is not None and end.lived_s is None:
            self._mourn(child, end, time.monotonic() - started)
            child.close()
        self._child = None
        return end

    def _started(self, child: Child, started: float) -> _End:
        answer = self._answer(child)
        if isinstance(answer, Failed):
            return _End(None, answer.fault.rebuilt(), refused=True)
        if answer.manifest != self._digest:
            raise BackendError(f"{self._name} opened another version than it was told", got=answer.manifest,
                               expected=self._digest, hint="versions must not change once published")  # fmt: skip
        self.signer = answer.signer
        ready = time.monotonic()
        line = self.line = Line(child, self._manifest.signature, self._name, self._options.run_limit_s)
        self._was_ready = True
        self._settled.set()
        self._tell(Happening.READY, pid=child.pid, seconds=ready - started)
        child.wait()
        self.line = None
        error, lived_s = child.cause(), time.monotonic() - ready
        end = _End(lived_s, error, tell=lambda: line.lost(self._refusal_or(error), child.close))
        self._mourn(child, end, lived_s)
        return end

    def _refusal_or(self, error: TailorbirdError) -> TailorbirdError:
        return self.refusal() if self._closing.is_set() else error

    def _answer(self, child: Child) -> Ready | Failed:
        """What the process says once it has opened the engine; raises :class:`BackendError` if it says nothing."""
        options = self._options
        if self._closing.is_set():
            raise BackendError(f"{self._name} is being put away")
        with contextlib.suppress(OSError):  # it has ended already, which the wait finds
            child.control.send(encode(Start(str(self._version_dir), options.allow_unsigned, options.cores,
                                            options.segment_bytes, options.spin_s)))  # fmt: skip
        woken = child.wait(options.start_limit_s, message=True)
        if woken is Wake.LATE:
            child.condemn(BackendError(f"{self._name} took too long to start",
                                       expected=f"ready within {options.start_limit_s:g} s"))  # fmt: skip
        message = _received(child) if woken is Wake.MESSAGE else b""
        if not message:
            if child.wait(options.grace_s) is Wake.LATE:
                child.condemn(BackendError(f"{self._name} closed its line"))
            raise child.cause()
        try:
            answer: Ready | Failed = at_start.decode(message)
        except msgspec.MsgspecError as error:
            raise BackendError(f"{self._name} gave an answer that cannot be", got=error) from error
        return answer

    def _mourn(self, child: Child, end: _End, seconds: float) -> None:
        if self._closing.is_set():
            self._tell(Happening.ENDED, pid=child.pid, seconds=seconds)
            return
        self._tell(Happening.CRASHED, pid=child.pid, seconds=seconds, cause=end.error.message, words=child.words())

    def _tell(self, what: Happening, **facts: Any) -> None:
        with contextlib.suppress(Exception):  # whoever watches must not end what is watched
            self._observer(Event(instance=self._name, what=what, **facts))


def _received(child: Child) -> bytes:
    try:
        return child.control.recv(MESSAGE_BYTES)
    except OSError:  # it ended with a message unread
        return b""


class _End(msgspec.Struct, frozen=True):
    """How a process ended."""

    lived_s: float | None
    """Seconds it was ready; None when it never was."""
    error: TailorbirdError
    refused: bool = False
    """It said itself why it does not serve this version."""
    tell: Callable[[], None] = lambda: None
    """Answers the requests that it leaves behind."""
