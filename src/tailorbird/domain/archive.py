"""Archives: an uncompressed zip of plain files. Written so that equal trees make equal files; read as a stranger's.

Nothing in it is believed before it is checked: names, kinds and sizes of entries, and how much one read may take.
"""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from tailorbird.domain.bundle import MAX_DEPTH, is_plain_path
from tailorbird.domain.digest import CHUNK
from tailorbird.domain.errors import BundleError
from tailorbird.domain.files import reason, replacing

R = TypeVar("R")

MAX_ENTRIES = 4096
_MAX_READ = 4 << 20  # no honest read is larger: a chunk of a file, or the list of 4096 entries
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: equal trees make equal files
_PLAIN_FILE = (stat.S_IFREG | 0o644) << 16
_HINT = "it may be cut short, or no bundle at all: copy it again, or make one with 'tailorbird build -o'"
_ZIP_FAULTS = (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError, OverflowError, LookupError)


@contextmanager
def writing(out: Path) -> Iterator[zipfile.ZipFile]:
    """A new archive that takes the place of ``out`` when the block ends, whole or not at all.

    Raises:
        BundleError: the disk refused.
    """
    try:
        with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            yield archive
    except OSError as error:
        hint = "nothing was written: free some space or choose another place with -o"
        raise BundleError(f"cannot write {out}", got=reason(error), hint=hint) from error


def add_tree(archive: zipfile.ZipFile, prefix: str, folder: Path) -> None:
    """Add every file below a folder, in the order of their names."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    for name in sorted(path.relative_to(folder).as_posix() for path in paths):
        with (folder / name).open("rb") as file:
            add(archive, f"{prefix}/{name}", file, (folder / name).stat().st_size)


def add(archive: zipfile.ZipFile, name: str, content: BinaryIO, size: int) -> None:
    """Add one file of a known size."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, whose file types external_attr holds
    info.external_attr = _PLAIN_FILE
    info.file_size = size  # known beforehand, so that only large files get zip64 fields
    with archive.open(info, "w") as entry:
        shutil.copyfileobj(content, entry, CHUNK)


@contextmanager
def opened(bundle_file: Path) -> Iterator[zipfile.ZipFile]:
    """A stranger's archive; raises :class:`BundleError` where there is none, or none that is whole."""
    try:
        raw = io.FileIO(bundle_file)
    except OSError as error:
        raise BundleError(f"cannot open {bundle_file}", got=reason(error)) from error
    with _BoundedReader(raw) as file:
        with _reading(bundle_file):
            archive = zipfile.ZipFile(file)
        with archive:
            yield archive


def checked(bundle_file: Path, entries: list[zipfile.ZipInfo]) -> list[str]:
    """Names of the entries, once none of them could do harm.

    Raises:
        BundleError: there are too many, or one has a bad name, is no plain file, is compressed, shares another's name,
            or lies about its size.
    """
    if len(entries) > MAX_ENTRIES:
        raise refused(bundle_file, "it has too many files", len(entries), f"at most {MAX_ENTRIES}")
    for info in entries:
        _check_entry(bundle_file, info)
    size, total = bundle_file.stat().st_size, sum(info.file_size for info in entries)
    if total > size:
        raise refused(bundle_file, "its files are larger than itself", f"{total} bytes", f"under {size} bytes")
    names = [info.filename for info in entries]
    _check_distinct(bundle_file, names)
    return names


def unpack(bundle_file: Path, into: Path, check: Callable[[Sequence[str]], R]) -> R:
    """Write every entry of a stranger's archive to a new file.

    Args:
        bundle_file: the archive.
        into: a new or empty folder on a disk with room for the archive's size.
        check: refuses names that do not belong there, before anything is written.

    Returns:
        What ``check`` gives back.

    Raises:
        BundleError: it is no whole archive, or an entry is one that Tailorbird never writes.
        OSError: ``into`` could not be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise BundleError(f"cannot unpack into {into}", got="a folder with content", expected="an empty one")
    with opened(bundle_file) as archive:
        found = check(checked(bundle_file, archive.infolist()))
        for info in archive.infolist():
            _extract(bundle_file, archive, info, into / info.filename)
    return found


def _extract(bundle_file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        for chunk in chunks(bundle_file, archive, info):
            out.write(chunk)


def chunks(bundle_file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
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


def refused(bundle_file: Path, why: str, got: object, expected: str) -> BundleError:
    """The error for an archive that holds what Tailorbird never writes."""
    hint = "make bundles with 'tailorbird build -o'; other zip tools add what bundles may not hold"
    return BundleError(f"{bundle_file} is refused: {why}", got=got, expected=expected, hint=hint)


class _BoundedReader(io.BufferedReader):
    """A file from which one read takes a bounded amount of memory, whatever its own tables say."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``_MAX_READ`` bytes; raises :class:`BundleError` when asked for more."""
        if size is not None and size > _MAX_READ:
            raise BundleError("the bundle's list of files is too large", got=f"{size} bytes",
                              expected=f"at most {_MAX_READ} bytes", hint=_HINT)  # fmt: skip
        return super().read(size)


@contextmanager
def _reading(bundle_file: Path) -> Iterator[None]:
    """One exception for a damaged file, which zipfile answers with exceptions of many kinds."""
    try:
        yield
    except (*_ZIP_FAULTS, OSError) as error:
        got = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{bundle_file} is not a whole bundle", got=ascii(got)[1:-1], hint=_HINT) from error


def _check_entry(bundle_file: Path, info: zipfile.ZipInfo) -> None:
    name = ascii(info.orig_filename)
    # zipfile cuts a name at NUL and keeps the original beside it.
    if info.filename != info.orig_filename or not is_plain_path(info.filename, MAX_DEPTH + 2):
        expected = "a relative path of plain ASCII names"
        raise refused(bundle_file, "a file's name is not allowed", name, expected)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise refused(bundle_file, f"{name} is not a plain file", f"file type {kind:o}", "a plain file")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        raise refused(bundle_file, f"{name} is not stored as it is", "a compressed or encrypted file", "a stored one")


def _check_distinct(bundle_file: Path, names: list[str]) -> None:
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    for name, count in Counter(names).items():
        if count > 1 or name in folders:
            raise refused(bundle_file, "two files have one name", name, "distinct names")
