"""The hub finds versions and tells unknown from not ready."""

import pytest

from tailorbird.domain.errors import ModelNotFound, NotReady, VersionNotFound
from tailorbird.serving.hub import FailedModel, Hub
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
