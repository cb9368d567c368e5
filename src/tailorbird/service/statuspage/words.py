"""Numbers and times as the status page writes them."""

from __future__ import annotations

from datetime import UTC, datetime

NONE = "–"


def ms(value: float | None) -> str:
    """Milliseconds, or seconds where they are many."""
    if value is None:
        return NONE
    if value < 999.5:
        return f"{value:.3g} ms"
    return (
        f"{value:.0f} ms" if value < 9999.5 else f"{value / 1e3:,.3g} s" if value < 999_500 else f"{value / 1e3:.0f} s"
    )


def count(value: float) -> str:
    """A count with spaces between thousands that do not break."""
    return f"{value:,}".replace(",", "\u202f")


def share(value: float | None) -> str:
    """A share in per cent."""
    return NONE if value is None else f"{100 * value:.4g} %"


def figure(value: float | None, unit: str = "") -> str:
    """Three digits."""
    return NONE if value is None else f"{value:.3g}{unit}"


def clock(at: float) -> str:
    """The time of day of a Unix time."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
