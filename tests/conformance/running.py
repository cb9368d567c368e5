"""The whole suite against one server, which may end in the middle of it."""

import contextlib
import time
import urllib.request
from dataclasses import dataclass

from tests.conformance import clients, data, describing, extensions, requests  # noqa: F401 # they register checks
from tests.conformance.suite import CHECKS, seen

ENDED = "the server ends"


@dataclass(frozen=True)
class Findings:
    """What one server was seen to do."""

    server: str
    version: str
    seen: dict[str, str]
    """By the checks' keys."""


def run(start, told=lambda one, found: None):
    """Make every check.

    Args:
        start: a context manager that runs the server; entered again after a check that ended it.
        told: called with each check and what was seen.
    """
    found = {}
    with contextlib.ExitStack() as stack:
        server, doors = _open(stack, start)
        for one in CHECKS:
            found[one.key] = seen(doors, one)
            if _may_have_ended(found[one.key]) and not _answers(server):
                found[one.key] = ENDED
                stack.close()
                server, doors = _open(stack, start)
            told(one, found[one.key])
        return Findings(server.name, server.version, found)


def _open(stack, start):
    server = stack.enter_context(start())
    doors = server.doors()
    for door in doors.values():
        stack.callback(door.close)
    return server, doors


def _may_have_ended(words):
    return words == "UNAVAILABLE" or "Connect" in words or "timed out" in words


def _answers(server):
    """Whether it still answers; one that is ending may do so for a moment, or listen and say nothing."""
    time.sleep(1.5)
    try:
        with urllib.request.urlopen(f"http://{server.http}/v2/health/live", timeout=10):
            return True
    except OSError:
        return False
