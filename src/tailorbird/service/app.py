"""The server put together: load, listen, drain."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import tailorbird
from tailorbird.domain.errors import TailorbirdError
from tailorbird.service import journal
from tailorbird.service.beside import grpc_beside, metrics_beside
from tailorbird.service.http import HttpService
from tailorbird.service.listener import Listener, bind
from tailorbird.service.metrics import Metrics
from tailorbird.service.options import ServerOptions
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub
from tailorbird.serving.loading import load_hub
from tailorbird.serving.processes.events import Event, Happening

Ready = Callable[[str], None]

_BAD = {Happening.CRASHED, Happening.GAVE_UP}


def serve(source: Path | str, options: ServerOptions | None = None, ready: Ready | None = None) -> None:
    """Serve a repository or a bundle until SIGTERM or SIGINT, then answer what was accepted and return.

    Args:
        source: a repository (a folder, or ``s3://bucket/prefix``), a ``.engine`` bundle, or a version's or model's
            folder.
        options: where and how.
        ready: called with the base URL once requests are taken; the default writes it to stderr.

    Raises:
        UsageError: there is nothing to serve, or the address is none of this machine's.
        TailorbirdError: the one bundle failed to load, or a port is taken.
    """
    options = options or ServerOptions()
    bound = bind(options.host, options.port)  # first, so that a taken port is known before minutes of loading
    try:
        hub = _loaded(source, options)
        with _signals_end_in_peace(), _closing(hub):
            _listener(hub, bound, options, ready or _announce(hub)).serve_until_told()
    finally:
        bound.close()


@contextmanager
def running_server(source: Path | str | Hub, options: ServerOptions | None = None) -> Iterator[str]:
    """A server in a thread of this process; yields its base URL, and drains it on the way out.

    Args:
        source: as of :func:`serve`, or a hub, which is closed as well.
        options: as of :func:`serve`; by default it takes a free port and HTTP alone.

    Raises:
        TailorbirdError: as :func:`serve`.
    """
    options = options or ServerOptions(port=0, grpc_port=0)
    bound = bind(options.host, options.port)
    try:
        hub = source if isinstance(source, Hub) else _loaded(source, options)
        started: Future[str] = Future()
        with _closing(hub):
            listener = _listener(hub, bound, options, started.set_result)
            thread = threading.Thread(target=_run_for, args=(listener, started), name="tailorbird server")
            thread.start()
            try:
                yield started.result()
            finally:
                listener.should_exit = True
                thread.join()
    finally:
        bound.close()


def _loaded(source: Path | str, options: ServerOptions) -> Hub:
    return load_hub(source, options.models, channel=options.channel, watch=_journal_event)


def _listener(hub: Hub, bound: socket, options: ServerOptions, ready: Ready) -> Listener:
    unsigned = options.models.allow_unsigned
    _report_failures(hub)
    if unsigned:
        _warn_of_unsigned(hub)
    plane = DataPlane(hub, tailorbird.__version__, allow_unsigned=unsigned)
    metrics = Metrics(plane.numbers).text
    beside = [*grpc_beside(plane, options), *metrics_beside(metrics, options)]
    app = HttpService(
        plane,
        options.limits,
        metrics if options.metrics_port is None else None,
        access_log=options.access_log,
    )
    return Listener(app, bound, ready, beside=beside, limits=options.limits)


@contextmanager
def _closing(hub: Hub) -> Iterator[None]:
    try:
        yield
    finally:
        hub.close()


def _run_for(listener: Listener, started: Future[str]) -> None:
    """In a thread nobody sees an exception: whoever waits for the start gets it."""
    try:
        listener.serve_until_told()
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)
    finally:
        if not started.done():
            started.set_exception(TailorbirdError("the server ended before it started"))


def _journal_event(model: str, version: int, event: Event) -> None:
    """What happens to instances' processes; their last words are in the log and nowhere else."""
    facts = {name: value for name in ("pid", "cause", "words") if (value := getattr(event, name))}
    if event.what in _BAD:
        facts["level"] = "warning"
    journal.record(f"instance {event.what}", model=model, version=version, instance=event.instance,
                   seconds=round(event.seconds, 3), **facts)  # fmt: skip


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
