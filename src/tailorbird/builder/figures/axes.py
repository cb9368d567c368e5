"""Axes of a plot: where they end, where their ticks are, and how values become places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


class Axis(msgspec.Struct, frozen=True):
    """A linear axis from ``low`` to ``high``, drawn from ``start`` to ``stop``; beyond it, at its end."""

    low: float
    high: float
    start: float
    stop: float
    step: float
    cut_low: bool = False
    cut_high: bool = False
    """Whether something lies beyond that end."""

    def place(self, value: float) -> float:
        """Where a value is drawn, in the plot's units."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their texts; the end that something lies beyond says so."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + number * self.step for number in range(count + 1)]
        return [(value, self._sign(value) + f"{value:.4g}") for value in values]

    def _sign(self, value: float) -> str:
        cut_high = self.cut_high and math.isclose(value, self.high)
        return "≥ " if cut_high else "≤ " if self.cut_low and math.isclose(value, self.low) else ""


def axis(low: float, high: float, span: tuple[float, float], values: Sequence[float], count: int = 6) -> Axis:
    """An axis over at least ``low`` to ``high``, ending at round numbers about ``count`` steps apart.

    Args:
        low: what must be on it.
        high: what must be on it; more than ``low``.
        span: where it starts and stops, in the plot's units.
        values: what will be drawn, to know whether something lies beyond an end.
        count: about how many steps.
    """
    step = _nice((high - low) / count)
    first, last = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
    return Axis(first, last, *span, step, min(values) < first, max(values) > last)


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * one for one in _NICE if power * one >= step * (1 - 1e-9))
