"""Labels of a plot: placed near their points, and never on one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LINE = 13.0
"""Height of a line of text, in the plot's units; letters are 11 high."""

_LETTER = 6.3
"""Width of a letter: a generous mean of the sans-serif fonts that a page may meet."""

_DISTANCES = (4.0, 15.0, 29.0, 45.0, 70.0, 100.0)
"""From the edge of what is drawn at a point to its label."""

_SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))


class Box(NamedTuple):
    """A rectangle, in the plot's units; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (self.left < other.right and other.left < self.right
                and self.top < other.bottom and other.top < self.bottom)  # fmt: skip

    def gap(self, other: Box) -> float:
        """The distance between the nearest edges or corners of the two, 0 where they touch."""
        across = max(self.left - other.right, other.left - self.right, 0.0)
        return math.hypot(across, max(self.top - other.bottom, other.top - self.bottom, 0.0))

    def inside(self, other: Box) -> bool:
        """Whether it lies wholly within the other."""
        return (other.left <= self.left and other.top <= self.top
                and self.right <= other.right and self.bottom <= other.bottom)  # fmt: skip


class Wish(NamedTuple):
    """A text, the point it belongs to, and the class it is drawn in."""

    x: float
    y: float
    lines: tuple[str, ...]
    style: str = ""
    radius: float = 5.0
    """Of what is drawn at the point."""


class Label(NamedTuple):
    """A wish with its place."""

    wish: Wish
    box: Box
    far: bool
    """Whether it needs a line to its point."""


def wrapped(text: str, letters: int) -> tuple[str, ...]:
    """A text in lines of at most so many letters, broken between words only, about as long as one another."""
    lines = _filled(text, letters)
    while letters > 1 and len(closer := _filled(text, letters - 1)) == len(lines):
        letters, lines = letters - 1, closer
    return tuple(lines)


def _filled(text: str, letters: int) -> list[str]:
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(joined) > letters:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def around(x: float, y: float, radius: float) -> Box:
    """The square around a point."""
    return Box(x - radius, y - radius, x + radius, y + radius)


def text_width(text: str) -> float:
    """About how wide a text is drawn."""
    return _LETTER * len(text)


def placed(wishes: Sequence[Wish], points: Sequence[Box], taken: Sequence[Box], frame: Box) -> list[Label]:
    """As many labels as find a free place, the first wish first; the others are left out.

    Args:
        wishes: what to write, by priority.
        points: the marks; a label stands nearer to its own than to any other, or has a line to it.
        taken: what else must stay visible: other texts.
        frame: what no label leaves.
    """
    full: list[Box] = [*points, *taken]
    found: list[Label] = []
    for wish in wishes:
        label = next(_free(wish, points, full, frame), None)
        if label is not None:
            found.append(label)
            full.append(label.box)
    return found


def _free(wish: Wish, points: Sequence[Box], full: Sequence[Box], frame: Box) -> Iterator[Label]:
    width, height = max(map(text_width, wish.lines)), LINE * len(wish.lines)
    for distance in _DISTANCES:
        for side in _SIDES:
            box = _beside(wish, side, distance, width, height)
            far = distance > _DISTANCES[1]
            if (
                box.inside(frame)
                and not any(box.meets(other) for other in full)
                and (far or _is_own(wish, box, points))
            ):
                yield Label(wish, box, far)


def _is_own(wish: Wish, box: Box, points: Sequence[Box]) -> bool:
    """Whether no other point is nearer to a label than its own."""
    mine = box.gap(around(wish.x, wish.y, 0.0))
    centres = [around((one.left + one.right) / 2, (one.top + one.bottom) / 2, 0.0) for one in points]
    return all(box.gap(centre) >= mine - 0.1 for centre in centres)


def _beside(wish: Wish, side: tuple[int, int], distance: float, width: float, height: float) -> Box:
    across, down = side
    distance += wish.radius
    x = wish.x + across * (distance + width / 2)
    y = wish.y + down * (distance + height / 2)
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
