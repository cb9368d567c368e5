"""Slices: where in a client's shared memory a tensor lies."""

from __future__ import annotations

import msgspec


class Slice(msgspec.Struct, frozen=True):
    """A piece of a region that a client registered."""

    region: str
    offset: int
    """Bytes from the region's beginning."""
    size: int
    """Bytes."""
