"""The commands about keys and signatures, as people call them."""

import json
import sys
from pathlib import Path

import pytest

from tailorbird.cli import render
from tailorbird.cli.main import run
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.trust import signer_of
from tests import bundles


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command line that must succeed; gives what it said on stdout."""

    def call(*words: object) -> str:
        monkeypatch.setattr(render, "out", render._console(sys.stdout))  # which capsys replaces for each test
        code = run(list(map(str, words)))
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return call


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    def call(*words: object, code: int = 2) -> str:
        assert run(list(map(str, words))) == code
        return capsys.readouterr().err

    return call


def test_a_key_s_life(said, refused, folder: Path, tmp_path: Path) -> None:
    assert said("key", "list") == "no keys; the first build makes one, or: tailorbird key new\n"
    made = said("key", "new")
    own = keys.load("default")
    assert made.splitlines() == [
        f"made {own.id} as 'default'",
        f"private key {folder}/default.pem: keep it to this machine",
        "others trust it with the output of: tailorbird key show default",
    ]
    assert "there is a key 'default' already" in refused("key", "new")
    shown = said("key", "show")
    assert shown == own.private.public.pem
    (tmp_path / "laptop.pem").write_text(shown)
    assert "trusted already, as 'default'" in refused("key", "trust", tmp_path / "laptop.pem")
    assert "'default' is trusted no longer" in said("key", "untrust", "default")
    assert said("key", "trust", tmp_path / "laptop.pem") == f"trusted {own.id} as 'laptop'\n"


def test_the_list(said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TAILORBIRD_KEYS", str(tmp_path / "elsewhere"))
        theirs = keys.new("theirs")
    keys.trust(tmp_path / "elsewhere" / "theirs.pub.pem", "colleague")
    own, old = keys.new(), keys.new("old")
    keys.untrust("old")
    rows = json.loads(said("key", "list", "--json"))
    assert rows == [
        {"name": "default", "id": own.id, "own": True, "trusted": True, "signs": True},
        {"name": "old", "id": old.id, "own": True, "trusted": False, "signs": False},
        {"name": "colleague", "id": theirs.id, "own": False, "trusted": True, "signs": False},
    ]
    lines = [line.split() for line in said("key", "list").splitlines()]
    assert lines[1:] == [
        ["default", "own", "trusted,", "signs", own.id],
        ["old", "own", "not", "trusted", old.id],
        ["colleague", "of", "others", "trusted", theirs.id],
    ]


def test_json(said, folder: Path) -> None:
    made = json.loads(said("key", "new", "ci", "--json"))
    assert made == {"name": "ci", "id": keys.load("ci").id, "path": f"{folder}/ci.pem"}
    assert json.loads(said("key", "untrust", "ci", "--json")) == {"name": "ci"}
    assert json.loads(said("key", "trust", folder / "ci.pub.pem", "--json")) == {"name": "ci", "id": made["id"]}


def test_the_companion_is_shown(said) -> None:
    keys.new()
    assert said("key", "show", "--p256") == keys.companion(keys.load("default")).public_pem


def test_signing(said, refused, tmp_path: Path) -> None:
    version = bundles.sealed(tmp_path / "version")
    engine = bundles.engine_file(version, tmp_path / "tiny.engine")
    assert "this machine has no key to sign with" in refused("sign", engine)
    own, other = keys.new(), keys.new("other")
    assert said("sign", engine) == f"signed {engine} with 'default', {own.id}\n"
    assert json.loads(said("sign", version, "--key", "other", "--json"))["key"] == other.id
    assert [signer_of(path).name for path in (engine, version)] == ["default", "other"]
    (version / "model.onnx").write_bytes(b"altered")
    assert "'model.onnx'" in refused("sign", version, code=1)


def test_exporting(said, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    keys.new()
    version = bundles.version(tmp_path / "version")
    wrote = said("export-signature", version, "-o", tmp_path / "v.sig")
    assert wrote == f"wrote {tmp_path}/v.sig; verify it with the output of: tailorbird key show default --p256\n"
    assert json.loads((tmp_path / "v.sig").read_text())["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
