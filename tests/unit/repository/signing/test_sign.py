"""Signing: one signature over the manifest, written whole, and nothing in it that can be altered unseen."""

import json
import stat
from pathlib import Path

import msgspec
import pytest

from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.digest import digest_file
from tailorbird.domain.errors import BundleError, UsageError
from tailorbird.repository.signing import keys, sign
from tailorbird.repository.signing.trust import signer_of, verified
from tests import bundles


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> keys.OwnKey:
    """The only key."""
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "own"))
    return keys.new()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return bundles.sealed(tmp_path / "version")


def test_what_is_signed_is_the_manifest_for_this_purpose(version: Path, own: keys.OwnKey) -> None:
    made = sign.sign_version(version)
    digest = digest_file(version / bundle.MANIFEST)
    assert (made.schema, made.algorithm, made.key, made.manifest) == (1, "ed25519", own.id, digest)
    public = own.private.public
    assert public.verifies(made.raw, b"tailorbird bundle signature v1\0" + digest.encode())
    assert not public.verifies(made.raw, digest.encode())
    assert json.loads((version / bundle.SIGNATURE).read_bytes()) == msgspec.to_builtins(made)


def test_signing_again_replaces(version: Path) -> None:
    sign.sign_version(version)
    sign.sign_version(version, keys.new("another"))
    signer = signer_of(version)
    assert signer
    assert (signer.name, signer) == ("another", verified(version).signer)
    assert {path.name for path in (version / "tailorbird").iterdir()} == {
        *("build.jsonl", "manifest.json", "report.html", "signature.json"),
    }


def test_a_published_version_s_signature_is_read_only_too(version: Path) -> None:
    (version / bundle.MANIFEST).chmod(0o444)
    sign.sign_version(version)
    sign.sign_version(version)
    assert stat.S_IMODE((version / bundle.SIGNATURE).stat().st_mode) == 0o444


def test_an_engine_file_is_signed_in_place(version: Path, tmp_path: Path) -> None:
    engine = bundles.engine_file(version, tmp_path / "tiny.engine")
    with pytest.raises(BundleError, match="is not signed"):
        verified(bundlefile.unpack(engine, tmp_path / "before"))
    assert signer_of(engine) is None
    sign.sign_bundle(engine)
    assert verified(bundlefile.unpack(engine, tmp_path / "after")).signer == signer_of(engine)
    assert bundlefile.manifest_of(engine) == bundle.read_manifest(version)


@pytest.mark.parametrize("kind", ["version", "engine"])
def test_what_was_altered_is_not_signed(kind: str, version: Path, tmp_path: Path) -> None:
    source = version
    if kind == "engine":
        source = bundles.engine_file(version, tmp_path / "tiny.engine")
        data = source.read_bytes()
        assert data.count(b"tiny</p>") == 1
        source.write_bytes(data.replace(b"tiny</p>", b"TINY</p>"))
        expected = "is not a whole bundle"  # the archive's own check sum
    else:
        (version / "tailorbird" / "report.html").write_text("<p>TINY</p>\n")
        expected = "'tailorbird/report.html' of .* was altered"
    before = source.read_bytes() if kind == "engine" else None
    with pytest.raises(BundleError, match=expected):
        sign.sign_bundle(source)
    assert before == (source.read_bytes() if kind == "engine" else None)
    assert not (version / bundle.SIGNATURE).exists()


def test_no_room_to_unpack_leaves_the_file(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bundles.engine_file(version, tmp_path / "tiny.engine")
    before = engine.read_bytes()
    monkeypatch.setattr(sign.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(BundleError) as caught:
        sign.sign_bundle(engine)
    assert caught.value.message == (
        f"cannot sign {engine}: got No such file or directory\n"
        "Hint: see that the temporary folder has room; TMPDIR names another"
    )
    assert engine.read_bytes() == before


def test_there_is_nothing_to_sign(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no manifest"):
        sign.sign_bundle(tmp_path)
    with pytest.raises(BundleError, match="cannot open"):
        sign.sign_bundle(tmp_path / "none.engine")


def test_without_a_key_nothing_is_signed(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    with pytest.raises(UsageError, match="this machine has no key to sign with"):
        sign.sign_version(version)
    assert not (version / bundle.SIGNATURE).exists()


SIGNED = sign.BundleSignature(key="ed25519:00", manifest="sha256:00", signature="A" * 86 + "==")


def reading(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        sign.decode_signature(data, "V")
    return caught.value.message


def test_a_signature_reads_back() -> None:
    assert sign.decode_signature(sign.encode_signature(SIGNED), "V") == SIGNED


def test_a_newer_schema_says_what_to_upgrade() -> None:
    newer = json.dumps({"schema": 2, "algorithm": "ed448", "anything": [1]}).encode()
    assert reading(newer) == (
        "the schema of 'tailorbird/signature.json' of V is newer than this Tailorbird: got 2, expected 1\n"
        "Hint: upgrade Tailorbird: pip install --upgrade tailorbird"
    )


def test_an_unknown_algorithm_is_refused() -> None:
    other = msgspec.structs.replace(SIGNED, algorithm="none\n")
    assert reading(sign.encode_signature(other)) == (
        "'tailorbird/signature.json' of V is of an unknown algorithm: got 'none\\n', expected ed25519\n"
        "Hint: upgrade Tailorbird: pip install --upgrade tailorbird"
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", b"[" * 100000, sign.encode_signature(SIGNED)[:-1],
     sign.encode_signature(msgspec.structs.replace(SIGNED, signature="****"))],
)  # fmt: skip
def test_what_is_no_signature(data: bytes) -> None:
    assert reading(data).startswith("'tailorbird/signature.json' of V ")


@pytest.mark.parametrize(
    "data",
    [
        sign.encode_signature(SIGNED) + b"\n",
        msgspec.json.encode(SIGNED),
        sign.encode_signature(msgspec.structs.replace(SIGNED, signature="A" * 85 + "B==")),  # unused bits are set
        sign.encode_signature(msgspec.structs.replace(SIGNED, signature="AAAA")),
    ],
    ids=["a line more", "other spaces", "loose base64", "short"],
)
def test_what_was_written_otherwise_is_refused(data: bytes) -> None:
    assert reading(data) == (
        "'tailorbird/signature.json' of V is not as it was written: expected exactly what 'sign' writes\n"
        "Hint: sign it again: tailorbird sign"
    )
