"""Sizes as people write them: ``256MiB``."""

from __future__ import annotations

import re

from tailorbird.domain.errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}  # fmt: skip
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z]{0,3})", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size: a number with B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB, in either case; without one, bytes.

    Raises:
        UsageError: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise UsageError("that is no size", got=repr(text[:40]), expected="a number and a unit, as 256MiB or 4GiB")
    return round(float(found[1]) * unit)


def format_size(count: float) -> str:
    """A size with three digits and its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
