"""Small plots: where latencies lie, and how traffic is shared."""

from __future__ import annotations

import math

from tailorbird.service.statuspage.words import ms
from tailorbird.serving.pace import Pace, Spread

_WIDTH, _HEIGHT = 10, 56
"""Of a bar, and of the whole."""


def spread_plot(pace: Pace) -> str:
    """A histogram of the latest answers on a logarithmic scale, with lines at the median and the 99th percentile."""
    spread = pace.spread
    if spread is None:
        return '<p class="minor">no answer yet</p>'
    most = max(spread.counts)
    bars = "".join(_bar(place, height, most) for place, height in enumerate(spread.counts) if height)
    lines = _line("p50", pace.p50_ms, spread) + _line("p99", pace.p99_ms, spread)
    words = f"Latency of the latest {sum(spread.counts)} answers: p50 {ms(pace.p50_ms)}, p99 {ms(pace.p99_ms)}"
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH * len(spread.counts)} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}"><title>{words}</title><g class="bars">{bars}</g>{lines}</svg>'
        f"<figcaption><span>{ms(spread.low_ms)}</span><span>{sum(spread.counts)} answers</span>"
        f"<span>{ms(spread.high_ms)}</span></figcaption></figure>"
    )


def split_plot(canary: float) -> str:
    """A strip: what share of the traffic is the canary's."""
    live = 100 * (1 - canary)
    return (
        '<svg class="split" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="live" width="{live:.4g}" height="4"/>'
        f'<rect class="canary" x="{live:.4g}" width="{100 - live:.4g}" height="4"/></svg>'
    )


def _bar(place: int, count: int, most: int) -> str:
    height = max(2.0, (_HEIGHT - 4) * count / most)
    return (
        f'<rect x="{place * _WIDTH + 1}" y="{_HEIGHT - height:.3g}" width="{_WIDTH - 2}" height="{height:.3g}" rx="1"/>'
    )


def _line(kind: str, at: float | None, spread: Spread) -> str:
    if at is None or not at > 0:
        return ""
    wide = math.log(spread.high_ms / spread.low_ms)
    x = _WIDTH * len(spread.counts) * min(1.0, max(0.0, math.log(at / spread.low_ms) / wide))
    return (
        f'<path class="{kind}" d="M{x:.4g} 0V{_HEIGHT}" stroke-width="1.5" stroke-dasharray="3 3" '
        'vector-effect="non-scaling-stroke"/>'
    )
