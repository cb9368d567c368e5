"""Digests: what a thing is, as a value whose text says how it was computed."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    """``sha256:<hex>`` of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_file(path: Path) -> str:
    """``sha256:<hex>`` of a file's bytes, read in chunks; raises :class:`OSError` when unreadable."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
