"""The bundle as one file: the same bytes for the same tree, whole or refused."""

import contextlib
import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailorbird.domain import archive, bundle, bundlefile
from tailorbird.domain.errors import BundleError
from tailorbird.domain.manifest import encode_manifest
from tests import bundles

ENTRIES = [
    "tiny/1/model.onnx",
    "tiny/1/tailorbird/build.jsonl",
    "tiny/1/tailorbird/manifest.json",
    "tiny/1/tailorbird/report.html",
    "tiny/1/tailorbird/signature.json",
    "tiny/config.pbtxt",
]


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return bundles.version(tmp_path / "version")


@pytest.fixture
def engine(version: Path, tmp_path: Path) -> Path:
    return bundles.engine_file(version, tmp_path / "tiny.engine")


Edit = Callable[[zipfile.ZipFile], None]


def rezip(engine: Path, edit: Edit, drop: str = "") -> None:
    """The bundle again by hand, less one entry, with what ``edit`` adds."""
    with zipfile.ZipFile(engine) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if name != drop}
    with zipfile.ZipFile(engine, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        edit(archive)


def refusal(engine: Path, into: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        bundlefile.unpack(engine, into)
    return caught.value


def test_the_file_holds_a_model_repository(engine: Path) -> None:
    with zipfile.ZipFile(engine) as archive:
        assert sorted(archive.namelist()) == ENTRIES
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("tiny/config.pbtxt").startswith(b"# Written by Tailorbird")
        assert archive.testzip() is None


def test_what_was_packed_unpacks_to_the_same_tree(version: Path, engine: Path, tmp_path: Path) -> None:
    unpacked = bundlefile.unpack(engine, tmp_path / "out")
    assert unpacked == tmp_path / "out" / "tiny" / "1"
    assert bundle.verify(unpacked) == bundle.verify(version)
    assert (unpacked / bundle.MANIFEST).read_bytes() == (version / bundle.MANIFEST).read_bytes()


def test_a_signature_travels(version: Path, tmp_path: Path) -> None:
    (version / bundle.SIGNATURE).write_text("{}")
    unpacked = bundlefile.unpack(bundles.engine_file(version, tmp_path / "x.engine"), tmp_path / "out")
    assert (unpacked / bundle.SIGNATURE).read_text() == "{}"


def test_equal_trees_make_equal_files(version: Path, engine: Path, tmp_path: Path) -> None:
    os.utime(version / "model.onnx", (0, 0))
    assert bundles.engine_file(version, tmp_path / "again.engine").read_bytes() == engine.read_bytes()


def test_packing_replaces_and_leaves_nothing_beside(version: Path, engine: Path, tmp_path: Path) -> None:
    bundles.engine_file(version, engine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.engine", "version"]
    assert stat.S_IMODE(engine.stat().st_mode) & 0o400


def test_large_files_get_zip64_fields(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    engine = bundles.engine_file(version, tmp_path / "large.engine")
    monkeypatch.undo()
    assert b"PK\x06\x06" in engine.read_bytes()
    bundle.verify(bundlefile.unpack(engine, tmp_path / "out"))


def test_an_altered_version_is_not_packed(version: Path, engine: Path) -> None:
    before = engine.read_bytes()
    (version / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"'model\.onnx' of .* was altered"):
        bundles.engine_file(version, engine)
    assert engine.read_bytes() == before


def test_a_model_name_that_is_a_path_is_not_packed(tmp_path: Path) -> None:
    version = bundles.version(tmp_path / "version", model="../up")
    with pytest.raises(BundleError, match=r"the manifest's model name cannot be a folder: got '\.\./up'"):
        bundles.engine_file(version, tmp_path / "x.engine")


def test_no_place_to_write_says_so(version: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        bundles.engine_file(version, tmp_path / "nowhere" / "x.engine")
    assert caught.value.message == (
        f"cannot write {tmp_path}/nowhere/x.engine: got No such file or directory\n"
        "Hint: nothing was written: free some space or choose another place with -o"
    )


@pytest.mark.parametrize("source", ["engine", "version"])
def test_the_manifest_can_be_read_by_itself(source: str, request: pytest.FixtureRequest) -> None:
    assert bundlefile.manifest_of(request.getfixturevalue(source)).model == "tiny"


def test_unpacking_into_a_used_folder_is_refused(engine: Path, tmp_path: Path) -> None:
    error = refusal(engine, tmp_path)
    assert error.message == f"cannot unpack into {tmp_path}: got a folder with content, expected an empty one"


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none.engine", tmp_path / "out")
    assert error.message == f"cannot open {tmp_path}/none.engine: got No such file or directory"


@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.6, 0.99])
def test_half_a_file_is_refused(engine: Path, tmp_path: Path, keep: float) -> None:
    data = engine.read_bytes()
    engine.write_bytes(data[: int(len(data) * keep) if keep != 1 else len(data) - 1])
    error = refusal(engine, tmp_path / "out")
    assert error.what == f"{engine} is not a whole bundle"
    assert error.hint
    assert error.hint.startswith("it may be cut short")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    error = refusal(bundles.write_model(tmp_path / "m.onnx"), tmp_path / "out")
    assert (error.what, error.got) == (f"{tmp_path}/m.onnx is not a whole bundle", "File is not a zip file")


def test_a_flipped_bit_fails_the_crc(engine: Path, tmp_path: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[data.index(b"<p>tiny")] ^= 1
    engine.write_bytes(data)
    assert refusal(engine, tmp_path / "out").got == "Bad CRC-32 for file 'tiny/1/tailorbird/report.html'"


BAD_NAMES = [
    *["../evil", "/etc/evil", "tiny/1/../../evil", "tiny/1//evil", "tiny/1/./evil", "tiny/1/sub/", "C:/evil"],
    *["tiny\\1\\evil", "tiny/1/.hidden", "tiny/1/e\u0301vil", "tiny/1/\u0435vil", "tiny/1/" + "x" * 129],
    "tiny/1/" + "/".join("a" * 9),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_astray_are_refused(engine: Path, tmp_path: Path, name: str) -> None:
    rezip(engine, lambda archive: archive.writestr(name, "x"))
    error = refusal(engine, tmp_path / "out")
    assert error.what == f"{engine} is refused: a file's name is not allowed"
    assert (error.got, error.expected) == (ascii(name), "a relative path of plain ASCII names")
    assert not list((tmp_path / "out").rglob("*"))


def test_a_name_with_nul_is_refused(engine: Path, tmp_path: Path) -> None:
    rezip(engine, lambda archive: archive.writestr("tiny/1/evil_x", "x"))
    engine.write_bytes(engine.read_bytes().replace(b"evil_x", b"evil\0x"))
    assert refusal(engine, tmp_path / "out").got == r"'tiny/1/evil\x00x'"


@pytest.mark.parametrize("name", ["other/1/model.onnx", "tiny/2/model.onnx", "readme.txt", "tiny/labels.txt"])
def test_files_outside_the_version_are_refused(engine: Path, tmp_path: Path, name: str) -> None:
    rezip(engine, lambda archive: archive.writestr(name, "x"))
    error = refusal(engine, tmp_path / "out")
    assert error.what == f"{engine} is refused: a file lies outside the version"


def test_a_bundle_without_manifest_is_refused(engine: Path, tmp_path: Path) -> None:
    rezip(engine, lambda archive: None, drop="tiny/1/tailorbird/manifest.json")
    error = refusal(engine, tmp_path / "out")
    assert error.expected == "tiny/1/tailorbird/manifest.json"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["tiny/1/model.onnx", "tiny/1/model.onnx/inner"])
def test_two_files_of_one_name_are_refused(engine: Path, tmp_path: Path, name: str) -> None:
    rezip(engine, lambda archive: archive.writestr(name, "x"))
    assert refusal(engine, tmp_path / "out").what == f"{engine} is refused: two files have one name"


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("tiny/1/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def test_a_symbolic_link_is_refused(engine: Path, tmp_path: Path) -> None:
    rezip(engine, link)
    assert "'tiny/1/link' is not a plain file: got file type 120000" in refusal(engine, tmp_path / "out").message


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("tiny/1/zeros", bytes(1 << 20), zipfile.ZIP_DEFLATED)


def test_a_compressed_file_is_refused(engine: Path, tmp_path: Path) -> None:
    rezip(engine, bomb)
    error = refusal(engine, tmp_path / "out")
    assert error.what == f"{engine} is refused: 'tiny/1/zeros' is not stored as it is"


def test_files_larger_than_the_bundle_are_refused(engine: Path, tmp_path: Path) -> None:
    """Two entries over the same bytes: each is honest, their sum is not."""
    rezip(engine, lambda archive: archive.writestr("tiny/1/big", bytes(1 << 20)))
    data = engine.read_bytes()
    start = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    copy = data[start:end].replace(b"tiny/1/big", b"tiny/1/bag")
    size = len(data[:end]) - data.index(b"PK\x01\x02") + len(copy)
    tail = bytearray(data[end:])
    tail[8:10] = tail[10:12] = (int.from_bytes(tail[10:12], "little") + 1).to_bytes(2, "little")
    tail[12:16] = size.to_bytes(4, "little")
    engine.write_bytes(data[:end] + copy + tail)
    assert refusal(engine, tmp_path / "out").what == f"{engine} is refused: its files are larger than itself"


def test_too_many_files_are_refused(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 4)
    assert refusal(engine, tmp_path / "out").message.startswith(
        f"{engine} is refused: it has too many files: got 6, expected at most 4"
    )


def test_a_vast_list_of_files_is_not_even_read(engine: Path, tmp_path: Path) -> None:
    def many(archive: zipfile.ZipFile) -> None:
        for number in range(3):
            info = zipfile.ZipInfo(f"tiny/1/file{number}")
            info.comment = bytes(65_000)
            archive.writestr(info, "")

    rezip(engine, many)
    bound, archive._MAX_READ = archive._MAX_READ, 100_000
    try:
        error = refusal(engine, tmp_path / "out")
    finally:
        archive._MAX_READ = bound
    assert error.what == "the bundle's list of files is too large"


def test_a_manifest_that_lies_about_its_size_is_not_read(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundlefile, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(BundleError, match=r"its 'tailorbird/manifest.json' is too large"):
        bundlefile.manifest_of(engine)


SMALL = io.BytesIO()
with zipfile.ZipFile(SMALL, "w") as _archive:
    _sealed = encode_manifest(msgspec.structs.replace(bundles.manifest(), files={}))
    for _name, _data in {
        "tiny/1/model.onnx": b"engine",
        "tiny/1/tailorbird/manifest.json": _sealed,
        "tiny/config.pbtxt": b"",
    }.items():
        _archive.writestr(zipfile.ZipInfo(_name), _data)


def unpack_bytes(data: bytes, folder: Path) -> None:
    """Unpack, or fail with nothing but a :class:`BundleError`; never outside ``folder``."""
    out = folder / f"{len(list(folder.iterdir()))}"
    (folder / "x.engine").write_bytes(data)
    with contextlib.suppress(BundleError):
        assert bundlefile.unpack(folder / "x.engine", out).is_relative_to(out)


quiet = settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(place=st.floats(0, 1), insert=st.binary(max_size=12), cut=st.integers(0, 12), late=st.booleans())
@quiet
def test_a_mutated_file_unpacks_or_is_refused(
    tmp_path: Path, place: float, insert: bytes, cut: int, late: bool
) -> None:
    data = SMALL.getvalue()
    tables = data.index(b"PK\x01\x02")  # the list of files: where a mutation does most
    at = tables + int(place * (len(data) - tables)) if late else int(place * tables)
    unpack_bytes(data[:at] + insert + data[at + cut :], tmp_path)


@given(data=st.binary(max_size=300), tail=st.booleans())
@quiet
def test_any_file_unpacks_or_is_refused(tmp_path: Path, data: bytes, tail: bool) -> None:
    unpack_bytes(data + (SMALL.getvalue()[-22:] if tail else b""), tmp_path)
