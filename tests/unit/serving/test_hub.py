"""The hub finds versions and tells unknown from not ready."""

import threading

import pytest

from tailorbird.domain.errors import ModelNotFound, NotReady, VersionNotFound
from tailorbird.serving.hub import Asleep, Direction, FailedModel, Hub, IdleModel, State
from tests.protocol.engines import fake_model, session_of


@pytest.fixture
def hub():
    hub = Hub(
        [fake_model("a", 1), fake_model("a", 3), fake_model("b", 2)],
        [FailedModel("b", 3, "no room"), FailedModel("c", 1, "altered")],
    )
    yield hub
    hub.close()


def test_the_highest_version_that_loaded_is_the_default(hub):
    assert hub.get("a").version == 3
    assert hub.get("a", 1).version == 1
    assert hub.get("b").version == 2


def test_all_models_and_versions_are_known(hub):
    assert hub.models == ("a", "b", "c")
    assert hub.versions("a") == (1, 3)
    assert hub.versions("b") == (2, 3)
    assert [model.reason for model in hub.failed] == ["no room", "altered"]


def test_unknown_names_are_named(hub):
    with pytest.raises(ModelNotFound, match=r"^unknown model 'zebra'\nHint: known: a, b, c$"):
        hub.get("zebra")
    with pytest.raises(VersionNotFound, match=r"^model 'a' has no version 2\nHint: versions: 1, 3$"):
        hub.get("a", 2)
    with pytest.raises(ModelNotFound):
        hub.is_ready("zebra", 1)


def test_a_failed_version_is_not_ready_and_keeps_its_reason_to_itself(hub):
    with pytest.raises(NotReady) as caught:
        hub.get("b", 3)
    assert caught.value.message == (
        "model 'b' version 3 is not ready: it failed to load\nHint: the server's log has the reason"
    )
    with pytest.raises(NotReady, match=r"^model 'c' is not ready: it failed to load"):
        hub.get("c")
    assert (hub.is_ready("b", 3), hub.is_ready("c"), hub.is_ready("b")) == (False, False, True)


def test_close_closes_every_engine():
    models = [fake_model("a"), fake_model("b")]
    Hub(models).close()
    assert all(session_of(model).closed for model in models)


class TestChanges:
    """What writers do, as readers see it."""

    @pytest.fixture
    def hub(self):
        hub = Hub([fake_model("a", 1)])
        yield hub
        hub.close()

    def test_a_version_takes_traffic_only_once_somebody_says_so(self, hub):
        hub.direct("a", Direction(1))
        hub.put(fake_model("a", 2))
        assert (hub.get("a").version, hub.get("a", 2).version) == (1, 2)
        hub.direct("a", Direction(2))
        assert hub.get("a").version == 2
        assert hub.direction("a") == Direction(2)

    def test_traffic_stands_beside_a_canary_and_goes_with_it(self, hub):
        hub.put(fake_model("a", 2))
        traffic = object()
        hub.direct("a", Direction(1, 2, 0.1), traffic)
        assert hub.traffic("a") is traffic
        hub.direct("a", Direction(1))
        assert hub.traffic("a") is None

    def test_what_is_taken_out_is_the_callers_to_close(self, hub):
        hub.direct("a", Direction(1))
        hub.put(fake_model("a", 2))
        hub.direct("a", Direction(2))
        old = hub.take_out("a", 1)
        assert (old.version, old.alive) == (1, True)
        assert hub.take_out("a", 1) is None
        assert [(one.version, one.state) for one in hub.idle] == [(1, State.UNLOADING)]
        with pytest.raises(NotReady, match=r"^model 'a' version 1 is not ready: being put away\nHint: see the repo"):
            hub.get("a", 1)
        old.close()
        hub.drained("a", 1)
        assert hub.versions("a") == (2,)

    def test_nobody_answers_once_the_live_version_is_taken_out(self, hub):
        hub.direct("a", Direction(1))
        hub.take_out("a", 1).close()
        hub.drained("a", 1, IdleModel("a", 1, State.UNAVAILABLE, "unloaded"))
        with pytest.raises(NotReady, match=r"^model 'a' is not ready: unloaded"):
            hub.get("a")
        assert hub.direction("a") is None

    def test_a_version_that_came_back_while_it_drained_is_not_forgotten(self, hub):
        hub.take_out("a", 1).close()
        hub.wait(IdleModel("a", 1, State.LOADING, "loading"))
        hub.drained("a", 1)
        assert [one.state for one in hub.idle] == [State.LOADING]
        hub.put(fake_model("a", 1))
        hub.drained("a", 1)
        assert (hub.idle, hub.get("a").version) == ((), 1)

    def test_what_sleeps_is_told_apart(self, hub):
        hub.wait(IdleModel("b", 4, State.UNAVAILABLE, "evicted: memory budget", wakes=True))
        for version in (None, 4):
            with pytest.raises(Asleep, match="is not loaded"):
                hub.get("b", version)

    def test_failed_beside_a_version_that_answers(self, hub):
        hub.fail("a", 2, "altered")
        assert hub.get("a").version == 1
        assert hub.ready
        hub.put(fake_model("a", 2))
        assert hub.failed == ()

    def test_ready_while_all_that_ever_answered_do(self, hub):
        assert hub.ready
        hub.fail("new", 1, "altered")  # it came later
        hub.wait(IdleModel("newer", 1, State.LOADING, "loading"))
        assert hub.ready
        model = hub.take_out("a", 1)
        hub.drained("a", 1)
        assert not hub.ready
        hub.release("a")
        assert hub.ready
        hub.put(model)
        hub.direct("a", Direction(1))
        model.close()
        assert not hub.ready

    def test_what_nobody_asked_for_yet_is_not_vital(self, hub):
        hub.wait(IdleModel("idle", 1, State.UNAVAILABLE, "not loaded"))
        hub.all_vital()
        hub.fail("idle", 1, "altered")
        assert hub.ready
        hub.all_vital()  # it is one of those that failed at the start
        assert not hub.ready

    def test_after_the_end_nothing_comes_in(self, hub):
        hub.close()
        late = fake_model("a", 2)
        with pytest.raises(NotReady, match=r"^the server is being put away$"):
            hub.put(late)
        late.close()

    def test_readers_never_see_half_a_change(self, hub):
        """One swaps as fast as it can while others read."""
        models = [fake_model("a", version) for version in (2, 3)]
        for model in models:
            hub.put(model)
        over, wrong = threading.Event(), []
        hub.direct("a", Direction(2))
        readers = [threading.Thread(target=read, args=(hub, over, wrong)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for turn in range(2000):
            hub.direct("a", Direction(2 + turn % 2))
            hub.fail("b", turn % 7, "x")
            hub.gone("b", (turn + 3) % 7)
        over.set()
        for reader in readers:
            reader.join()
        assert wrong == []


def read(hub, over, wrong):
    while not over.is_set():
        try:
            if hub.get("a").version not in (2, 3) or not hub.ready or "a" not in hub.models:
                wrong.append("half")
        except Exception as error:
            wrong.append(error)
