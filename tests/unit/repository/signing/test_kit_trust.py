"""Build kits are trusted as bundles are: by signature and digests, and neither passes for the other."""

from pathlib import Path

import pytest

from tailorbird.domain import bundle
from tailorbird.domain.errors import BundleError
from tailorbird.domain.kit import seal_kit
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sign import sign_kit, sign_version
from tailorbird.repository.signing.trust import kept_kit, verified, verified_kit
from tests import bundles
from tests.unit.domain import test_kit


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of keys of the test's own."""
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    test_kit.sealed(tmp_path / "kit")
    sign_kit(tmp_path / "kit", keys.ensured()[0])
    return tmp_path / "kit"


def test_a_signed_kit_is_taken(kit: Path) -> None:
    found = verified_kit(kit)
    assert (found.folder, found.manifest.model) == (kit, "tiny")
    assert found.digest.startswith("sha256:")


def test_an_unsigned_kit_is_refused(kit: Path) -> None:
    (kit / bundle.SIGNATURE).unlink()
    with pytest.raises(BundleError, match=r"kit is not signed: got no 'tailorbird/signature.json'"):
        verified_kit(kit)


def test_a_kit_by_somebody_unknown_is_refused(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "other-keys"))
    keys.ensured()
    with pytest.raises(BundleError, match="is by a key that is not trusted here"):
        verified_kit(kit)


def test_an_altered_graph_is_refused(kit: Path) -> None:
    (kit / "ground" / "model.onnx").write_bytes(b"evil")
    with pytest.raises(BundleError, match=r"'ground/model.onnx' of .* was altered"):
        verified_kit(kit)


def test_an_altered_manifest_is_refused(kit: Path) -> None:
    text = (kit / bundle.MANIFEST).read_text()
    (kit / bundle.MANIFEST).write_text(text.replace('"tiny.onnx"', '"evil.onnx"'))
    with pytest.raises(BundleError, match="is not what was signed"):
        verified_kit(kit)


def test_a_graph_sealed_again_without_the_key_is_refused(kit: Path) -> None:
    (kit / "ground" / "model.onnx").write_bytes(b"evil")
    signature = (kit / bundle.SIGNATURE).read_bytes()
    seal_kit(kit, test_kit.MANIFEST)
    (kit / bundle.SIGNATURE).write_bytes(signature)
    with pytest.raises(BundleError, match="is not what was signed"):
        verified_kit(kit)


def test_a_signature_for_the_other_kind_is_not_valid(kit: Path, tmp_path: Path) -> None:
    """Even where one manifest could be read as both, the signature says what it was made for."""
    version = bundles.sealed(tmp_path / "version")
    sign_version(version)
    key = keys.ensured()[0]
    manifest = (version / bundle.MANIFEST).read_bytes()
    signature = (version / bundle.SIGNATURE).read_bytes()
    (kit / bundle.MANIFEST).write_bytes(manifest)
    (kit / bundle.SIGNATURE).write_bytes(signature)
    with pytest.raises(BundleError, match=f"is not valid: got not a signature by '{key.name}'"):
        verified_kit(kit)


def test_a_version_keeps_a_kit_or_none(tmp_path: Path) -> None:
    assert kept_kit(bundles.version(tmp_path / "plain")) is None
    folder = bundles.unsealed(tmp_path / "keeping")
    test_kit.sealed(folder / bundle.KEPT_KIT)
    bundle.seal(folder, bundles.manifest())
    sign_version(folder, keys.ensured()[0])
    assert "tailorbird/kit/ground/model.onnx" in verified(folder).manifest.files
    kept = kept_kit(folder)
    assert kept is not None
    assert kept.manifest.model == "tiny"


def test_an_altered_kept_kit_takes_the_version_with_it(tmp_path: Path) -> None:
    folder = bundles.unsealed(tmp_path / "keeping")
    test_kit.sealed(folder / bundle.KEPT_KIT)
    bundle.seal(folder, bundles.manifest())
    sign_version(folder, keys.ensured()[0])
    (folder / bundle.KEPT_KIT / "ground" / "model.onnx").write_bytes(b"evil")
    with pytest.raises(BundleError, match="was altered"):
        verified(folder)
