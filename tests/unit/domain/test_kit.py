"""The build kit as one file: the same bytes for the same kit, whole or refused."""

import contextlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailorbird.domain import archive, kit
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import BundleError
from tailorbird.domain.kit import KitManifest, decode_kit, encode_kit, pack_kit, seal_kit, unpack_kit, verify_kit
from tailorbird.domain.manifest import Provenance

MANIFEST = KitManifest(
    model="tiny",
    config=BuildConfig(target="onnxruntime:cpu:avx2"),
    files={},
    provenance=Provenance("tiny.onnx", "sha256:0", "sha256:1", (), {}, {}, "2026-01-01T00:00:00Z"),
    methods=("qdq",),
)


def sealed(folder: Path) -> KitManifest:
    (folder / "ground").mkdir(parents=True)
    (folder / "ground" / "model.onnx").write_bytes(b"graph" * 20)
    (folder / "ground" / "prepared.json").write_bytes(b"{}")
    return seal_kit(folder, MANIFEST)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    sealed(tmp_path / "sealed")
    pack_kit(tmp_path / "sealed", tmp_path / "tiny.kit")
    return tmp_path / "tiny.kit"


def rezip(path: Path, edit: Callable[[zipfile.ZipFile], None], drop: str = "") -> None:
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist() if name != drop}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in content.items():
            new.writestr(name, data)
        edit(new)


def refusal(path: Path, into: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        unpack_kit(path, into)
    assert not into.is_dir() or not any(into.iterdir()), "nothing is written before everything is checked"
    return caught.value


def test_a_manifest_reads_back() -> None:
    assert decode_kit(encode_kit(MANIFEST)) == MANIFEST


def test_what_is_packed_is_what_comes_out(packed: Path, tmp_path: Path) -> None:
    folder = unpack_kit(packed, tmp_path / "out")
    manifest = decode_kit((folder / "tailorbird/manifest.json").read_bytes())
    verify_kit(folder, manifest)
    assert sorted(manifest.files) == ["ground/model.onnx", "ground/prepared.json"]
    assert manifest.config.target == "onnxruntime:cpu:avx2"


def test_equal_kits_make_equal_files(packed: Path, tmp_path: Path) -> None:
    pack_kit(tmp_path / "sealed", tmp_path / "again.kit")
    assert (tmp_path / "again.kit").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda folder: (folder / "ground/model.onnx").write_bytes(b"other"), "'ground/model.onnx' of {0} was altered"),
        (lambda folder: (folder / "ground/prepared.json").unlink(), "{0} lacks a file that its manifest names"),
        (lambda folder: (folder / "more").write_bytes(b""), "{0} holds a file that its manifest does not name"),
    ],
    ids=["altered", "missing", "unexpected"],
)
def test_a_kit_that_is_not_as_it_was_sealed_is_named(
    packed: Path, tmp_path: Path, change: Callable[[Path], object], what: str
) -> None:
    folder = unpack_kit(packed, tmp_path / "out")
    manifest = decode_kit((folder / "tailorbird/manifest.json").read_bytes())
    change(folder)
    with pytest.raises(BundleError) as caught:
        verify_kit(folder, manifest)
    assert caught.value.what == what.format(folder)


@pytest.mark.parametrize("name", ["kit/../../out", "/etc/passwd", "kit/a\\b", "kit/.hidden", "kit/a b"])
def test_a_name_that_leads_elsewhere_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    rezip(packed, lambda new: new.writestr(name, "x"))
    assert refusal(packed, tmp_path / "out").what == f"{packed} is refused: a file's name is not allowed"


def test_a_file_beside_the_kit_is_refused(packed: Path, tmp_path: Path) -> None:
    rezip(packed, lambda new: new.writestr("other/file", "x"))
    assert refusal(packed, tmp_path / "out").message.startswith(
        f"{packed} is refused: a file lies outside the kit: got other/file, expected files in kit/"
    )


def test_a_compressed_file_is_refused(packed: Path, tmp_path: Path) -> None:
    rezip(packed, lambda new: new.writestr("kit/zeros", bytes(1 << 20), zipfile.ZIP_DEFLATED))
    assert refusal(packed, tmp_path / "out").what == f"{packed} is refused: 'kit/zeros' is not stored as it is"


def test_a_kit_without_a_manifest_is_refused(packed: Path, tmp_path: Path) -> None:
    rezip(packed, lambda new: None, drop="kit/tailorbird/manifest.json")
    assert refusal(packed, tmp_path / "out").what == f"{packed} is refused: it has no manifest"


def test_too_many_files_are_refused(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    assert refusal(packed, tmp_path / "out").what == f"{packed} is refused: it has too many files"


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_kit_that_was_cut_short_is_refused(packed: Path, tmp_path: Path, share: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(share * len(data))])
    assert refusal(packed, tmp_path / "out").what == f"{packed} is not a whole bundle"


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(BundleError, match="the kit's schema is newer than this Tailorbird: got 2, expected 1"):
        decode_kit(encode_kit(msgspec.structs.replace(MANIFEST, kit=2)))


@pytest.mark.parametrize("data", [b"", b"{}", b'{"kit": 1}', b'{"schema": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="the kit's manifest cannot be read"):
        decode_kit(data)


@pytest.mark.parametrize("name", ["../evil", "", "a/b", ".x"])
def test_a_model_s_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="the kit's model has no plain name"):
        decode_kit(encode_kit(msgspec.structs.replace(MANIFEST, model=name)))


quiet = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(place=st.floats(0, 1), insert=st.binary(max_size=12), cut=st.integers(0, 12))
@quiet
def test_a_mutated_kit_is_itself_or_refused(
    packed: Path, tmp_path: Path, place: float, insert: bytes, cut: int
) -> None:
    """Whatever happens to the bytes: what unpacks verifies to what was sealed, or is refused by a clear error."""
    data = packed.read_bytes()
    at = int(place * len(data))
    mutated, out = tmp_path / "mutated.kit", tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    mutated.write_bytes(data[:at] + insert + data[at + cut :])
    with contextlib.suppress(BundleError):
        folder = unpack_kit(mutated, out)
        assert folder.resolve().is_relative_to(out.resolve())
        manifest = decode_kit((folder / "tailorbird/manifest.json").read_bytes())
        verify_kit(folder, manifest)


def test_the_suffix_is_that_of_the_command_line() -> None:
    assert kit.SUFFIX == ".kit"
