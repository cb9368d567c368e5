"""Identity: what the user's data is, as a digest. Files count by their bytes; what a callable yields, by its arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tailorbird.builder.cases.data import MAX_BYTES, MAX_ROWS
from tailorbird.builder.cases.read import raw_samples
from tailorbird.domain.digest import digest_bytes, digest_file
from tailorbird.domain.signature import Signature

_KINDS = (".npz", ".npy")


class DataArgs(msgspec.Struct, frozen=True):
    """The data as the user named it."""

    data: str


class DataDigest(msgspec.Struct, frozen=True):
    """What it is."""

    digest: str


def digest_files(path: Path) -> str:
    """Digest of a file, or of every ``.npz`` and ``.npy`` in a directory by name; raises :class:`OSError`."""
    if not path.is_dir():
        return digest_file(path)
    files = sorted(file for file in path.iterdir() if file.suffix in _KINDS)
    return digest_bytes("".join(f"{digest_file(file)} {file.name}\n" for file in files).encode())


def digest_yielded(args: DataArgs) -> DataDigest:
    """Digest of what ``module:callable`` yields, as far as a build would read it. Runs in a process of its own.

    Raises:
        UsageError: it cannot be called, or raised.
    """
    state, size = hashlib.sha256(), 0
    for number, raw in enumerate(raw_samples(args.data, Signature((), ()), "")):
        size += raw.size
        if number >= MAX_ROWS or size > MAX_BYTES:  # no sample has less than a row
            break
        _take(state, raw.read())
    return DataDigest(f"sha256:{state.hexdigest()}")


def _take(state: Any, sample: Any) -> None:
    """One sample's arrays, by name. What is no dict of arrays is refused later, with better words."""
    if not isinstance(sample, Mapping):
        state.update(f"{type(sample).__name__}\n".encode())
        return
    for name in sorted(sample, key=str):
        array = np.asarray(sample[name])
        plain = array.astype(bytes) if array.dtype == object else array
        state.update(f"{name} {plain.dtype} {plain.shape}\n".encode())
        state.update(np.ascontiguousarray(plain).tobytes())
    state.update(b"\n")
