"""The build kit: all that a race stands on, for a device that is elsewhere. One uncompressed zip, ``NAME.kit``.

::

    kit/tailorbird/manifest.json     the digest of every other file, the settings, where it comes from
    kit/tailorbird/signature.json    over the manifest's digest, as a bundle's
    kit/ground/...                   the normalised graph
    kit/cases/...                    inputs and reference outputs of every place
    kit/lowered/...                  graphs whose precision is lowered already
    kit/program/program.pt2          the PyTorch program as a graph, where a runtime of the kit compiles it

It holds graphs and arrays; no code of the user's, and nothing that runs when it is read: a program with anything but
PyTorch's operators, names and sizes in it is refused by the backend that would read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from tailorbird.domain import archive, bundle
from tailorbird.domain.bundle import MANIFEST, is_plain_name
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import BundleError
from tailorbird.domain.manifest import Provenance

SUFFIX = ".kit"
SCHEMA = 1
"""Version of the kit's form; a reader refuses a larger one."""

_TOP = "kit"
_AGAIN = "make the kit again: tailorbird build -o NAME.kit"


class KitManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a kit is. ``decode_kit(encode_kit(manifest)) == manifest``."""

    kit: int = SCHEMA
    model: str
    config: BuildConfig
    """Settings, with neither data nor cache: those are in the kit, and the finishing machine's."""
    files: dict[str, str]
    """Digest of every file of the kit but the manifest itself, by path."""
    provenance: Provenance
    methods: tuple[str, ...] = ()
    """Quantisation methods whose graphs are in it."""


@dataclass(frozen=True)
class Kit:
    """A kit that was opened and verified."""

    folder: Path
    manifest: KitManifest
    digest: str
    """Of the manifest's bytes: what a signature is over."""


class _Header(msgspec.Struct):
    kit: int


# Made at import, see domain/manifest.py.
_header = msgspec.json.Decoder(_Header)
_manifest = msgspec.json.Decoder(KitManifest)


def encode_kit(manifest: KitManifest) -> bytes:
    """The manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def decode_kit(data: bytes) -> KitManifest:
    """Read a kit's manifest; raises :class:`BundleError` for a newer schema or anything malformed."""
    try:
        schema = _header.decode(data).kit
        if schema > SCHEMA:
            raise BundleError("the kit's schema is newer than this Tailorbird", got=schema, expected=SCHEMA,
                              hint="upgrade Tailorbird: pip install --upgrade tailorbird")  # fmt: skip
        found = _manifest.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError("the kit's manifest cannot be read", got=error, hint=_AGAIN) from None
    if not is_plain_name(found.model):
        raise BundleError("the kit's model has no plain name", got=ascii(found.model), hint=_AGAIN)
    return found


def seal_kit(folder: Path, manifest: KitManifest) -> KitManifest:
    """Digest every file of a kit, write its manifest, and bring all of it to the disk.

    Raises:
        BundleError: a file is no plain file or has no plain name, or the disk refused.
    """
    sealed = msgspec.structs.replace(manifest, files=bundle.digests(folder))
    data = encode_kit(sealed)
    decode_kit(data)
    bundle.write_manifest(folder, data)
    return sealed


def verify_kit(folder: Path, manifest: KitManifest) -> None:
    """Hold every file of a kit against its manifest; raises :class:`BundleError` naming the first that differs."""
    bundle.check_files(folder, manifest.files)


def pack_kit(folder: Path, out: Path) -> None:
    """Write a sealed kit as one file, whole or not at all; raises :class:`BundleError` when the disk refuses."""
    with archive.writing(out) as file:
        archive.add_tree(file, _TOP, folder)


def unpack_kit(kit_file: Path, into: Path) -> Path:
    """Unpack a stranger's kit. Neither its signature nor its digests are checked here.

    Args:
        kit_file: a ``.kit`` file.
        into: a new or empty folder on a disk with room for the file's size.

    Returns:
        The kit's folder, below ``into``.

    Raises:
        BundleError: the file is not a whole kit, or an entry is one that Tailorbird never writes.
        OSError: ``into`` could not be written.
    """
    archive.unpack(kit_file, into, partial(_check_inside, kit_file))
    return into / _TOP


def _check_inside(kit_file: Path, names: Sequence[str]) -> None:
    for name in names:
        if not name.startswith(f"{_TOP}/"):
            raise archive.refused(kit_file, "a file lies outside the kit", name, f"files in {_TOP}/")
    if f"{_TOP}/{MANIFEST}" not in names:
        raise archive.refused(kit_file, "it has no manifest", f"{len(names)} files", f"{_TOP}/{MANIFEST}")
