"""Labels of a plot: placed near their points, and never on one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

LINE = 13.0
"""Height of a line of text, in the plot's units; letters are 11 high."""

_LETTER = 6.3
"""Width of a letter: a generous mean of the sans-serif fonts that a page may meet."""

_DISTANCES = (9.0, 20.0, 34.0, 50.0)
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


class Label(NamedTuple):
    """A wish with its place."""

    wish: Wish
    box: Box
    far: bool
    """Whether it needs a line to its point."""


def wrapped(text: str, letters: int) -> tuple[str, ...]:
    """A text in lines of at most so many letters, broken between words only."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(joined) > letters:
            lines.append(word)
        else:
            lines[-1] = joined
    return tuple(lines)


def around(x: float, y: float, radius: float) -> Box:
    """The square around a point."""
    return Box(x - radius, y - radius, x + radius, y + radius)


def text_width(text: str) -> float:
    """About how wide a text is drawn."""
    return _LETTER * len(text)


def placed(wishes: Sequence[Wish], taken: Sequence[Box], frame: Box) -> list[Label]:
    """As many labels as find a free place, the first wish first; the others are left out.

    Args:
        wishes: what to write, by priority.
        taken: what must stay visible: points, other texts.
        frame: what no label leaves.
    """
    full, found = list(taken), []
    for wish in wishes:
        label = next(_free(wish, full, frame), None)
        if label is not None:
            found.append(label)
            full.append(label.box)
    return found


def _free(wish: Wish, full: Sequence[Box], frame: Box) -> Iterator[Label]:
    width, height = max(map(text_width, wish.lines)), LINE * len(wish.lines)
    for distance in _DISTANCES:
        for side in _SIDES:
            box = _beside(wish, side, distance, width, height)
            if box.inside(frame) and not any(box.meets(other) for other in full):
                yield Label(wish, box, distance > _DISTANCES[1])


def _beside(wish: Wish, side: tuple[int, int], distance: float, width: float, height: float) -> Box:
    across, down = side
    x = wish.x + across * (distance + width / 2)
    y = wish.y + down * (distance + height / 2)
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
