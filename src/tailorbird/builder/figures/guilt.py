"""Guilt: which groups of layers bring the error of a quantised engine, as bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

Event = Mapping[str, Any]
"""One line of the build log."""


def sensitivity_bars(events: Iterable[Event]) -> str:
    """A list of bars for each measured candidate, the guiltiest group first; nothing where none was measured."""
    found = [_bars(event) for event in events if event["event"] == "sensitivity" and event["groups"]]
    if not found:
        return ""
    said = (
        "Each group of layers quantised alone, the rest in FP32: its share of the error, and the SNR it leaves. "
        "Mixed precision keeps those at the top in float."
    )
    return f'<h2>Where the error comes from</h2><p class="lead">{said}</p>{"".join(found)}'


def shares(groups: Iterable[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Of each group: what it is, its share of the error (0 to 1), and its own signal-to-noise ratio in dB.

    A group's error is that of its worst output. Energies of errors add up nearly independently, so shares may be
    compared.
    """
    noises = [(_group(group), max(group["noise"].values(), default=0.0)) for group in groups]
    whole = sum(noise for _, noise in noises) or 1.0
    return [(name, noise / whole, -10 * math.log10(max(noise, 1e-30))) for name, noise in noises]


def _group(group: Mapping[str, Any]) -> str:
    layers = "1 layer" if group["units"] == 1 else f"{group['units']} layers"
    return f"{layers} from {group['first']}"


def _bars(event: Event) -> str:
    rows = "".join(_bar(*share) for share in shares(event["groups"]))
    return f'<h3>{escape(event["candidate"])}</h3><div class="bars">{rows}</div>'


def _bar(name: str, share: float, snr: float) -> str:
    said = escape(name)
    return (
        f'<div class="unit" title="{said}">{said}</div>'
        f'<div class="track"><div class="fill" style="width:{100 * share:.1f}%"></div></div>'
        f'<div class="n">{100 * share:.0f} %, {snr:.0f} dB</div>'
    )
