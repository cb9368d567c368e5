"""The server put together: load, listen, drain."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import tailorbird
from tailorbird.domain.errors import TailorbirdError
from tailorbird.service import journal
from tailorbird.service.http import HttpService
from tailorbird.service.limits import Limits
from tailorbird.service.listener import Listener, bind
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub
from tailorbird.serving.loading import load_hub

Ready = Callable[[str], None]


def serve(  # noqa: PLR0913 - each is a setting of the server
    source: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    ready: Ready | None = None,
    channel: str = "",
    allow_unsigned: bool = False,
) -> None:
    """Serve a repository or a bundle until SIGTERM or SIGINT, then answer what was accepted and return.

    Args:
        source: a repository (a folder, or ``s3://bucket/prefix``), a ``.engine`` bundle, or a version's or model's
            folder.
        host: address to listen on; the default is reachable from this machine only.
        port: 0 takes any free one.
        limits: what a request may be.
        ready: called with the base URL once requests are taken; the default writes it to stderr.
        channel: which version of each model of a repository; see :func:`tailorbird.serving.loading.load_hub`.
        allow_unsigned: for local experiments: serve models without a trusted signature too, and say so in the
            log, on the status page and in the server's metadata.

    Raises:
        UsageError: there is nothing to serve, or the address is none of this machine's.
        TailorbirdError: the one bundle failed to load, or the port is taken.
    """
    bound = bind(host, port)  # first, so that a taken port is known before minutes of loading
    try:
        hub = load_hub(source, channel=channel, allow_unsigned=allow_unsigned)
        listener = Listener(_service(hub, limits, allow_unsigned), bound, ready or _announce(hub))
        with _signals_end_in_peace():
            _run(listener, hub)
    finally:
        bound.close()


@contextmanager
def running_server(
    source: Path | str | Hub,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: Limits | None = None,
    allow_unsigned: bool = False,
) -> Iterator[str]:
    """A server in a thread of this process; yields its base URL, and drains it on the way out.

    Raises:
        TailorbirdError: as :func:`serve`.
    """
    bound = bind(host, port)
    try:
        hub = source if isinstance(source, Hub) else load_hub(source, allow_unsigned=allow_unsigned)
        started: Future[str] = Future()
        listener = Listener(_service(hub, limits, allow_unsigned), bound, started.set_result)
        thread = threading.Thread(target=_run_for, args=(listener, hub, started), name="tailorbird server")
        thread.start()
        try:
            yield started.result()
        finally:
            listener.should_exit = True
            thread.join()
    finally:
        bound.close()


def _service(hub: Hub, limits: Limits | None, allow_unsigned: bool) -> HttpService:
    _report_failures(hub)
    if allow_unsigned:
        _warn_of_unsigned(hub)
    return HttpService(DataPlane(hub, tailorbird.__version__, allow_unsigned=allow_unsigned), limits)


def _run(listener: Listener, hub: Hub) -> None:
    try:
        listener.serve_until_told()
    finally:
        hub.close()


def _run_for(listener: Listener, hub: Hub, started: Future[str]) -> None:
    """In a thread nobody sees an exception: whoever waits for the start gets it."""
    try:
        _run(listener, hub)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)
    finally:
        if not started.done():
            started.set_exception(TailorbirdError("the server ended before it started"))


def _announce(hub: Hub) -> Ready:
    served = ", ".join(f"{model.name}/{model.version}" for model in hub.loaded) or "no model"

    def announce(url: str) -> None:
        sys.stderr.write(f"serving {served} on {url}\n")
        sys.stderr.flush()

    return announce


def _report_failures(hub: Hub) -> None:
    for model in hub.failed:
        journal.record("model failed to load", model=model.name, version=model.version, reason=model.reason)


def _warn_of_unsigned(hub: Hub) -> None:
    for model in hub.loaded:
        if model.signer is None:
            journal.record("model without a trusted signature is served", level="warning", model=model.name,
                           version=model.version, allowed_by="--allow-unsigned")  # fmt: skip


@contextmanager
def _signals_end_in_peace() -> Iterator[None]:
    """A drained uvicorn raises the signal once more; here that must not end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
