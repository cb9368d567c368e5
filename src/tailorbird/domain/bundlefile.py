"""The bundle as one file: an uncompressed zip, ``NAME.engine``, with the tree of a model repository.

::

    <model>/config.pbtxt
    <model>/1/...           the version, as domain/bundle.py describes it

Written so that a kill leaves the old file or the new one; read as a stranger's: nothing in it is
believed before it is checked.
"""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tailorbird.domain.bundle import (
    MANIFEST,
    MAX_DEPTH,
    MAX_MANIFEST_BYTES,
    is_plain_name,
    is_plain_path,
    read_manifest,
    verify,
)
from tailorbird.domain.digest import CHUNK
from tailorbird.domain.errors import BundleError
from tailorbird.domain.files import reason, replacing
from tailorbird.domain.manifest import Manifest, decode_manifest

SUFFIX = ".engine"
CONFIG = "config.pbtxt"
VERSION = "1"
"""The version's folder inside the file; a repository gives it another number."""

MAX_ENTRIES = 4096
_MAX_READ = 4 << 20  # no honest read is larger: a chunk of a file, or the list of 4096 entries
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: equal trees make equal files
_PLAIN_FILE = (stat.S_IFREG | 0o644) << 16
_HINT = "it may be cut short, or no bundle at all: copy it again, or make one with 'tailorbird build -o'"
_ZIP_FAULTS = (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError, OverflowError, LookupError)


def pack(version_dir: Path, out: Path, config: bytes) -> None:
    """Write a version as one file, whole or not at all.

    Args:
        version_dir: a sealed version; it is verified first.
        out: where to write; an existing file is replaced.
        config: the text of the model's ``config.pbtxt``.

    Raises:
        BundleError: the version does not verify, its model has no plain name, or the disk refused.
    """
    model = verify(version_dir).model
    if not is_plain_name(model):
        raise BundleError("the manifest's model name cannot be a folder", got=ascii(model))
    try:
        with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, f"{model}/{CONFIG}", io.BytesIO(config), len(config))
            _add_version(archive, f"{model}/{VERSION}", version_dir)
    except OSError as error:
        hint = "nothing was written: free some space or choose another place with -o"
        raise BundleError(f"cannot write {out}", got=reason(error), hint=hint) from error


def manifest_of(source: Path) -> Manifest:
    """The manifest of a ``.engine`` file or of a version's folder, nothing else of it checked.

    Raises:
        BundleError: there is no bundle, or its manifest cannot be read.
    """
    if source.is_dir():
        return read_manifest(source)
    return decode_manifest(entries_of(source, {MANIFEST: MAX_MANIFEST_BYTES})[MANIFEST])


def entries_of(bundle_file: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The bytes of some files of a ``.engine`` file, read without touching the others.

    Args:
        bundle_file: a ``.engine`` file.
        limits: the most bytes of each file, by path relative to the version.

    Returns:
        Bytes by path; of the files asked for, those that there are. A manifest there always is.

    Raises:
        BundleError: the file is not a whole bundle, or a file in it is too large.
    """
    with _opened(bundle_file) as archive:
        model = _checked_model(bundle_file, archive.infolist())
        known = {info.filename: info for info in archive.infolist()}
        wanted = {name: known.get(f"{model}/{VERSION}/{name}") for name in limits}
        for name, info in wanted.items():
            if info and info.file_size > limits[name]:
                expected = f"at most {limits[name]} bytes"
                raise _refused(bundle_file, f"its '{name}' is too large", f"{info.file_size} bytes", expected)
        return {name: b"".join(_chunks(bundle_file, archive, info)) for name, info in wanted.items() if info}


def unpack(bundle_file: Path, into: Path) -> Path:
    """Unpack a stranger's bundle. Digests are not checked here: :func:`tailorbird.domain.bundle.verify` does.

    Args:
        bundle_file: a ``.engine`` file.
        into: a new or empty folder on a disk with room for the file's size.

    Returns:
        The version's folder, below ``into``.

    Raises:
        BundleError: the file is not a whole bundle, or an entry is one that Tailorbird never writes.
        OSError: ``into`` could not be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise BundleError(f"cannot unpack into {into}", got="a folder with content", expected="an empty one")
    with _opened(bundle_file) as archive:
        model = _checked_model(bundle_file, archive.infolist())
        for info in archive.infolist():
            _extract(bundle_file, archive, info, into / info.filename)
    return into / model / VERSION


def _add_version(archive: zipfile.ZipFile, prefix: str, version_dir: Path) -> None:
    paths = (path for path in version_dir.rglob("*") if path.is_file())
    for name in sorted(path.relative_to(version_dir).as_posix() for path in paths):
        with (version_dir / name).open("rb") as file:
            _add(archive, f"{prefix}/{name}", file, (version_dir / name).stat().st_size)


def _add(archive: zipfile.ZipFile, name: str, content: BinaryIO, size: int) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, whose file types external_attr holds
    info.external_attr = _PLAIN_FILE
    info.file_size = size  # known beforehand, so that only large files get zip64 fields
    with archive.open(info, "w") as entry:
        shutil.copyfileobj(content, entry, CHUNK)


class _BoundedReader(io.BufferedReader):
    """A file from which one read takes a bounded amount of memory, whatever its own tables say."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``_MAX_READ`` bytes; raises :class:`BundleError` when asked for more."""
        if size is not None and size > _MAX_READ:
            raise BundleError("the bundle's list of files is too large", got=f"{size} bytes",
                              expected=f"at most {_MAX_READ} bytes", hint=_HINT)  # fmt: skip
        return super().read(size)


@contextmanager
def _opened(bundle_file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        raw = io.FileIO(bundle_file)
    except OSError as error:
        raise BundleError(f"cannot open {bundle_file}", got=reason(error)) from error
    with _BoundedReader(raw) as file:
        with _reading(bundle_file):
            archive = zipfile.ZipFile(file)
        with archive:
            yield archive


@contextmanager
def _reading(bundle_file: Path) -> Iterator[None]:
    """One exception for a damaged file, which zipfile answers with exceptions of many kinds."""
    try:
        yield
    except (*_ZIP_FAULTS, OSError) as error:
        got = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{bundle_file} is not a whole bundle", got=ascii(got)[1:-1], hint=_HINT) from error


def _checked_model(bundle_file: Path, entries: list[zipfile.ZipInfo]) -> str:
    """The one model of a bundle, once no entry could do harm."""
    if len(entries) > MAX_ENTRIES:
        raise _refused(bundle_file, "it has too many files", len(entries), f"at most {MAX_ENTRIES}")
    for info in entries:
        _check_entry(bundle_file, info)
    size, total = bundle_file.stat().st_size, sum(info.file_size for info in entries)
    if total > size:
        raise _refused(bundle_file, "its files are larger than itself", f"{total} bytes", f"under {size} bytes")
    names = [info.filename for info in entries]
    _check_distinct(bundle_file, names)
    return _one_model(bundle_file, names)


def _check_entry(bundle_file: Path, info: zipfile.ZipInfo) -> None:
    name = ascii(info.orig_filename)
    # zipfile cuts a name at NUL and keeps the original beside it.
    if info.filename != info.orig_filename or not is_plain_path(info.filename, MAX_DEPTH + 2):
        expected = "a relative path of plain ASCII names"
        raise _refused(bundle_file, "a file's name is not allowed", name, expected)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _refused(bundle_file, f"{name} is not a plain file", f"file type {kind:o}", "a plain file")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        raise _refused(bundle_file, f"{name} is not stored as it is", "a compressed or encrypted file", "a stored one")


def _check_distinct(bundle_file: Path, names: list[str]) -> None:
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    for name, count in Counter(names).items():
        if count > 1 or name in folders:
            raise _refused(bundle_file, "two files have one name", name, "distinct names")


def _one_model(bundle_file: Path, names: list[str]) -> str:
    model = names[0].partition("/")[0] if names else ""
    for name in names:
        if name != f"{model}/{CONFIG}" and not name.startswith(f"{model}/{VERSION}/"):
            expected = f"{model}/{CONFIG} and files in {model}/{VERSION}"
            raise _refused(bundle_file, "a file lies outside the version", name, expected)
    if (expected := f"{model or '<model>'}/{VERSION}/{MANIFEST}") not in names:
        raise _refused(bundle_file, "it has no manifest", f"{len(names)} files", expected)
    return model


def _refused(bundle_file: Path, why: str, got: object, expected: str) -> BundleError:
    hint = "make bundles with 'tailorbird build -o'; other zip tools add what bundles may not hold"
    return BundleError(f"{bundle_file} is refused: {why}", got=got, expected=expected, hint=hint)


def _extract(bundle_file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        for chunk in _chunks(bundle_file, archive, info):
            out.write(chunk)


def _chunks(bundle_file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The entry's bytes; zipfile checks their CRC when the last is read."""
    with _reading(bundle_file):
        entry = archive.open(info)
    with entry:
        while True:
            with _reading(bundle_file):
                chunk = entry.read(CHUNK)
            if not chunk:
                return
            yield chunk
