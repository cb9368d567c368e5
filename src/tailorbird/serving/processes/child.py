"""An instance's process: opens one engine, then runs it on what the server puts into shared memory.

It imports no web server and speaks with nobody but the server that started it, and dies with that one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import msgspec

from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import BackendError, TailorbirdError
from tailorbird.domain.manifest import encode_manifest
from tailorbird.repository.load import LoadedEngine, load_version
from tailorbird.serving.processes.memory import Segment
from tailorbird.serving.processes.messages import (
    MESSAGE_BYTES,
    Done,
    Failed,
    Fault,
    Ready,
    Run,
    Start,
    encode,
    to_process,
    to_run,
)
from tailorbird.serving.processes.tensors import Layout, Reader, check_outputs
from tailorbird.serving.warm import warm_up

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(line: int, inputs: int, outputs: int, parent: int) -> None:
    """Serve until the server closes the line.

    Args:
        line: descriptor of a ``SOCK_SEQPACKET`` socket.
        inputs: descriptor of the segment that the server writes.
        outputs: descriptor of the segment that this process writes.
        parent: process id of the server.
    """
    _settle_in(parent)
    with socket.socket(fileno=line) as control:
        message = control.recv(MESSAGE_BYTES)
        if not message:  # the server gave up already
            return
        start = to_process.decode(message)
        engine = _opened(start, control)
        if engine is None:
            return
        segments = (Segment(inputs, start.segment_bytes), Segment(outputs, start.segment_bytes))
        manifest = digest_bytes(encode_manifest(engine.manifest))
        control.sendall(encode(Ready(manifest, engine.signer)))
        Service(control, engine, segments, start.spin_s).serve()
        with contextlib.suppress(TailorbirdError):
            engine.close()


def _settle_in(parent: int) -> None:
    """Ctrl-C and a service manager's SIGTERM to everybody are the server's to hear: it drains, then ends this process.

    A server killed by SIGKILL cannot do that, so the kernel is asked to.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _opened(start: Start, control: socket.socket) -> LoadedEngine | None:
    try:
        if start.cores:  # before the runtime starts its threads, which inherit it
            os.sched_setaffinity(0, start.cores)
        engine = load_version(Path(start.version_dir), allow_unsigned=start.allow_unsigned)
        warm_up(engine)
    except BaseException as error:
        control.sendall(encode(Failed(0, _fault(error, "the engine could not be opened"))))
        return None
    return engine


class Service:
    """The loop of a process that is ready.

    Args:
        control: the line to the server.
        engine: open and warm.
        segments: of inputs and of outputs.
        spin_s: seconds of looking for the next run before sleeping: a process that sleeps takes longer to wake.
    """

    def __init__(
        self, control: socket.socket, engine: LoadedEngine, segments: tuple[Segment, Segment], spin_s: float
    ) -> None:
        self._control = control
        self._engine = engine
        self._inputs = Reader(engine.manifest.signature.inputs, segments[0])
        self._outputs = segments[1]
        self._spin_s = spin_s
        self._buffer = bytearray(MESSAGE_BYTES)

    def serve(self) -> None:
        """Answer runs until the server closes the line."""
        view = memoryview(self._buffer)
        while count := self._receive():
            run = to_run.decode(view[:count])
            try:
                reply: Done | Failed = self._done(run)
            except BaseException as error:  # whatever a vendor raises is this run's, not the process's
                reply = Failed(run.number, _fault(error, "the instance's process failed"))
            self._control.sendall(encode(reply))
            del reply

    def _done(self, run: Run) -> Done:
        signature = self._engine.manifest.signature
        outputs = self._engine.run(self._inputs.read(run.tensors, run.extent))
        check_outputs(signature.outputs, outputs)
        layout = Layout(signature.outputs, outputs)
        layout.write(self._outputs)
        return Done(run.number, layout.extent, layout.places)

    def _receive(self) -> int:
        """Bytes of the next message, in the buffer; 0 at the end."""
        if self._spin_s:
            end = time.perf_counter() + self._spin_s
            while time.perf_counter() < end:
                with contextlib.suppress(BlockingIOError):
                    return self._control.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        return self._control.recv_into(self._buffer)


def _fault(error: BaseException, what: str) -> Fault:
    if not isinstance(error, TailorbirdError):
        traceback.print_exc()  # for the server's log
        error = BackendError(what, got=f"{type(error).__name__}: {error}")
    return Fault.of(error)


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:5]))
    except (OSError, msgspec.MsgspecError) as failure:  # the server is gone, or is not what started this
        sys.stderr.write(f"{failure}\n")
        os._exit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a vendor's static destructors have nothing to save, and some crash or hang
