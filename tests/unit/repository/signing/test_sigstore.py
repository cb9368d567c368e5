"""Signatures for other tools: model-signing's own command accepts them, and refuses them after any change."""

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tailorbird.domain import bundle
from tailorbird.domain.errors import BundleError, TailorbirdError, UsageError
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sigstore import export
from tests import bundles

pytest.importorskip("model_signing", reason="model-signing is not installed")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> keys.OwnKey:
    """A key of the test's own."""
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    return keys.new()


@pytest.fixture
def version(own: keys.OwnKey, tmp_path: Path) -> Path:
    return bundles.version(tmp_path / "version")


def verify(version: Path, signature: Path, public: str) -> "subprocess.CompletedProcess[str]":
    """What the guide tells people to run."""
    key = signature.with_name("key.pem")
    key.write_text(public)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(version)]
    options = ["--signature", str(signature), "--public_key", str(key)]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.heavy
def test_model_signing_accepts_it_and_refuses_any_change(version: Path, own: keys.OwnKey, tmp_path: Path) -> None:
    export(version, tmp_path / "v.sig", own)
    public = keys.companion(own).public_pem
    done = verify(version, tmp_path / "v.sig", public)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr
    files = [path for path in version.rglob("*") if path.is_file()]
    assert version / bundle.SIGNATURE in files
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        done = verify(version, tmp_path / "v.sig", public)
        assert done.returncode == 1
        assert path.relative_to(version).as_posix() in done.stderr
        path.write_bytes(whole)
    (version / "more").touch()
    assert verify(version, tmp_path / "v.sig", public).returncode == 1


def test_another_key_does_not_verify_it(version: Path, own: keys.OwnKey, tmp_path: Path) -> None:
    export(version, tmp_path / "v.sig", own)
    other = keys.companion(keys.new("other")).public_pem
    assert verify(version, tmp_path / "v.sig", other).returncode == 1


def test_a_file_is_exported_as_the_version_in_it(
    version: Path, own: keys.OwnKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILORBIRD_KEY_PASSPHRASE", "open sesame")  # the companion is made encrypted
    engine = bundles.engine_file(version, tmp_path / "tiny.engine")
    export(engine, tmp_path / "v.sig", own)
    with zipfile.ZipFile(engine) as archive:
        archive.extractall(tmp_path / "unzipped")
    public = keys.companion(own).public_pem
    assert verify(tmp_path / "unzipped" / "tiny" / "1", tmp_path / "v.sig", public).returncode == 0


def test_what_does_not_verify_is_not_exported(version: Path, own: keys.OwnKey, tmp_path: Path) -> None:
    (version / "model.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"'model.onnx' of .* was altered"):
        export(version, tmp_path / "v.sig", own)
    with pytest.raises(BundleError, match="is not signed"):
        export(bundles.sealed(tmp_path / "unsigned"), tmp_path / "v.sig", own)
    assert not (tmp_path / "v.sig").exists()


def test_another_s_version_is_not_exported_as_ours(version: Path, own: keys.OwnKey, tmp_path: Path) -> None:
    other = keys.new("other")
    with pytest.raises(UsageError) as caught:
        export(version, tmp_path / "v.sig", other)
    assert caught.value.message == (
        f"the version is signed by another key than the one to export with: got {other.id}, "
        f"expected {own.id} ('default')\n"
        "Hint: name that key with --key; or sign it again, if you vouch for it: tailorbird sign"
    )


def test_the_output_must_not_spoil_the_version(version: Path, own: keys.OwnKey) -> None:
    with pytest.raises(UsageError, match=r"the output lies inside the version: got .*v\.sig, expected a file outside"):
        export(version, version / "tailorbird" / "v.sig", own)
    bundle.verify(version)


def test_no_place_for_the_output(version: Path, own: keys.OwnKey, tmp_path: Path) -> None:
    with pytest.raises(TailorbirdError, match=r"cannot export a signature to .*: got No such file or directory"):
        export(version, tmp_path / "nowhere" / "v.sig", own)


def test_without_the_package_it_says_what_to_install(
    version: Path, own: keys.OwnKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(TailorbirdError) as caught:
        export(version, tmp_path / "v.sig", own)
    assert caught.value.what == "model-signing is not installed"
    assert caught.value.hint == "install both: pip install 'tailorbird[sigstore]'"


def test_the_package_failing_is_our_error(
    version: Path, own: keys.OwnKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing = importlib.import_module("model_signing.signing")

    def fail(*_: object) -> None:
        raise ValueError("no such curve")

    monkeypatch.setattr(signing.Config, "sign", fail)
    with pytest.raises(TailorbirdError, match=r"could not sign the version: got ValueError: no such curve"):
        export(version, tmp_path / "v.sig", own)
    assert not (tmp_path / "v.sig").exists()
