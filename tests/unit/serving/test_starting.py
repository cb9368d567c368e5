"""Starting: how many instances, in which isolation, and what is seen of their processes."""

import asyncio
import contextlib
import os
import signal
import time
from contextlib import ExitStack

import pytest

from tailorbird.domain.errors import BackendError, BundleError, NotReady, UsageError
from tailorbird.serving import starting
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.hub import Hub
from tailorbird.serving.loading import load_hub
from tailorbird.serving.processes.events import Happening
from tailorbird.serving.starting import HubOptions, Isolation, Started, instances_of, put_in_service
from tests import bundles


def test_as_many_instances_as_the_build_recommends_and_the_machine_has_cores_for(monkeypatch):
    monkeypatch.setattr(starting.os, "sched_getaffinity", lambda _: range(4))
    for recommended, found in ((1, 1), (3, 3), (64, 4), (0, 1)):
        assert instances_of(bundles.candidate(instances=recommended), HubOptions()) == found
    assert instances_of(bundles.candidate(instances=3), HubOptions(instances=7)) == 7
    with pytest.raises(UsageError, match=r"^the number of instances is wrong: got 0, expected 1 or more$"):
        HubOptions(instances=0)


@pytest.mark.parametrize("isolation", list(Isolation))
def test_each_instance_is_an_executor_of_one_batcher(tmp_path, isolation):
    version = bundles.version(tmp_path / "1")
    seen = []
    options = HubOptions(isolation=isolation, instances=2, batching=BatchOptions(preserve_ordering=True))
    what = Started("tiny", 7, version)
    model = put_in_service(what, options, lambda *about: seen.append(about), ExitStack())
    assert [slot.alive for slot in model.instance._slots.all] == [True, True]
    assert model.in_order
    asyncio.run(model.instance.run(bundles.INPUTS))
    assert (model.statistics.runs, model.statistics.rows) == (1, 2)
    model.close()
    assert {(name, number) for name, number, _ in seen} == ({("tiny", 7)} if isolation is Isolation.PROCESS else set())
    assert not model.alive


@pytest.mark.parametrize("isolation", list(Isolation))
def test_what_does_not_start_gives_everything_back(tmp_path, isolation):
    version = bundles.version(tmp_path / "1")
    next(version.glob("model.*")).write_bytes(b"altered")
    released, resources = [], ExitStack()
    resources.callback(released.append, True)
    with pytest.raises(BundleError):
        put_in_service(Started("tiny", 1, version), HubOptions(isolation=isolation), lambda *_: None, resources)
    assert released == [True]


def test_one_models_crashes_are_counted_told_and_touch_no_other(tmp_path):
    version, seen = bundles.version(tmp_path / "1"), []
    one, other = (
        put_in_service(Started(name, 1, version), HubOptions(), lambda *about: seen.append(about), ExitStack())
        for name in ("one", "other")
    )
    hub = Hub([one, other])

    async def main():
        victim = next(event.pid for name, _, event in seen if name == "one" and event.what is Happening.READY)
        os.kill(victim, signal.SIGKILL)
        while one.alive:
            await asyncio.sleep(0.001)
        assert (hub.is_ready("one"), hub.is_ready("other")) == (False, True)
        with pytest.raises(NotReady, match=r"^model 'one' version 1 is not ready: nothing is alive to run it"):
            await one.instance.run(bundles.INPUTS)
        await other.instance.run(bundles.INPUTS)
        while not one.alive:
            await asyncio.sleep(0.01)
        await one.instance.run(bundles.INPUTS)

    asyncio.run(main())
    assert (one.statistics.crashes, other.statistics.crashes) == (1, 0)
    hub.close()
    words = [event.what for name, _, event in seen if name == "one"]
    assert words == ["started", "ready", "crashed", "restarting", "started", "ready", "ended"]


def test_models_start_side_by_side(tmp_path, monkeypatch):
    """Each waits for the other: one after another would wait for ever."""
    from threading import Barrier

    barrier, start = Barrier(2, timeout=20), starting.start_instances
    monkeypatch.setattr(starting, "start_instances", lambda *a, **k: (barrier.wait(), start(*a, **k))[1])
    for name in ("one", "other"):
        bundles.version(tmp_path / name / "1")
    with contextlib.closing(load_hub(tmp_path)) as hub:
        assert (len(hub.loaded), hub.failed) == (2, ())


def test_a_process_that_never_starts_is_a_row_of_its_own(tmp_path, monkeypatch):
    def crash(folder, *arguments, **options):
        if folder.parent.name == "bad":
            raise BackendError("bad instance 0 crashed", got="SIGSEGV")
        return start(folder, *arguments, **options)

    start = starting.start_instances
    monkeypatch.setattr(starting, "start_instances", crash)
    for name in ("bad", "good"):
        bundles.version(tmp_path / name / "1")
    began = time.monotonic()
    with contextlib.closing(load_hub(tmp_path)) as hub:
        assert [(one.name, one.reason) for one in hub.failed] == [("bad", "bad instance 0 crashed: got SIGSEGV")]
        assert [one.name for one in hub.loaded] == ["good"]
        assert time.monotonic() - began < 60
