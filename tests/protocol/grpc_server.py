"""A gRPC server in a thread of its own, with an event loop of the kind that the HTTP service runs in."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager

import uvloop

from tailorbird.service.rpc.listener import GrpcListener
from tailorbird.serving.dataplane import DataPlane

GRACE = 10.0


class Running(threading.Thread):
    """The server's thread."""

    def __init__(self, hub, grace, options):
        super().__init__(name="gRPC server")
        self.started = Future()
        self.address = ""
        self._plane = DataPlane(hub, "1.2.3")
        self._grace = grace
        self._options = options

    @property
    def held(self):
        """Bytes of messages whose requests live."""
        return self._listener._servicer._held

    def drain(self):
        """Begin to drain, from any thread."""
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._told.set)

    def run(self):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self):
        self._listener = GrpcListener(self._plane, "127.0.0.1", 0, **self._options)
        self._told = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await self._listener.start()
        self.address = self._listener.address
        self.started.set_result(None)
        await self._told.wait()
        await self._listener.drain(self._grace)


@contextmanager
def grpc_server(hub, limits=None, grace=GRACE, **options):
    """Yields a :class:`Running`; drained, and its models closed, on the way out."""
    running = Running(hub, grace, {"limits": limits, **options})
    running.start()
    running.started.result(10)
    try:
        yield running
    finally:
        running.drain()
        running.join()
        hub.close()
