"""Garbage: one thing that can go, for people to read and for the store to remove."""

from __future__ import annotations

import msgspec

UNFINISHED = ("unfinished publish", "removed version")
"""Kinds of garbage that were never whole, or no longer are."""


class Garbage(msgspec.Struct, frozen=True):
    """One thing that can go."""

    kind: str
    """``retired version``; ``unfinished publish``; ``removed version``, half gone already; ``temporary file``."""
    place: str
    bytes: int
    model: str = ""
    version: int = 0
    """0 for what is no version."""
