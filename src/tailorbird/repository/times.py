"""Moments and ages as people write them: ISO 8601, and ``7d``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tailorbird.domain.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGE = re.compile(r"([0-9]{1,9})([smhd])|0")
_LONGEST = timedelta(days=36500)  # any moment less this is still a year that Python knows


def parse_time(text: str) -> datetime:
    """A moment in UTC, from ISO 8601 such as ``2026-11-22T21:02:21+01:00``.

    A moment without a zone is in UTC; a date alone is its first moment.

    Raises:
        UsageError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        expected = "ISO 8601, such as 2026-11-22, 2026-11-22T21:02:21 (UTC) or 2026-11-22T21:02:21+01:00"
        raise UsageError("not a time", got=ascii(text), expected=expected) from error


def parse_until(text: str) -> datetime:
    """The last moment that a text means: a time in whole seconds lasts to the end of its second.

    So a time copied from a table, which shows seconds, finds what happened in that second. Raises as
    :func:`parse_time`.
    """
    moment = parse_time(text)
    return moment if "." in text or "," in text else moment.replace(microsecond=999999)


def parse_age(text: str) -> timedelta:
    """How long ago: ``90s``, ``30m``, ``12h``, ``7d`` or ``0``; raises :class:`UsageError`."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise UsageError("not an age", got=ascii(text), expected="a number and one of s, m, h, d, such as 7d; or 0")
    age = timedelta(seconds=int(found[1]) * _UNITS[found[2]]) if found[1] else timedelta(0)
    if age > _LONGEST:
        raise UsageError("not an age", got=text, expected=f"at most {_LONGEST.days}d")
    return age


def text_of(moment: datetime) -> str:
    """A moment to the second, in UTC: ``2026-11-22T21:02:21Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
