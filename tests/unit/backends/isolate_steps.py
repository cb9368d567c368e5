"""What the child processes of ``test_isolate`` run."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import msgspec
import numpy as np

from tailorbird.domain.errors import InputError, ModelNotFound


class Given(msgspec.Struct):
    number: int = 0
    text: str = ""


class Back(msgspec.Struct):
    number: int
    text: str


def echo(given: Given) -> Back:
    return Back(given.number, given.text)


def pid(given: Given) -> Back:
    return Back(os.getpid(), str(os.getpgid(0)))


def segfault(given: Given) -> None:
    sys.stdout.write("about to touch address 0\n")
    ctypes.string_at(0)


def kill_itself(given: Given) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(given: Given) -> None:
    sys.exit(given.number)


def leave_a_process_behind(given: Given) -> None:
    if os.fork() == 0:
        time.sleep(60)
    os._exit(given.number)


def close_everything_and_hang(given: Given) -> None:
    os.closerange(3, 100)
    time.sleep(60)


def fail(given: Given) -> None:
    raise ValueError(given.text)


def fail_of_memory(given: Given) -> None:
    raise MemoryError


def refuse(given: Given) -> None:
    raise InputError("input 'x' is odd", got=given.number, expected="even", hint="add one")


def find_no_model(given: Given) -> None:
    raise ModelNotFound("bret", ("bert",))


def hang(given: Given) -> None:
    time.sleep(60)


def allocate(given: Given) -> None:
    held = [np.ones(16 << 20, np.uint8) for _ in range(given.number // 16)]
    time.sleep(60)
    held.clear()


def flood(given: Given) -> Back:
    for _ in range(given.number):
        os.write(1, b"vendor says hello\n" * 100)
        os.write(2, b"vendor says oh no\n" * 100)
    return Back(given.number, "done")


def large(given: Given) -> Back:
    return Back(given.number, "x" * given.number)


def ask(given: Given) -> Back:
    return Back(0, input())


def start_a_process(given: Given) -> Back:
    return Back(subprocess.Popen(["sleep", "60"]).pid, "")


def where(given: Given) -> Back:
    return Back(0, "\n".join(sys.path))
