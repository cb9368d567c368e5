"""What is fuzzed: the real service over real batchers and threads, in this process, without a socket."""

import asyncio
import contextlib
import io
import sys
from collections.abc import Awaitable, Iterator
from functools import cache
from typing import Any, TypeVar

import uvloop

from tailorbird.domain.dtype import DType
from tailorbird.service.limits import Limits
from tailorbird.service.rpc.servicer import Servicer
from tailorbird.service.web.http import HttpService
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub
from tests.protocol.engines import echo_model, fake_model

LIMITS = Limits(body_bytes=1 << 16, elements=1 << 14, json_elements=1 << 12, buffered_bytes=1 << 18)
SECONDS = 10.0
"""For one case. A machine that many share pauses now and then, so no tighter."""

T = TypeVar("T")


class Finding(AssertionError):
    """A case that shows a fault of ours."""


class World:
    """One service and its event loop."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(self._unhandled)
        self.hub = Hub([fake_model("tiny"), echo_model("echo", DType.FP32, ("N", 2)), echo_model("text", DType.BYTES),
                        *(echo_model(str(dtype).lower(), dtype) for dtype in DType)])  # fmt: skip
        self.plane = DataPlane(self.hub, "1.2.3")
        self.app = HttpService(self.plane, LIMITS, lambda: b"# metrics\n")
        self.servicer = Servicer(self.plane, LIMITS)
        self.faults: list[str] = []

    def do(self, work: Awaitable[T]) -> T:
        """Run it to its end; a fault that nobody else would see is a finding, too."""
        try:
            found = self.loop.run_until_complete(asyncio.wait_for(work, SECONDS))
        except TimeoutError:
            raise Finding(f"no end within {SECONDS:g} s") from None
        if self.faults:
            raise Finding(self.faults.pop())
        return found

    def _unhandled(self, _: Any, context: dict[str, Any]) -> None:
        self.faults.append(f"unhandled: {context.get('message')}: {context.get('exception')!r}")


@cache
def world() -> World:
    """The one that all targets of a process share."""
    return World()


@contextlib.contextmanager
def journal() -> Iterator[io.StringIO]:
    """What the server logs meanwhile."""
    said, before = io.StringIO(), sys.stderr
    sys.stderr = said
    try:
        yield said
    finally:
        sys.stderr = before
