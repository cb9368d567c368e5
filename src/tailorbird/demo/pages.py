"""Pages to read: a receipt, a sign and a poem, drawn with Pillow's own font, tilted and grainy like photographs."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tailorbird.domain.dtype import Array

HEIGHT, WIDTH = 640, 480
"""Pixels of every page: multiples of 32, which the detector needs."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Page:
    """A drawn page, and what was written on it from top to bottom."""

    name: str
    pixels: Array
    """uint8, height x width x RGB."""
    lines: tuple[str, ...]


def pages(seed: int = 0) -> tuple[Page, ...]:
    """The three pages. The seed sets tilt and grain; the words stay the same."""
    return tuple(_photographed(name, draw, random.Random(f"{name} {seed}")) for name, draw in _PAGES.items())


@dataclass(frozen=True)
class _Drawing:
    image: Any
    lines: tuple[str, ...]
    tilt: float
    """Degrees, at most, to either side."""
    ground: Colour


def _photographed(name: str, draw: Any, pick: random.Random) -> Page:
    """A drawing held a little askew, lit from one side, with the grain of a sensor."""
    drawing: _Drawing = draw()
    angle = pick.choice((-1, 1)) * pick.uniform(0.4, 1.0) * drawing.tilt
    tilted = drawing.image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=drawing.ground)
    light = np.linspace(1.0, pick.uniform(0.84, 0.92), WIDTH)[None, :, None]
    grain = np.random.default_rng(pick.getrandbits(32)).normal(0.0, 5.0, (HEIGHT, WIDTH, 1))
    pixels = np.clip(np.asarray(tilted, np.float32) * light + grain, 0, 255).astype(np.uint8)
    return Page(name, pixels, drawing.lines)


def _receipt() -> _Drawing:
    """A till receipt on a dark table: names to the left, prices to the right."""
    table, paper, ink = (74, 58, 48), (250, 249, 244), (44, 42, 48)
    image = Image.new("RGB", (WIDTH, HEIGHT), table)
    draw = ImageDraw.Draw(image)
    draw.rectangle((52, 34, WIDTH - 52, HEIGHT - 34), paper)
    lines = [
        _centred(draw, 66, "TAILORBIRD CAFE", 32, ink),
        _centred(draw, 110, "12 Fig Tree Lane", 20, ink),
        *_sold(draw, 178, [("Flat white", "3.80"), ("Leaf tea, large pot", "4.20"), ("Seed cake x 2", "7.00")], ink),
    ]
    draw.line((80, 352, WIDTH - 80, 352), ink, 2)
    lines += [_across(draw, 378, "Total EUR", "15.00", 30, ink)]
    lines += [_centred(draw, 462, "Paid by card 14:32", 20, ink), _centred(draw, 530, "Thank you, fly again!", 22, ink)]
    return _Drawing(image, tuple(lines), 1.2, table)


def _sign() -> _Drawing:
    """A painted sign: large letters, light on dark."""
    green, cream, yellow = (22, 74, 56), (246, 241, 222), (250, 205, 80)
    image = Image.new("RGB", (WIDTH, HEIGHT), green)
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((26, 26, WIDTH - 26, HEIGHT - 26), 22, outline=cream, width=5)
    lines = (
        _centred(draw, 76, "NATURE RESERVE", 44, yellow),
        _centred(draw, 186, "Nesting season", 48, cream),
        _centred(draw, 266, "1 March to 31 August", 34, cream),
        _centred(draw, 390, "Please keep to the path", 30, cream),
        _centred(draw, 456, "Dogs on a short lead", 30, cream),
        _centred(draw, 544, "Warden: 0555 017 249", 24, yellow),
    )
    return _Drawing(image, lines, 2.0, green)


def _poem() -> _Drawing:
    """A page of a book: Emily Dickinson, printed 1891."""
    paper, ink = (241, 232, 214), (52, 40, 34)
    image = Image.new("RGB", (WIDTH, HEIGHT), paper)
    draw = ImageDraw.Draw(image)
    lines = [_written(draw, (56, 56), "HOPE", 30, ink)]
    lines += [
        _written(draw, (56, 128 + 48 * number + 24 * (number // 4)), text, 21, ink)
        for number, text in enumerate(_VERSES)
    ]
    lines.append(_written(draw, (56, 566), "Emily Dickinson", 18, (120, 92, 70)))
    return _Drawing(image, tuple(lines), 0.8, paper)


_VERSES = (
    "Hope is the thing with feathers",
    "That perches in the soul,",
    "And sings the tune without the words,",
    "And never stops at all,",
    "And sweetest in the gale is heard;",
    "And sore must be the storm",
    "That could abash the little bird",
    "That kept so many warm.",
)
_PAGES = {"receipt": _receipt, "sign": _sign, "poem": _poem}


def _written(draw: Any, at: tuple[float, int], text: str, size: int, ink: Colour) -> str:
    draw.text(at, text, ink, ImageFont.load_default(size))
    return text


def _centred(draw: Any, top: int, text: str, size: int, ink: Colour) -> str:
    width = draw.textlength(text, ImageFont.load_default(size))
    return _written(draw, ((WIDTH - width) / 2, top), text, size, ink)


def _across(draw: Any, top: int, left: str, right: str, size: int, ink: Colour) -> str:
    """A name at the left edge of the receipt, and its price at the right one."""
    width = draw.textlength(right, ImageFont.load_default(size))
    _written(draw, (84, top), left, size, ink)
    _written(draw, (WIDTH - 84 - width, top), right, size, ink)
    return f"{left} {right}"


def _sold(draw: Any, top: int, goods: Iterable[tuple[str, str]], ink: Colour) -> list[str]:
    return [_across(draw, top + 52 * number, name, price, 24, ink) for number, (name, price) in enumerate(goods)]
