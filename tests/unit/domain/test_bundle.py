"""The tree of a version: sealed, verified, and every fault found and named."""

import contextlib
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailorbird.domain import bundle
from tailorbird.domain.budget import Budget
from tailorbird.domain.digest import digest_bytes, digest_file
from tailorbird.domain.errors import BundleError, TailorbirdError
from tailorbird.domain.manifest import EngineFormat, decode_manifest, encode_manifest
from tests import bundles

FILES = ["model.onnx", "tailorbird/build.jsonl", "tailorbird/report.html"]


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return bundles.version(tmp_path / "1")


def flip_bit(path: Path, place: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_sealing_digests_every_file_but_the_manifest(tmp_path: Path) -> None:
    sealed = bundle.seal(bundles.unsealed(tmp_path / "1"), bundles.manifest())
    assert sorted(sealed.files) == FILES
    assert sealed.files["model.onnx"] == digest_file(tmp_path / "1" / "model.onnx")


def test_what_was_sealed_reads_back_and_verifies(version: Path) -> None:
    manifest = bundle.read_manifest(version)
    assert manifest == bundle.verify(version)
    assert msgspec.structs.replace(manifest, files={}) == bundles.manifest()


def test_a_signature_may_come_later(version: Path) -> None:
    (version / bundle.SIGNATURE).write_text("{}")
    assert bundle.SIGNATURE not in bundle.verify(version).files


def test_sealing_again_gives_the_same_bytes(version: Path) -> None:
    before = (version / bundle.MANIFEST).read_bytes()
    bundle.seal(version, bundles.manifest())
    assert (version / bundle.MANIFEST).read_bytes() == before


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found_and_named(version: Path, name: str) -> None:
    was = digest_file(version / name)
    flip_bit(version / name, (version / name).stat().st_size // 2)
    with pytest.raises(BundleError) as caught:
        bundle.verify(version)
    assert caught.value.what == f"'{name}' of {version} was altered"
    assert (caught.value.got, caught.value.expected) == (digest_file(version / name), was)
    assert caught.value.hint == "restore it from its source, or build it again"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(version: Path, name: str) -> None:
    (version / name).unlink()
    with pytest.raises(BundleError, match="lacks a file that its manifest names: got no such file") as caught:
        bundle.verify(version)
    assert caught.value.expected == f"'{name}'"


@pytest.mark.parametrize("name", ["libevil.so", "tailorbird/note.txt", "deep/er/file", "na\nme", "\udcff"])
def test_an_unexpected_file_is_named(version: Path, name: str) -> None:
    (version / name).parent.mkdir(parents=True, exist_ok=True)
    (version / name).write_text("x")
    with pytest.raises(BundleError, match="holds a file that its manifest does not name") as caught:
        bundle.verify(version)
    assert caught.value.got == ascii(name)
    caught.value.message.encode()  # can be printed, whatever the name


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
def test_what_is_no_plain_file_is_refused(version: Path, make: object) -> None:
    (version / "model.onnx").unlink()
    make(version / "model.onnx")  # type: ignore[operator]
    with pytest.raises(BundleError, match=r"'model\.onnx' is not a plain file: got a link or a device"):
        bundle.verify(version)


def test_a_linked_folder_is_refused(version: Path, tmp_path: Path) -> None:
    (version / "tailorbird").rename(tmp_path / "elsewhere")
    (version / "tailorbird").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="'tailorbird' is not a plain file"):
        bundle.verify(version)


def test_too_deep_a_tree_is_refused(version: Path) -> None:
    (version / "/".join("a" * 9)).mkdir(parents=True)
    with pytest.raises(BundleError, match=r"is nested too deep: expected at most 8 levels"):
        bundle.verify(version)


def test_a_folder_without_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        bundle.verify(tmp_path)
    assert caught.value.message == (
        f"{tmp_path} has no manifest: expected tailorbird/manifest.json\n"
        "Hint: restore it from its source, or build it again"
    )


def test_a_newer_schema_says_what_to_upgrade(version: Path) -> None:
    path = version / bundle.MANIFEST
    path.write_bytes(encode_manifest(msgspec.structs.replace(bundle.read_manifest(version), schema=99)))
    with pytest.raises(BundleError, match=r"schema is newer.*\nHint: upgrade Tailorbird"):
        bundle.verify(version)


def test_an_enormous_manifest_is_not_read(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(BundleError, match=r"is too large: got \d+ bytes, expected at most 10 bytes"):
        bundle.read_manifest(version)


def test_a_version_without_its_engine_cannot_be_sealed(tmp_path: Path) -> None:
    (bundles.unsealed(tmp_path / "1") / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"the version lacks its engine: got .*, expected 'model.onnx'"):
        bundle.seal(tmp_path / "1", bundles.manifest())


def test_a_manifest_that_would_not_read_back_is_not_sealed(tmp_path: Path) -> None:
    budget = Budget(snr_db=float("inf"))
    with pytest.raises(BundleError, match=r"the manifest cannot be read: got Expected `float`, got `null`"):
        bundle.seal(bundles.unsealed(tmp_path / "1"), bundles.manifest(budget=budget))
    assert not (tmp_path / "1" / bundle.MANIFEST).exists()


@pytest.mark.parametrize("filename", ["../../secret", "/etc/passwd", ""])
def test_a_manifest_cannot_point_the_engine_elsewhere(version: Path, filename: str) -> None:
    manifest = bundle.read_manifest(version)
    pointed = msgspec.structs.replace(manifest, format=EngineFormat("onnxruntime", "", filename))
    (version / bundle.MANIFEST).write_bytes(encode_manifest(pointed))
    with pytest.raises(BundleError, match="the version lacks its engine"):
        bundle.verify(version)


@pytest.mark.parametrize("name", ["modèle.bin", "a b", "-x", ".hidden", "x" * 129])
def test_names_that_cannot_travel_are_not_sealed(tmp_path: Path, name: str) -> None:
    (bundles.unsealed(tmp_path / "1") / name).write_text("x")
    with pytest.raises(BundleError, match="a file's name cannot travel") as caught:
        bundle.seal(tmp_path / "1", bundles.manifest())
    assert caught.value.got == ascii(name)


def test_a_disk_that_refuses_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot seal .*: got No such file or directory"):
        bundle.seal(tmp_path / "nowhere", bundles.manifest())


SEALED = encode_manifest(msgspec.structs.replace(bundles.manifest(), files={"model.onnx": digest_bytes(b"")}))


@given(st.integers(0, len(SEALED) - 1), st.binary(max_size=8), st.integers(0, 40))
@settings(max_examples=400)
def test_a_mutated_manifest_is_a_manifest_or_a_bundle_error(place: int, insert: bytes, cut: int) -> None:
    with contextlib.suppress(TailorbirdError):
        decode_manifest(SEALED[:place] + insert + SEALED[place + cut :])


@given(st.binary(max_size=200) | st.dictionaries(st.text(), st.integers()).map(msgspec.json.encode))
def test_any_bytes_are_a_manifest_or_a_bundle_error(data: bytes) -> None:
    with pytest.raises(BundleError):
        decode_manifest(data)


@given(st.binary(min_size=1, max_size=64), st.sampled_from(FILES), st.integers(0, 10_000))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_overwriting_is_found(version: Path, data: bytes, name: str, place: int) -> None:
    path = version / name
    before = path.read_bytes()
    place = min(place, len(before))
    after = before[:place] + data + before[place + len(data) :]
    path.write_bytes(after)
    try:
        if after == before:
            bundle.verify(version)
        else:
            with pytest.raises(BundleError, match=f"'{name}' of .* was altered"):
                bundle.verify(version)
    finally:
        path.write_bytes(before)
