"""Lanes: what happened in which order, a strip for each kind of thing, so that place and not colour alone tells."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec

_WIDTH = 1000.0
_LEAST = 1.2
"""Width of the narrowest block: less cannot be seen."""
_GAP = 0.6
_LONGEST = 160


class Block(msgspec.Struct, frozen=True):
    """Something that lasted, and what a pointer that rests on it is told."""

    start: float
    stop: float
    title: str


class Lane(msgspec.Struct, frozen=True):
    """One strip: its name, its colour, what is on it, and its figures."""

    name: str
    style: str
    blocks: tuple[Block, ...]
    figures: str


def lanes_html(lanes: Sequence[Lane], total: float) -> str:
    """The strips under one another, all on the scale from 0 to ``total``."""
    rows = "".join(_row(lane, total) for lane in lanes)
    return f'<div class="lanes">{rows}</div>'


def short(text: str, longest: int = _LONGEST) -> str:
    """A text that vendors or strangers chose, cut in the middle where it is too long to be read."""
    half = longest // 2 - 1
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def _row(lane: Lane, total: float) -> str:
    told = escape(f"{lane.name}: {lane.figures}")
    blocks = "".join(_block(block, total) for block in lane.blocks)
    return (
        f'<div class="row"><div class="lane"><span class="swatch {lane.style}"></span>{escape(lane.name)}</div>'
        f'<svg class="strip {lane.style}" viewBox="0 0 {_WIDTH:.0f} 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{told}">{blocks}</svg>'
        f'<div class="n">{escape(lane.figures)}</div></div>'
    )


def _block(block: Block, total: float) -> str:
    scale = _WIDTH / (total or 1.0)
    start, wide = block.start * scale, (block.stop - block.start) * scale
    wide = max(wide - (_GAP if wide > 4 * _GAP else 0.0), _LEAST)
    start = min(start, _WIDTH - wide)
    return f'<rect x="{start:.1f}" y="0" width="{wide:.1f}" height="10"><title>{escape(block.title)}</title></rect>'
