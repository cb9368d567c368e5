"""Starting: the instances of one version, in processes of their own or in threads of this one, behind a batcher."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path

import msgspec

from tailorbird.domain import bundle
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.errors import UsageError
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.manifest import Manifest
from tailorbird.repository import layout
from tailorbird.repository.load import LoadedEngine, load_version
from tailorbird.repository.machine import check_qualified
from tailorbird.repository.signing.trust import Signer
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.batching.batcher import Batcher
from tailorbird.serving.batching.executors import Executor
from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.instance import ThreadInstance
from tailorbird.serving.processes.events import Event, Happening
from tailorbird.serving.processes.process import start_instances
from tailorbird.serving.processes.supervise import ProcessOptions
from tailorbird.serving.statistics import VersionStatistics
from tailorbird.serving.warm import warm_up

Watch = Callable[[str, int, Event], None]
"""Told of a model, a version and what happened to one of its processes; from a thread of that process's keeper."""

Check = Callable[[Manifest, Batcher], None]
"""Tries a version that serves nobody yet, by the way that requests take; raises what is wrong with it."""

HANGS_S = 30.0
HANGS_TIMES = 20.0

_Started = tuple[Manifest, Signer | None, Sequence[Executor]]


class Isolation(StrEnum):
    """Where an engine runs."""

    PROCESS = "process"
    """In a process of its own: its crash or leak touches no other model, and it is started again."""
    THREAD = "thread"
    """In a thread of the server: the fastest way there, for a container with one model."""


class HubOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How models are put into service."""

    isolation: Isolation = Isolation.PROCESS
    instances: int | None = None
    """Of each version; None for as many as its build recommends, and this machine has cores for."""
    batching: BatchOptions = BatchOptions()
    allow_unsigned: bool = False
    """For local experiments; see :func:`tailorbird.repository.signing.trust.verified`."""

    def __post_init__(self) -> None:
        if self.instances is not None and self.instances < 1:
            raise UsageError("the number of instances is wrong", got=self.instances, expected="1 or more")


class Started(msgspec.Struct, frozen=True):
    """What is started: which version, out of which folder, under which name."""

    name: str
    version: int
    folder: Path

    @property
    def words(self) -> str:
        """How errors name it."""
        return f"model '{self.name}' version {self.version}"


def put_in_service(
    what: Started, options: HubOptions, watch: Watch, resources: ExitStack, check: Check | None = None
) -> LoadedModel:
    """Start a version's instances, warm, with a batcher in front of them.

    Args:
        what: the version. Its files are verified where they are loaded.
        options: how.
        watch: told of what happens to its processes.
        resources: what its folder lives by; released with the model, or here when it does not start.
        check: tries it before it is handed out; what that runs is in no statistics.

    Raises:
        UsageError: its name cannot be part of a URL.
        BundleError: it is altered, not trusted, or not for this machine.
        BackendError: the runtime refused it, or its process died each time it was started.
    """
    with resources:
        layout.model_name(what.name)
        statistics = VersionStatistics()
        start = _in_processes if options.isolation is Isolation.PROCESS else _in_threads
        manifest, signer, executors = start(what, options, partial(_seen, what, watch, statistics))
        with ExitStack() as undo:
            for executor in executors:
                undo.callback(executor.close)
            if check is not None:
                for executor in executors:
                    check(manifest, Batcher(manifest, [executor], name=what.words))
            batcher = Batcher(manifest, executors, options.batching, statistics.batch, what.words)
            undo.pop_all()
        return LoadedModel(
            name=what.name,
            version=what.version,
            manifest=manifest,
            instance=batcher,
            signer=signer,
            statistics=statistics,
            in_order=options.batching.preserve_ordering,
            release=resources.pop_all().close,
        )


def instances_of(candidate: Candidate, options: HubOptions) -> int:
    """How many instances: as asked, or as the build recommends, but no more than this machine has cores."""
    if options.instances is not None:
        return options.instances
    return max(1, min(candidate.instances, len(os.sched_getaffinity(0))))


def run_limit_s(table: Sequence[LatencyRow]) -> float:
    """Seconds after which a run hangs: many times the slowest one measured, and never little, as machines pause."""
    if not table:
        return ProcessOptions().run_limit_s
    return max(HANGS_S, HANGS_TIMES * max(row.latency.p99 for row in table) / 1e3)


def _in_processes(what: Started, options: HubOptions, observer: Callable[[Event], None]) -> _Started:
    manifest = bundle.read_manifest(what.folder)
    check_qualified(manifest)  # before a process is started for it; what is verified is checked again there
    count = instances_of(manifest.candidate, options)
    instances = start_instances(
        what.folder,
        count,
        what.words,
        options=ProcessOptions(allow_unsigned=options.allow_unsigned, run_limit_s=run_limit_s(manifest.latency)),
        observer=observer,
    )
    return instances[0].manifest, instances[0].signer, instances


def _in_threads(what: Started, options: HubOptions, _: Callable[[Event], None]) -> _Started:
    with ExitStack() as undo:
        first = _warm(what, options, undo)
        count = instances_of(first.manifest.candidate, options)
        engines = [first, *(_warm(what, options, undo) for _ in range(count - 1))]
        undo.pop_all()
    name = f"{what.words} instance"
    return first.manifest, first.signer, [ThreadInstance(one, f"{name} {n}") for n, one in enumerate(engines)]


def _warm(what: Started, options: HubOptions, undo: ExitStack) -> LoadedEngine:
    engine = load_version(what.folder, allow_unsigned=options.allow_unsigned)
    undo.callback(engine.close)
    warm_up(engine)
    return engine


def _seen(what: Started, watch: Watch, statistics: VersionStatistics, event: Event) -> None:
    if event.what is Happening.CRASHED:
        statistics.crash()
    with contextlib.suppress(Exception):  # whoever watches must not end what is watched
        watch(what.name, what.version, event)
