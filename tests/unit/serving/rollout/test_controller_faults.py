"""The controller where something goes wrong, takes long, or is asked for at the wrong moment: loads by a script."""

import asyncio
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tailorbird.domain.errors import BackendError, NotReady, UsageError
from tailorbird.repository import layout
from tailorbird.repository.store import LocalRepository
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Direction, Hub
from tailorbird.serving.rollout import course as course_module
from tailorbird.serving.rollout.control import Channels, ControlOptions, Mode
from tailorbird.serving.rollout.controller import Controller
from tailorbird.serving.rollout.course import Course
from tailorbird.serving.rollout.place import RepositoryPlace
from tailorbird.serving.rollout.record import What
from tailorbird.serving.starting import HubOptions, Isolation
from tests import bundles
from tests.processes import eventually
from tests.unit.serving.rollout.places import Held, ScriptedPlace


@pytest.fixture
def control():
    """Makes controllers of places that have begun, and closes them."""
    open_ones = []

    def make(place, mode=Mode.POLL, **options):
        options.setdefault("keep_previous_s", 0)
        controller = Controller(Hub(), place, ControlOptions(mode=mode, **options))
        open_ones.append(controller)
        controller.begin()
        return controller

    yield make
    for controller in open_ones:
        controller.close()


def fails():
    raise BackendError("it burns")


def counted(monkeypatch, controller, name):
    """The calls of a method from now on."""
    calls, method = [], getattr(controller, name)
    monkeypatch.setattr(controller, name, lambda *a: calls.append(a) or method(*a))
    return calls


class TestOperators:
    @pytest.mark.parametrize("action", ["repository_load", "repository_unload"])
    def test_they_take_no_thread_that_requests_need(self, control, action):
        plane = DataPlane(control(ScriptedPlace(a=1), Mode.EXPLICIT, load=("a",)).hub)
        held = Held()

        async def asked():
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))
            busy = loop.run_in_executor(None, held)
            try:
                async with asyncio.timeout(10):
                    await getattr(plane, action)("a")
            finally:
                held.let_go.set()
                await busy

        asyncio.run(asked())

    def test_a_load_that_runs_does_not_hold_up_the_end_of_the_loop(self, control):
        place, held = ScriptedPlace(a=1, b=1), Held()
        place.scripts["b", 1] = held
        controller = control(place, Mode.EXPLICIT, load=("a",))

        async def asked():
            load = asyncio.ensure_future(DataPlane(controller.hub).repository_load("b"))
            await asyncio.to_thread(held.entered.wait, 20)
            load.cancel()

        asyncio.run(asked())
        assert not held.over.is_set()
        held.let_go.set()

    def test_after_the_end_they_are_refused(self, control):
        controller = control(ScriptedPlace(a=1), Mode.EXPLICIT)
        controller.close()
        with pytest.raises(NotReady, match=r"^the server is being put away$"):
            asyncio.run(DataPlane(controller.hub).repository_load("a"))

    def test_a_broken_model_that_never_served_does_not_take_the_server_down(self, control):
        place = ScriptedPlace(a=1, b=1)
        place.scripts["b", 1] = fails
        controller = control(place, Mode.EXPLICIT, load=("a",))
        with pytest.raises(NotReady, match=r"^model 'b' did not load"):
            controller.load("b")
        assert controller.hub.ready


class TestOwnFaults:
    """What no model is to blame for."""

    def test_what_cannot_be_steered_to_is_tried_again_later_and_not_at_once(self, control, monkeypatch):
        monkeypatch.setattr(course_module, "RETRY_S", 0.4)
        place = ScriptedPlace(a=1)
        controller = control(place)
        controller.start()
        follow, tries = Course._follow, []

        def faulty(*arguments):
            tries.append(1)
            if len(tries) == 1:
                raise RuntimeError("of ours")
            return follow(*arguments)

        monkeypatch.setattr(Course, "_follow", faulty)
        place.serving = {"a": 2}
        controller.follow()
        eventually(lambda: tries)
        time.sleep(0.2)
        assert len(tries) == 1
        eventually(lambda: controller.hub.get("a").version == 2)
        assert [one.reason for one in controller.changes() if one.what is What.FAILED] == ["RuntimeError: of ours"]

    def test_the_thread_survives_them(self, control, monkeypatch):
        monkeypatch.setattr("tailorbird.serving.rollout.controller._FAULT_S", 0.05)
        place = ScriptedPlace(a=1)
        controller = control(place, poll_s=0.05)
        monkeypatch.setattr(controller, "_wish", lambda look: 1 / 0)
        place.serving = {"a": 2}
        controller.start()
        eventually(lambda: controller.record.counts["", What.FAILED])
        monkeypatch.undo()
        eventually(lambda: controller.hub.get("a").version == 2)
        assert controller.changes()[-1].what is What.LOADED
        assert "ZeroDivisionError: division by zero" in [one.reason for one in controller.changes()]

    @pytest.mark.parametrize("weight", [0.0005, 0.9995, -0.1, float("nan")])
    def test_a_weight_that_cannot_be_shared_out_is_refused_at_the_start(self, weight):
        with pytest.raises(UsageError, match=r"^--canary-weight is wrong: got .*, expected 0, .*0\.001 to 0\.999"):
            ControlOptions(channels=Channels(weight=weight))


class TestClock:
    def test_a_retry_that_takes_long_is_no_reason_to_look_again_and_again(self, control, monkeypatch):
        monkeypatch.setattr(course_module, "RETRY_S", 0.05)
        place, held = ScriptedPlace(a=1), Held()

        def script():
            place.scripts["a", 2] = held
            fails()

        place.scripts["a", 2] = script
        controller = control(place)
        controller.start()
        place.serving = {"a": 2}
        controller.follow()
        assert held.entered.wait(20)
        turns, looks = counted(monkeypatch, controller, "_tick"), place.looks
        time.sleep(0.5)
        assert len(turns) <= 2
        assert place.looks == looks
        held.let_go.set()
        eventually(lambda: controller.hub.get("a").version == 2)

    def test_what_is_due_does_not_wait_for_the_next_poll(self, control):
        place = ScriptedPlace(a=1)
        controller = control(place, Mode.EXPLICIT, load=("a",), keep_previous_s=0.3)
        controller.start()
        time.sleep(0.1)  # it sleeps
        place.serving = {"a": 2}
        controller.load("a")
        assert sorted(controller.hub.loaded_versions("a")) == [1, 2]
        eventually(lambda: sorted(controller.hub.loaded_versions("a")) == [2])

    def test_nor_does_it_bring_the_next_poll_about(self, control, monkeypatch):
        monkeypatch.setattr("tailorbird.serving.rollout.controller._REST_S", 0.01)
        place = ScriptedPlace(a=1)
        controller = control(place)
        turns, looks = counted(monkeypatch, controller, "_tick"), place.looks
        controller.start()
        eventually(lambda: len(turns) > 5)
        assert place.looks == looks


def test_a_stopped_canary_is_not_loaded_again_beside_another_version(control):
    place = ScriptedPlace(a=1)
    place.point("canary", "a", 2)
    controller = control(place, channels=Channels(weight=0.1))
    assert controller.hub.direction("a") == Direction(1, 2, 0.1)
    course = controller._courses["a"]
    course._stopped.add(2)
    for live in (3, 4):
        place.serving = {"a": live}
        controller.follow()
        eventually(lambda live=live: controller.hub.direction("a") == Direction(live))
        eventually(lambda live=live: sorted(controller.hub.loaded_versions("a")) == [live])
    assert place.loads.count(("a", 2)) == 1
    assert course.due is None


def test_a_stopped_canary_that_failed_is_not_due(control):
    place = ScriptedPlace(a=1)
    place.point("canary", "a", 2)
    place.scripts["a", 2] = fails
    controller = control(place, channels=Channels(weight=0.1))
    course = controller._courses["a"]
    assert course.due > time.monotonic()
    course._stopped.add(2)
    assert course.due is None


def test_an_emptied_mount_point_without_a_log_puts_nothing_away(tmp_path):
    store = LocalRepository(tmp_path / "repository")
    store.publish(bundles.version(tmp_path / "made", candidate=bundles.candidate(threads=1)))
    shutil.rmtree(store.root / layout.OURS, ignore_errors=True)
    controller = Controller(
        Hub(), RepositoryPlace(LocalRepository(store.root), HubOptions(isolation=Isolation.THREAD, instances=1))
    )
    try:
        controller.begin()
        shutil.rmtree(store.root / "tiny")
        assert list(store.root.iterdir()) == []
        controller.follow()
        assert controller.hub.get("tiny").version == 1
        assert (controller.changes()[0].what, "still mounted?" in controller.changes()[0].reason) == (What.BLIND, True)
    finally:
        controller.close()


class TestEnd:
    @pytest.fixture
    def held(self):
        held = Held()
        yield held
        held.let_go.set()

    def test_it_waits_for_no_load_that_can_be_left_behind(self, control, held):
        place = ScriptedPlace(a=1)
        place.scripts["a", 2] = held
        controller = control(place)
        place.serving = {"a": 2}
        controller.follow()
        assert held.entered.wait(20)
        controller.close()
        assert not held.over.is_set()
        assert not controller.hub.get("a").alive

    def test_what_comes_late_is_put_down(self, control, held):
        place = ScriptedPlace(a=1)
        place.scripts["a", 2] = held
        controller = control(place)
        place.serving = {"a": 2}
        controller.follow()
        assert held.entered.wait(20)
        controller.close()
        assert not held.over.is_set()
        held.let_go.set()
        eventually(
            lambda: not [one for one in threading.enumerate() if one.name.startswith(("model 'a'", "loading a"))]
        )
        assert sorted(controller.hub.loaded_versions("a")) == [1]

    def test_it_waits_for_one_that_cannot(self, control, held):
        place = ScriptedPlace(leavable=False, a=1)
        place.scripts["a", 2] = held
        controller = control(place)
        place.serving = {"a": 2}
        controller.follow()
        assert held.entered.wait(20)
        closing = threading.Thread(target=controller.close)
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
        held.let_go.set()
        closing.join(20)
        assert not closing.is_alive()

    def test_who_waits_for_a_load_is_refused_and_others_are_served(self, control, held):
        place = ScriptedPlace(a=1, b=1)
        place.scripts["b", 1] = held
        controller = control(place, Mode.EXPLICIT, load=("a",))
        refusals = []

        def asked():
            with pytest.raises(NotReady) as caught:
                controller.load("b")
            refusals.append(caught.value.what)

        asking = threading.Thread(target=asked)
        asking.start()
        assert held.entered.wait(20)
        controller.stop()
        controller.stop()  # twice is as good
        asking.join(20)
        assert refusals == ["the server is being put away"]
        assert controller.hub.get("a").alive
        assert controller.hub.failed == ()

    def test_engines_in_processes_can_be_left_and_those_in_threads_cannot(self, tmp_path):
        store = LocalRepository(tmp_path)
        found = {kind: RepositoryPlace(store, HubOptions(isolation=kind)).leavable for kind in Isolation}
        assert found == {Isolation.PROCESS: True, Isolation.THREAD: False}
