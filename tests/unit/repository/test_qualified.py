"""What has not run on its device is published nowhere, promoted nowhere and opened nowhere."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tailorbird.backends import registry
from tailorbird.backends.host import cpu_arch
from tailorbird.domain import bundle
from tailorbird.domain.budget import Check, GateReport
from tailorbird.domain.errors import BackendError, BundleError
from tailorbird.domain.target import Target
from tailorbird.repository.base import Repository
from tailorbird.repository.load import open_bundle
from tailorbird.repository.machine import check_qualified, why_stale
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sign import sign_version
from tailorbird.repository.store import LocalRepository
from tests import bundles
from tests.unit.domain import test_kit

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


ELSEWHERE = Target("onnxruntime", "cpu", "riscv64")


def test_another_architecture_is_stale(tmp_path: Path) -> None:
    version = bundles.version(tmp_path / "version", candidate=bundles.candidate(target=ELSEWHERE))
    assert why_stale(version, bundles.manifest(candidate=bundles.candidate(target=ELSEWHERE))) == (
        f"the engine was built for another machine: got {ELSEWHERE}, expected onnxruntime:cpu:{cpu_arch()}"
    )


def test_a_backend_that_knows_its_engines_tells_of_architectures_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = registry.backend("onnxruntime")
    able = msgspec.structs.replace(backend.capabilities(), checks_arch=True)
    version = bundles.version(tmp_path / "version", candidate=bundles.candidate(target=ELSEWHERE))
    monkeypatch.setattr(type(backend), "_capabilities", lambda self: able)
    open_bundle(version).close()
    asked: list[str] = []
    monkeypatch.setattr(type(backend), "_check", lambda self, engine, candidate: asked.append(str(candidate.target)))
    open_bundle(version).close()
    assert asked == [str(ELSEWHERE)]


def test_the_way_out_is_named_where_a_kit_is_kept(tmp_path: Path) -> None:
    folder = bundles.unsealed(tmp_path / "version")
    test_kit.sealed(folder / bundle.KEPT_KIT)
    bundle.seal(folder, bundles.manifest(candidate=bundles.candidate(target=ELSEWHERE)))
    sign_version(folder, keys.ensured()[0])
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert caught.value.what == "the engine was built for another machine"
    assert caught.value.hint == "its version keeps a build kit: tailorbird serve --rebuild-stale, or tailorbird rebuild"
