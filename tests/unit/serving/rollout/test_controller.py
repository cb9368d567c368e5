"""The controller over a real repository, with real engines in threads: what follows what, and what fails alone."""

import asyncio
import shutil
import threading
import time

import numpy as np
import pytest

from tailorbird.domain.errors import BundleError, ModelNotFound, NotReady, Overloaded, UsageError, VersionNotFound
from tailorbird.repository.opening import open_repository
from tailorbird.repository.store import LocalRepository
from tailorbird.serving import starting
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Asleep, Direction, State
from tailorbird.serving.loading import load
from tailorbird.serving.rollout import course as course_module
from tailorbird.serving.rollout.control import Channels, ControlOptions, Mode
from tailorbird.serving.rollout.record import What
from tailorbird.serving.starting import HubOptions, Isolation
from tests import bundles, object_storage
from tests.processes import eventually

THREADS = HubOptions(isolation=Isolation.THREAD, instances=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Versions of one model that differ, made once."""
    folder = tmp_path_factory.mktemp("made")
    return [
        bundles.version(folder / str(n), candidate=bundles.candidate(threads=n), ballast=200_000) for n in (1, 2, 3, 4)
    ]


@pytest.fixture
def store(tmp_path, made):
    """Version 1 of ``tiny``."""
    found = LocalRepository(tmp_path / "repository")
    found.publish(made[0])
    return found


@pytest.fixture
def control(store, request):
    """Makes controllers of that repository and closes them."""
    open_ones = []

    def make(mode=Mode.POLL, **options):
        told = []
        options.setdefault("keep_previous_s", 0)
        controller = load(store.root, THREADS, ControlOptions(mode=mode, **options), told=told.append)
        controller.told = told
        open_ones.append(controller)
        return controller

    yield make
    for controller in open_ones:
        controller.close()


def served(controller):
    return {model.name: sorted(controller.hub.loaded_versions(model.name)) for model in controller.hub.loaded}


def happened(controller, what):
    return [(change.model, change.version) for change in controller.told if change.what is what]


def ask(controller, name="tiny", version=None):
    """A real run through the version's instance."""
    model = controller.hub.get(name, version)
    outputs = asyncio.run(model.instance.run(bundles.INPUTS))
    np.testing.assert_allclose(outputs["y"], bundles.expected(), rtol=1e-5, atol=1e-6)
    return model.version


def altered(version_dir):
    """Damage an engine: it does not verify any more."""
    (version_dir / "ballast.bin").write_bytes(b"altered")


class TestPoll:
    def test_a_new_version_takes_over_and_the_old_one_goes(self, store, made, control):
        controller = control()
        old = controller.hub.get("tiny")
        assert controller.hub.direction("tiny") == Direction(1)
        store.publish(made[1])
        controller.follow()
        eventually(lambda: controller.hub.get("tiny").version == 2)
        eventually(lambda: served(controller) == {"tiny": [2]})
        assert ask(controller) == 2
        eventually(lambda: not old.alive)
        eventually(lambda: controller.hub.versions("tiny") == (2,))
        assert happened(controller, What.LIVE) == [("tiny", 1), ("tiny", 2)]
        assert happened(controller, What.PUT_AWAY) == [("tiny", 1)]

    def test_promote_and_rollback(self, store, made, control):
        store.publish(made[1])
        store.promote("tiny", 1, "production")
        controller = control(keep_previous_s=60)
        assert ask(controller) == 1
        store.promote("tiny", 2, "production")
        controller.follow()
        eventually(lambda: controller.hub.get("tiny").version == 2)
        assert served(controller) == {"tiny": [1, 2]}  # warm, for a rollback
        before = controller.hub.get("tiny", 1)
        store.rollback("tiny", "production")
        controller.follow()
        eventually(lambda: controller.hub.get("tiny").version == 1)
        assert controller.hub.get("tiny") is before
        assert controller.record.counts["tiny", What.LOADED] == 2

    def test_the_version_before_is_kept_for_its_time(self, store, made, control):
        controller = control(keep_previous_s=0.3, poll_s=0.05)
        controller.start()
        store.publish(made[1])
        eventually(lambda: controller.hub.get("tiny").version == 2)
        assert 1 in controller.hub.loaded_versions("tiny")
        eventually(lambda: served(controller) == {"tiny": [2]})

    def test_retire_is_followed(self, store, made, control):
        store.publish(made[1])
        controller = control()
        assert ask(controller) == 2
        store.retire("tiny", 2)
        controller.follow()
        eventually(lambda: controller.hub.get("tiny").version == 1)

    def test_a_new_model_and_one_that_goes(self, store, made, control):
        controller = control()
        store.publish(made[1], "other")
        controller.follow()
        eventually(lambda: "other" in served(controller))
        assert ask(controller, "other") == 1
        store.retire("tiny", 1)
        controller.follow()
        eventually(lambda: controller.hub.models == ("other",))
        with pytest.raises(ModelNotFound):
            controller.hub.get("tiny")
        assert controller.hub.ready

    def test_an_empty_repository_waits_for_its_first_model(self, tmp_path, made):
        store = LocalRepository(tmp_path / "empty")
        store.root.mkdir()
        controller = load(store.root, THREADS, ControlOptions(mode=Mode.POLL, poll_s=0.05))
        try:
            assert (controller.hub.models, controller.hub.ready) == ((), True)
            controller.start()
            store.publish(made[0])
            eventually(lambda: controller.hub.models == ("tiny",) and controller.hub.is_ready("tiny"))
        finally:
            controller.close()

    def test_by_default_an_empty_repository_is_a_mistake(self, tmp_path):
        with pytest.raises(UsageError, match=r"^no model in "):
            load(tmp_path, THREADS, ControlOptions())

    def test_only_what_changed_is_read(self, store, control, monkeypatch):
        controller = control()
        time.sleep(0.01)
        monkeypatch.setattr("tailorbird.serving.rollout.watch._SETTLED_NS", 0)
        controller.follow()
        looks = []
        look = controller._place.look
        monkeypatch.setattr(controller._place, "look", lambda: looks.append(1) or look())
        for _ in range(10):
            controller.follow()
        assert not looks
        store.promote("tiny", 1, "production")
        controller.follow()
        assert looks


class TestFailures:
    def test_the_old_version_goes_on_where_the_new_one_fails(self, store, made, control):
        controller = control()
        altered(store.version_dir("tiny", store.publish(made[1])))
        controller.follow()
        eventually(lambda: controller.hub.failed)
        assert ask(controller) == 1
        (failed,) = controller.hub.failed
        assert (failed.name, failed.version) == ("tiny", 2)
        assert "ballast.bin" in failed.reason
        assert controller.hub.ready  # somebody answers
        with pytest.raises(NotReady, match=r"^model 'tiny' version 2 is not ready: it failed to load"):
            controller.hub.get("tiny", 2)
        assert "ballast.bin" in next(one.reason for one in controller.told if one.what is What.FAILED)

    def test_it_is_tried_again_later_and_not_at_once(self, store, made, control, monkeypatch):
        monkeypatch.setattr(course_module, "RETRY_S", 0.4)
        controller = control(poll_s=0.05)
        folder = store.version_dir("tiny", store.publish(made[1]))
        right = (folder / "ballast.bin").read_bytes()
        altered(folder)
        controller.start()
        eventually(lambda: happened(controller, What.FAILED))
        time.sleep(0.2)
        assert len(happened(controller, What.FAILED)) == 1
        (folder / "ballast.bin").write_bytes(right)
        eventually(lambda: controller.hub.get("tiny").version == 2)
        eventually(lambda: controller.hub.failed == ())

    def test_another_version_is_not_held_up_by_it(self, store, made, control):
        controller = control()
        altered(store.version_dir("tiny", store.publish(made[1])))
        controller.follow()
        eventually(lambda: controller.hub.failed)
        store.publish(made[2])
        controller.follow()
        eventually(lambda: controller.hub.get("tiny").version == 3)
        eventually(lambda: controller.hub.versions("tiny") == (3,))

    def test_a_failed_model_fails_alone(self, store, made, control):
        altered(store.version_dir("other", store.publish(made[1], "other")))
        controller = control()
        assert ask(controller) == 1
        assert [one.name for one in controller.hub.failed] == ["other"]
        assert not controller.hub.ready  # it was there from the start

    def test_one_that_comes_later_and_fails_does_not_take_the_server_down(self, store, made, control):
        controller = control()
        altered(store.version_dir("other", store.publish(made[1], "other")))
        controller.follow()
        eventually(lambda: controller.hub.failed)
        assert controller.hub.ready
        assert not controller.hub.is_ready("other")

    def test_the_smoke_check_comes_before_the_traffic(self, store, made, control, monkeypatch):
        controller = control()
        monkeypatch.setattr(
            "tailorbird.serving.rollout.place.smoke_check",
            lambda *_: (_ for _ in ()).throw(BundleError("the smoke check failed: it burns")),
        )
        store.publish(made[1])
        controller.follow()
        eventually(lambda: controller.hub.failed)
        assert controller.hub.failed[0].reason == "the smoke check failed: it burns"
        assert ask(controller) == 1

    def test_a_repository_that_cannot_be_read_changes_nothing(self, store, made, control):
        controller = control()
        aside = store.root.with_name("aside")
        store.root.rename(aside)
        controller.follow()
        controller.follow()
        assert ask(controller) == 1
        assert [one.what for one in controller.told][-1:] == [What.BLIND]
        aside.rename(store.root)
        store.publish(made[1])
        controller.follow()
        eventually(lambda: controller.hub.get("tiny").version == 2)
        assert What.SIGHTED in [one.what for one in controller.told]

    def test_nor_does_one_whose_file_system_has_gone(self, store, control):
        """An unmounted one leaves an empty folder behind."""
        store.promote("tiny", 1, "production")
        controller = control()
        aside = store.root.with_name("aside")
        store.root.rename(aside)
        store.root.mkdir()
        controller.follow()
        assert ask(controller) == 1
        assert "is its file system still mounted?" in controller.told[-1].reason


class TestCanary:
    def test_it_stands_beside_the_live_version(self, store, made, control):
        store.publish(made[1])
        store.promote("tiny", 1, "production")
        controller = control(channels=Channels(weight=0.25, shadow="shadow"))
        assert controller.hub.traffic("tiny") is None
        store.promote("tiny", 2, "canary")
        controller.follow()
        eventually(lambda: controller.hub.direction("tiny") == Direction(1, 2, 0.25))
        status = controller.hub.traffic("tiny").status()
        assert (status.live, status.canary.version, status.shadow) == (1, 2, None)
        store.publish(made[2])
        store.promote("tiny", 3, "shadow")
        controller.follow()
        eventually(lambda: controller.hub.direction("tiny") == Direction(1, 2, 0.25, 3))
        assert controller.hub.traffic("tiny").status().shadow.version == 3
        store.promote("tiny", 2, "production")
        controller.follow()
        eventually(lambda: controller.hub.direction("tiny") == Direction(2, shadow=3))
        eventually(lambda: served(controller) == {"tiny": [2, 3]})

    def test_one_that_fails_leaves_the_live_version_alone(self, store, made, control):
        controller = control(channels=Channels(weight=0.25))
        store.promote("tiny", 1, "production")
        folder = store.version_dir("tiny", store.publish(made[1]))
        store.promote("tiny", 2, "canary")
        altered(folder)
        controller.follow()
        eventually(lambda: controller.hub.failed)
        assert controller.hub.direction("tiny") == Direction(1)
        assert ask(controller) == 1


class TestExplicit:
    def test_nothing_is_loaded_unless_it_is_asked_for(self, store, made, control):
        store.publish(made[1], "other")
        controller = control(Mode.EXPLICIT)
        assert served(controller) == {}
        assert controller.hub.ready
        assert [(one.name, one.state, one.reason) for one in controller.hub.idle] == [
            ("other", State.UNAVAILABLE, "not loaded"),
            ("tiny", State.UNAVAILABLE, "not loaded"),
        ]
        with pytest.raises(NotReady, match=r"^model 'tiny' is not ready: not loaded"):
            controller.hub.get("tiny")
        controller.load("tiny")
        assert ask(controller) == 1
        assert served(controller) == {"tiny": [1]}

    @pytest.mark.parametrize(("names", "loaded"), [(("tiny",), ["tiny"]), (("*",), ["other", "tiny"])])
    def test_named_at_the_start(self, store, made, control, names, loaded):
        store.publish(made[1], "other")
        assert sorted(served(control(Mode.EXPLICIT, load=names))) == loaded

    def test_a_name_that_is_not_there(self, store, control):
        with pytest.raises(ModelNotFound, match=r"^unknown model 'tinny'\nHint: did you mean 'tiny'\?"):
            control(Mode.EXPLICIT, load=("tinny",))
        controller = control(Mode.EXPLICIT)
        with pytest.raises(ModelNotFound):
            controller.load("../tiny")
        with pytest.raises(ModelNotFound):
            controller.unload("other")

    def test_load_again_follows_the_channel_and_nothing_else_does(self, store, made, control):
        controller = control(Mode.EXPLICIT, load=("tiny",), poll_s=0.05)
        controller.start()
        store.publish(made[1])
        time.sleep(0.3)
        assert ask(controller) == 1
        controller.load("tiny")
        assert ask(controller) == 2
        controller.load("tiny")  # nothing to do
        assert controller.record.counts["tiny", What.LOADED] == 2

    def test_the_protocols_operations_do_it(self, store, control):
        plane = DataPlane(control(Mode.EXPLICIT).hub)
        asyncio.run(plane.repository_load("tiny"))
        assert [(one.name, one.version, one.state) for one in plane.repository_index()] == [("tiny", "1", "READY")]
        asyncio.run(plane.repository_unload("tiny"))
        assert [(one.state, one.reason) for one in plane.repository_index()] == [("UNAVAILABLE", "unloaded")]
        assert plane.repository_index(ready=True) == ()
        with pytest.raises(ModelNotFound):
            asyncio.run(plane.repository_load("tinny"))

    def test_unload_drains_and_says_so(self, control):
        controller = control(Mode.EXPLICIT, load=("tiny",))
        model = controller.hub.get("tiny")
        controller.unload("tiny")
        assert not model.alive
        assert [(one.version, one.state, one.reason) for one in controller.hub.idle] == [
            (1, State.UNAVAILABLE, "unloaded")
        ]
        assert controller.hub.ready
        controller.unload("tiny")  # twice is as good
        controller.load("tiny")
        assert ask(controller) == 1

    def test_a_failed_load_keeps_what_was_there_and_its_reason_to_itself(self, store, made, control):
        controller = control(Mode.EXPLICIT, load=("tiny",))
        altered(store.version_dir("tiny", store.publish(made[1])))
        for _ in range(2):  # each is a try
            with pytest.raises(NotReady, match=r"^model 'tiny' did not load\nHint: the server's log has the reason$"):
                controller.load("tiny")
        assert ask(controller) == 1
        assert happened(controller, What.FAILED) == [("tiny", 2)] * 2

    @pytest.mark.parametrize("mode", [Mode.NONE, Mode.POLL])
    def test_other_modes_say_which_allows_it(self, control, mode):
        controller = control(mode)
        for action in (controller.load, controller.unload):
            with pytest.raises(UsageError, match=f"got model control mode {mode}, expected serve --model-control-mode"):
                action("tiny")

    def test_load_model_belongs_to_it(self):
        with pytest.raises(UsageError, match=r"^--load-model belongs to another mode"):
            ControlOptions(load=("tiny",))
        with pytest.raises(UsageError, match="stands alone"):
            ControlOptions(mode=Mode.EXPLICIT, load=("tiny", "*"))


def test_mode_none_never_looks_again(store, made, control):
    controller = control(Mode.NONE, poll_s=0.05)
    controller.start()
    store.publish(made[1])
    time.sleep(0.3)
    assert ask(controller) == 1


class TestBudget:
    """Files are what engines in threads are counted by: about 200 kB each."""

    @pytest.fixture
    def three(self, store, made):
        store.publish(made[1], "second")
        store.publish(made[2], "third")
        return store

    def awaken(self, controller, name, seconds=20.0):
        asyncio.run(controller.awaken(name, time.monotonic() + seconds))

    def test_what_does_not_fit_sleeps_and_wakes_when_it_is_asked_for(self, three, control):
        controller = control(memory_budget=450_000)
        awake = sorted(served(controller))
        (asleep,) = {"second", "third", "tiny"} - set(awake)
        assert len(awake) == 2
        with pytest.raises(Asleep):
            controller.hub.get(asleep)
        assert [(one.name, one.reason, one.wakes) for one in controller.hub.idle] == [
            (asleep, "not loaded: memory budget", True)
        ]
        assert controller.hub.ready
        ask(controller, awake[0])
        controller.hub.get(awake[0]).statistics.answer(0.1)  # used last
        self.awaken(controller, asleep)
        assert ask(controller, asleep) == 1
        assert sorted(served(controller)) == sorted([awake[0], asleep])
        (gone,) = controller.hub.idle
        assert (gone.name, gone.reason, gone.wakes) == (awake[1], "evicted: memory budget", True)
        assert happened(controller, What.EVICTED) == [(awake[1], 1)]

    def test_pinned_models_stay(self, three, control):
        controller = control(memory_budget=450_000, pins=("tiny", "third"))
        assert sorted(served(controller)) == ["third", "tiny"]
        with pytest.raises(NotReady, match=r"^model 'second' is not loaded: the server has no room for it now"):
            self.awaken(controller, "second")
        assert sorted(served(controller)) == ["third", "tiny"]

    def test_one_that_is_too_large_for_all_of_it_fails(self, store, control):
        controller = control(memory_budget=100_000)
        (failed,) = controller.hub.failed
        assert failed.reason.startswith("the version is larger than the whole memory budget: got 2")
        assert failed.reason.endswith("expected at most 100000 bytes\nHint: raise --memory-budget")

    def test_those_who_wait_share_one_load_and_are_not_too_many(self, three, control, monkeypatch):
        controller = control(memory_budget=250_000)
        (awake,) = served(controller)
        asleep = min({"second", "third", "tiny"} - {awake})
        before = controller.record.counts[asleep, What.LOADED]

        async def many(count):
            return await asyncio.gather(*(controller.awaken(asleep) for _ in range(count)), return_exceptions=True)

        answers = asyncio.run(many(70))
        assert answers.count(None) == 64
        assert sum(isinstance(one, Overloaded) for one in answers) == 6
        assert controller.record.counts[asleep, What.LOADED] == before + 1

    def test_a_deadline_ends_the_waiting_and_not_the_load(self, three, control, monkeypatch):
        controller = control(memory_budget=250_000)
        (awake,) = served(controller)
        asleep = min({"second", "third", "tiny"} - {awake})
        held = threading.Event()
        start = starting.load_version
        monkeypatch.setattr(starting, "load_version", lambda *a, **k: held.wait(20) and start(*a, **k))

        async def briefly():
            with pytest.raises(Overloaded, match=r"^the deadline has passed while model"):
                await controller.awaken(asleep, time.monotonic() + 0.05)
            held.set()
            await controller.awaken(asleep)

        asyncio.run(briefly())
        assert ask(controller, asleep) == 1

    def test_a_promoted_version_makes_room_for_itself(self, three, made, control):
        controller = control(memory_budget=650_000, keep_previous_s=60, pins=("second",))
        assert len(served(controller)) == 3
        three.publish(made[3])
        controller.follow()
        eventually(lambda: controller.hub.get("tiny").version == 2)
        assert served(controller) == {"tiny": [1, 2], "second": [1]}
        assert happened(controller, What.EVICTED) == [("third", 1)]
        self.awaken(controller, "third")  # what is kept for a rollback goes before any model does
        eventually(lambda: served(controller) == {"tiny": [2], "second": [1], "third": [1]})

    def test_a_new_model_that_nobody_asked_for_evicts_nobody(self, three, made, control):
        controller = control(memory_budget=650_000)
        three.publish(made[3], "fourth")
        controller.follow()
        eventually(lambda: "fourth" in controller.hub.models)
        eventually(lambda: controller.hub.idle and controller.hub.idle[0].reason == "not loaded: memory budget")
        assert len(served(controller)) == 3
        self.awaken(controller, "fourth")
        assert ask(controller, "fourth") == 1

    def test_where_both_versions_have_no_room_the_old_one_stays(self, store, made, control):
        controller = control(memory_budget=350_000)
        store.publish(made[1])
        controller.follow()
        eventually(lambda: happened(controller, What.REFUSED))
        assert ask(controller) == 1
        (idle,) = controller.hub.idle
        assert (idle.version, idle.state, idle.reason) == (2, State.UNAVAILABLE, "not loaded: memory budget")
        assert controller.hub.failed == ()


def test_close_waits_for_a_load_and_leaves_nothing(store, made, control, monkeypatch):
    controller = control(poll_s=0.05)
    entered, held = threading.Event(), threading.Event()
    start = starting.load_version

    def slowly(*arguments, **options):
        entered.set()
        assert held.wait(20)
        return start(*arguments, **options)

    monkeypatch.setattr(starting, "load_version", slowly)
    controller.start()
    store.publish(made[1])
    assert entered.wait(20)
    closing = threading.Thread(target=controller.close)
    closing.start()
    time.sleep(0.05)
    held.set()
    closing.join(20)
    assert not closing.is_alive()
    assert served(controller) == {"tiny": [1]}
    assert not controller.hub.get("tiny").alive
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("model '", "controller"))]


def test_a_version_that_was_removed_by_hand(store, made, control):
    store.publish(made[1])
    controller = control()
    shutil.rmtree(store.root / "tiny" / "2")
    controller.follow()
    eventually(lambda: controller.hub.get("tiny").version == 1)
    eventually(lambda: controller.hub.versions("tiny") == (1,))
    with pytest.raises(VersionNotFound):
        controller.hub.get("tiny", 2)


def test_object_storage_is_followed(store, made):
    with object_storage.object_storage():
        place = f"s3://{object_storage.new_bucket()}/nest"
        remote = open_repository(place)
        remote.publish(made[0])
        controller = load(place, THREADS, ControlOptions(poll_s=0.1, keep_previous_s=0))
        try:
            assert ask(controller) == 1
            controller.start()
            remote.publish(made[1])
            eventually(lambda: controller.hub.get("tiny").version == 2)
            remote.promote("tiny", 1, "production")
            eventually(lambda: controller.hub.get("tiny").version == 1)
        finally:
            controller.close()
