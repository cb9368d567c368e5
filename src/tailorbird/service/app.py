"""The server put together: load, listen, drain."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socket import socket

import tailorbird
from tailorbird.domain.errors import TailorbirdError
from tailorbird.service.beside import grpc_beside, metrics_beside
from tailorbird.service.capacity import within_reach
from tailorbird.service.doors import Doors
from tailorbird.service.observe import journal
from tailorbird.service.observe.host_metrics import Host
from tailorbird.service.observe.metrics import Metrics
from tailorbird.service.observe.rollout_metrics import change_families
from tailorbird.service.observe.traffic_metrics import traffic_families
from tailorbird.service.observe.witness import witnesses_of
from tailorbird.service.observing import Observers, observing
from tailorbird.service.options import ServerOptions
from tailorbird.service.web.http import HttpService
from tailorbird.service.web.listener import Listener, bind
from tailorbird.service.web.shared_memory import regions_of
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub
from tailorbird.serving.loading import load
from tailorbird.serving.processes.events import Event, Happening
from tailorbird.serving.rollout.controller import Controller
from tailorbird.serving.rollout.record import Change, What

Ready = Callable[[str], None]

_BAD = {Happening.CRASHED, Happening.GAVE_UP}
_WORRYING = {What.FAILED, What.STOPPED, What.REFUSED, What.BLIND}
_EVENTS = {
    What.FAILED: "model failed to load",
    What.REFUSED: "model has no room",
    What.BLIND: str(What.BLIND),
    What.SIGHTED: str(What.SIGHTED),
}


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
    options = within_reach(options or ServerOptions(), own_process=True)
    doors = Doors(options)  # first, so that a wrong file or a taken port is known before minutes of loading
    bound = bind(options.host, options.port)
    try:
        doors.open(bound)
        with observing(options) as observers:
            controller = _loaded(source, options)
            _spare_the_collector()
            with _signals_end_in_peace(), _running(controller):
                ready = ready or _announce(controller.hub)
                _listener(controller, bound, options, ready, observers, doors).serve_until_told()
    finally:
        doors.close()
        bound.close()


def _spare_the_collector() -> None:
    """What is there now stays: to look through tens of thousands of objects takes longer than many requests do.

    For a process that does nothing but serve; in a program's own the heap is not ours.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def running_server(source: Path | str | Hub, options: ServerOptions | None = None) -> Iterator[str]:
    """A server in a thread of this process; yields its base URL, and drains it on the way out.

    Args:
        source: as of :func:`serve`, or a hub, which is closed as well.
        options: as of :func:`serve`; by default it takes a free port and HTTP alone.

    Raises:
        TailorbirdError: as :func:`serve`.
    """
    options = within_reach(options or ServerOptions(port=0, grpc_port=0), own_process=False)
    doors = Doors(options)
    bound = bind(options.host, options.port)
    try:
        doors.open(bound)
        controller = _loaded(source, options)
        started: Future[str] = Future()
        with observing(options) as observers, _running(controller):
            listener = _listener(controller, bound, options, started.set_result, observers, doors)
            thread = threading.Thread(target=_run_for, args=(listener, started), name="tailorbird server")
            thread.start()
            try:
                yield started.result()
            finally:
                listener.should_exit = True
                thread.join()
    finally:
        doors.close()
        bound.close()


def _loaded(source: Path | str | Hub, options: ServerOptions) -> Controller:
    if isinstance(source, Hub):
        return Controller(source)
    return load(source, options.models, options.control, watch=_journal_event, told=_journal_change)


def _listener(
    controller: Controller,
    bound: socket,
    options: ServerOptions,
    ready: Ready,
    observers: Observers,
    doors: Doors,
) -> Listener:
    hub = controller.hub
    unsigned = options.models.allow_unsigned
    _report_failures(controller)
    if unsigned:
        _warn_of_unsigned(hub)
    plane = DataPlane(hub, tailorbird.__version__, allow_unsigned=unsigned, recorder=observers.recorder)
    plane.regions = regions_of(options)
    changes, traffic = partial(change_families, controller), partial(traffic_families, plane.rollouts)
    metrics = Metrics(plane.numbers, Host().families, observers.families, changes, traffic, doors.families).text
    witnesses = witnesses_of(access_log=options.access_log, telemetry=observers.telemetry)
    beside = [
        *grpc_beside(plane, options, witnesses, doors.public(plane)),
        *metrics_beside(metrics, options, doors.metrics()),
        *doors.administration(plane, metrics),
        _Loads(controller),
    ]
    app = HttpService(
        plane,
        options.limits,
        metrics if options.metrics_port is None else None,
        entrance=doors.public(plane),
        witnesses=witnesses,
    )
    return Listener(app, bound, ready, beside=beside, limits=options.limits, tls=doors.tls)


class _Loads:
    """What is being loaded when the server begins to drain would serve nobody, and would hold its end up."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def start(self) -> None:
        """They go on from the start."""

    async def drain(self, _: float) -> None:
        """They end here."""
        self._controller.stop()


@contextmanager
def _running(controller: Controller) -> Iterator[None]:
    try:
        controller.start()
        yield
    finally:
        controller.close()


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


def _journal_change(change: Change) -> None:
    """What happens to models: why one failed is in the log and nowhere else."""
    facts = {name: value for name in ("model", "version", "reason") if (value := getattr(change, name))}
    if change.what in _WORRYING:
        facts["level"] = "warning"
    if change.seconds is not None:
        facts["seconds"] = round(change.seconds, 3)
    journal.record(_EVENTS.get(change.what, f"model {change.what}"), **facts)


def _announce(hub: Hub) -> Ready:
    served = ", ".join(f"{model.name}/{model.version}" for model in hub.loaded) or "no model"

    def announce(url: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr is full or closed: serve all the same
            sys.stderr.write(f"serving {served} on {url}\n")
            sys.stderr.flush()

    return announce


def _report_failures(controller: Controller) -> None:
    """Of a hub that somebody else made; the controller reports its own."""
    told = {(change.model, change.version) for change in controller.record.recent}
    for model in controller.hub.failed:
        if (model.name, model.version) not in told:
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
