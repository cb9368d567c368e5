"""What has not run on its device is published nowhere, promoted nowhere and opened nowhere."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends import registry
from tailorbird.domain.budget import Check, GateReport
from tailorbird.domain.errors import BackendError, BundleError
from tailorbird.repository.base import Repository
from tailorbird.repository.load import open_bundle
from tailorbird.repository.machine import check_qualified, why_stale
from tailorbird.repository.store import LocalRepository
from tests import bundles

FAILED = GateReport((Check("snr_db", False, "y at opt", 3.0, 20.0),))
MESSAGE = "the bundle of 'tiny' is not qualified: its engine has not run on its device"


@pytest.fixture
def unqualified(tmp_path: Path) -> Path:
    return bundles.version(tmp_path / "unqualified", gate=GateReport(()), latency=())


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, True),
        ({"gate": GateReport(())}, False),
        ({"gate": FAILED}, False),
        ({"latency": ()}, False),
    ],
    ids=["passed", "not gated", "failed", "not measured"],
)
def test_only_a_passed_gate_with_a_latency_table_qualifies(changes: dict[str, Any], held: bool) -> None:
    manifest = bundles.manifest(**changes)
    assert manifest.qualified is held
    if not held:
        with pytest.raises(BundleError, match="is not qualified"):
            check_qualified(manifest)


def test_it_is_not_published(either: Repository, unqualified: Path) -> None:
    with pytest.raises(BundleError) as caught:
        either.publish(unqualified)
    assert caught.value.what == MESSAGE
    assert caught.value.got == "gate did not run"
    assert str(caught.value.hint).endswith(": tailorbird qualify BUNDLE")
    assert either.models() == ()


def test_no_channel_points_at_one_that_somebody_put_there(tmp_path: Path, unqualified: Path) -> None:
    store = LocalRepository(tmp_path / "repository")
    version = store.publish(bundles.version(tmp_path / "good"))
    shutil.copytree(unqualified, store.root / "tiny" / "2")
    with pytest.raises(BundleError, match="is not qualified"):
        store.promote("tiny", 2, "production")
    store.promote("tiny", version, "production")
    assert store.live("tiny", "production") == version


@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned allowed"])
def test_it_is_not_opened(unqualified: Path, unsigned: bool) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(unqualified, allow_unsigned=unsigned)
    assert caught.value.what == MESSAGE


def test_what_its_backend_refuses_is_stale_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, backend = bundles.version(tmp_path / "version"), registry.backend("onnxruntime")
    manifest = bundles.manifest()
    assert not why_stale(version, manifest)

    def check(self: Any, engine: Path, candidate: Any) -> None:
        raise BackendError("the engine needs another driver", got="535.1", expected="580", hint="build it again")

    def never(self: Any, *_: Any) -> None:
        raise AssertionError("it was deserialised")

    monkeypatch.setattr(type(backend), "_check", check)
    monkeypatch.setattr(type(backend), "_open", never)
    assert why_stale(version, manifest) == "the engine needs another driver: got 535.1, expected 580"
    with pytest.raises(BackendError, match="needs another driver"):
        open_bundle(version)
