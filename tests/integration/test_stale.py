"""Which models are built again, and what their channels point at then. The build itself is a stand-in."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tailorbird
from tailorbird.api.result import Result
from tailorbird.api.ways import Order
from tailorbird.backends import registry
from tailorbird.domain import bundle
from tailorbird.domain.errors import BackendError, RepositoryError, UsageError
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sign import sign_version
from tailorbird.repository.store import LocalRepository
from tests import bundles
from tests.unit.domain import test_kit

pytest.importorskip("onnxruntime")

MOVED = (
    "channel 'production' of model 'tiny' moved meanwhile: got version 2, expected version 1\n"
    "Hint: promote version 3 by hand"
)


@pytest.fixture(autouse=True)
def own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))


@pytest.fixture
def store(tmp_path: Path) -> LocalRepository:
    """Version 1 of one model, which keeps a kit and is live."""
    folder = bundles.unsealed(tmp_path / "first")
    test_kit.sealed(folder / bundle.KEPT_KIT)
    bundle.seal(folder, bundles.manifest())
    sign_version(folder, keys.ensured()[0])
    made = LocalRepository(tmp_path / "repository")
    made.publish(folder)
    made.promote("tiny", 1, "production")
    return made


@pytest.fixture
def building(store: LocalRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """A build that publishes version 3; what is in this list is done meanwhile, after version 2 came."""
    meanwhile: list[Callable[[], object]] = []

    def ordered(order: Order, *_: Any) -> Result:
        assert order.kit is not None
        store.publish(bundles.version(tmp_path / "second", candidate=bundles.candidate(threads=2)), "tiny")
        for step in meanwhile:
            step()
        version = store.publish(bundles.version(tmp_path / "third", candidate=bundles.candidate(threads=3)), "tiny")
        row = Outcome(bundles.candidate(threads=3), Status.CHOSEN, "")
        return Result((row,), bundles.manifest(), None, store.version_dir("tiny", version))

    monkeypatch.setattr("tailorbird.api.elsewhere.ordered", ordered)
    return meanwhile


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Any, engine: Path, candidate: Any) -> None:
        if engine.name == "1":
            raise BackendError("the engine is of another runtime", got="1.0", expected="2.0")

    monkeypatch.setattr(type(registry.backend("onnxruntime")), "_check", check)
    monkeypatch.setattr("tailorbird.service.app.serve", lambda source, options: None)


# --- channels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["production", "new"])
def test_a_rebuilt_version_is_promoted_where_nobody_moved_the_channel(
    store: LocalRepository, building: list[Callable[[], object]], channel: str
) -> None:
    tailorbird.rebuild(store.root, "tiny", version=1, channel=channel)
    assert store.live("tiny", channel) == 3


def test_what_an_operator_promoted_meanwhile_stays(
    store: LocalRepository, building: list[Callable[[], object]]
) -> None:
    building.append(lambda: store.promote("tiny", 2, "production"))
    with pytest.raises(RepositoryError) as caught:
        tailorbird.rebuild(store.root, "tiny", version=1, channel="production")
    assert caught.value.message == MOVED
    assert store.live("tiny", "production") == 2
    assert store.versions("tiny") == (1, 2, 3)


@pytest.mark.usefixtures("stale")
def test_a_server_that_starts_leaves_what_was_promoted_meanwhile(
    store: LocalRepository, building: list[Callable[[], object]], capfd: pytest.CaptureFixture[str]
) -> None:
    building.append(lambda: store.promote("tiny", 2, "production"))
    tailorbird.serve(store.root, rebuild_stale=True)
    assert store.live("tiny", "production") == 2
    said = capfd.readouterr().err
    assert '"event":"rebuilt","model":"tiny","version":3' in said
    assert '"event":"not promoted"' in said
    assert MOVED.partition("\n")[0] in said


def test_a_wrong_channel_is_said_before_anything_is_built(
    store: LocalRepository, building: list[Callable[[], object]]
) -> None:
    with pytest.raises(UsageError, match="not a channel name: got 'Not One'"):
        tailorbird.rebuild(store.root, "tiny", channel="Not One")
    assert store.versions("tiny") == (1,)


# --- which models ----------------------------------------------------------------------------------


@pytest.fixture
def asked(store: LocalRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are looked at, of the two that there are."""
    store.publish(bundles.version(tmp_path / "other"), "other")
    seen: list[str] = []
    monkeypatch.setattr("tailorbird.service.app.serve", lambda source, options: None)
    monkeypatch.setattr("tailorbird.api.elsewhere._rebuild_if_stale", lambda store, model, *_: seen.append(model))
    return seen


@pytest.mark.parametrize(
    ("settings", "looked_at"),
    [
        ({}, ["other", "tiny"]),
        ({"model_control_mode": "explicit"}, []),
        ({"model_control_mode": "explicit", "load_model": ["tiny"]}, ["tiny"]),
        ({"model_control_mode": "explicit", "load_model": ["*"]}, ["other", "tiny"]),
        ({"channel": "production"}, ["tiny"]),
    ],
    ids=["all", "none yet", "by name", "all by name", "channel"],
)
def test_only_what_is_served_is_built_again(
    store: LocalRepository, asked: list[str], settings: dict[str, Any], looked_at: list[str]
) -> None:
    tailorbird.serve(store.root, rebuild_stale=True, **settings)
    assert asked == looked_at


def test_of_a_model_s_folder_that_model_is(
    store: LocalRepository, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailorbird.serve(store.root / "tiny", rebuild_stale=True)
    monkeypatch.chdir(store.root / "other")
    tailorbird.serve(".", rebuild_stale=True)
    assert asked == ["tiny", "other"]


@pytest.mark.parametrize("inside", ["tiny/1", "tiny"], ids=["a version", "a model without a repository"])
def test_a_version_s_folder_is_a_bundle_by_itself(
    store: LocalRepository, asked: list[str], tmp_path: Path, inside: str
) -> None:
    place = store.root
    if inside == "tiny":
        place = tmp_path / "copied"
        place.mkdir()
        (store.root / "tiny").rename(place / "tiny")
    with pytest.raises(UsageError) as caught:
        tailorbird.serve(place / inside, rebuild_stale=True)
    assert caught.value.what == "a single bundle cannot be built again where it is"
    assert caught.value.hint == "leave --rebuild-stale out, or publish the bundle"
    assert asked == []


def test_a_place_that_is_not_there_is_left_to_the_server(asked: list[str], tmp_path: Path) -> None:
    with contextlib.suppress(RepositoryError):
        tailorbird.serve(tmp_path / "nothing", rebuild_stale=True)
    assert asked == []
