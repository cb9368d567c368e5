"""The child's side of :mod:`tailorbird.backends.isolate`: read a call, run it, write the reply."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from typing import IO, Any, get_type_hints

import msgspec

from tailorbird.backends.isolate import Call, Reply
from tailorbird.domain.errors import StepError, TailorbirdError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(replies: int, parent: int, search_path: list[str]) -> None:
    """Answer calls from standard input on the file descriptor ``replies`` until the parent goes away."""
    sys.path[:0] = search_path
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(replies, "wb") as out, _calls() as calls:
        for line in calls:
            out.write(msgspec.json.encode(_answer(msgspec.json.decode(line, type=Call))) + b"\n")
            out.flush()


def _calls() -> IO[bytes]:
    """What came as standard input, which is then empty for the step: its questions must not eat the next call."""
    calls = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return calls


def _die_with(parent: int) -> None:
    """A parent killed by SIGKILL cannot clean up, so the kernel is asked to end this process too."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _answer(call: Call) -> Reply:
    try:
        function = _function(call.function)
        argument = msgspec.json.decode(call.argument, type=_argument_type(function))
        return Reply(result=msgspec.Raw(msgspec.json.encode(function(argument))))
    except TailorbirdError as error:
        return Reply(error=error.to_dict())
    except MemoryError:
        return Reply(error=StepError("the step ran out of memory").to_dict())
    except Exception as error:  # the parent must hear of every failure as a value
        traceback.print_exc()
        return Reply(error=StepError("the step failed", got=f"{type(error).__name__}: {error}").to_dict())


def _function(path: str) -> Callable[[Any], Any]:
    module, _, name = path.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function


def _argument_type(function: Callable[[Any], Any]) -> Any:
    hints = get_type_hints(function)
    return next(kind for name, kind in hints.items() if name != "return")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
