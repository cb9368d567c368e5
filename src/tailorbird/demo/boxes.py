"""From the detector's probability map to boxes around lines of text, in reading order.

The steps and constants are those of DB (Liao et al., "Real-time Scene Text Detection with Differentiable
Binarization", AAAI 2020) as PaddleOCR configures it for PP-OCR: threshold the map, take its connected
regions, drop weak ones, and grow each, since the detector is trained on shrunken text. Boxes are upright,
which suffices for pages that are tilted by a degree or two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tailorbird.domain.dtype import Array

THRESHOLD = 0.3
"""A pixel is text from this probability on (PaddleOCR: ``thresh``)."""
BOX_THRESHOLD = 0.6
"""A region counts from this mean probability on (PaddleOCR: ``box_thresh``)."""
UNCLIP_RATIO = 1.5
"""How far a region grows: by ratio x area / perimeter on each side (DB, section 3.5; PaddleOCR: ``unclip_ratio``)."""
MIN_SIDE = 3
"""Regions thinner than this many pixels are specks."""


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels; right and bottom are just outside it."""

    left: int
    top: int
    right: int
    bottom: int
    score: float

    @property
    def width(self) -> int:
        """Pixels from side to side."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    def crop(self, pixels: Array) -> Array:
        """That part of an image (height x width x channels)."""
        return pixels[self.top : self.bottom, self.left : self.right]


def boxes(probabilities: Array) -> list[Box]:
    """Boxes around the text, in no order; the map is float, height x width, 0 to 1."""
    height, width = probabilities.shape
    found = (_box(region, probabilities) for region in regions(probabilities > THRESHOLD))
    return [grown(box, area, height, width) for box, area in found
            if box.score >= BOX_THRESHOLD and min(box.width, box.height) >= MIN_SIDE]  # fmt: skip


def rows(found: Iterable[Box]) -> list[list[Box]]:
    """Boxes in reading order: rows from the top, each from the left.

    A box joins the row whose last box lies level with it: the middle of each is within the other.
    """
    grouped: list[list[Box]] = []
    for box in sorted(found, key=lambda box: box.top + box.bottom):
        row = next((row for row in grouped if _level(row[-1], box)), None)
        if row is None:
            grouped.append([box])
        else:
            row.append(box)
    return [sorted(row, key=lambda box: box.left) for row in grouped]


def grown(box: Box, area: int, height: int, width: int) -> Box:
    """The box with each side moved out by ``UNCLIP_RATIO * area / perimeter``, within the image."""
    by = round(UNCLIP_RATIO * area / (2 * (box.width + box.height)))
    return Box(max(box.left - by, 0), max(box.top - by, 0),
               min(box.right + by, width), min(box.bottom + by, height), box.score)  # fmt: skip


Run = tuple[int, int, int]
"""Row, first column, column after the last."""


def regions(mask: Array) -> list[list[Run]]:
    """Connected regions (sides or corners touch) of a Boolean map, each as its horizontal runs.

    Two passes over runs instead of pixels: a run joins every run of the row above that it touches, and
    joined runs find one another through the smallest number among them.
    """
    runs = list(_runs(mask))
    parent = list(range(len(runs)))
    for upper, lower in _touching(runs):
        first, second = sorted((_root(parent, upper), _root(parent, lower)))
        parent[second] = first
    grouped = defaultdict(list)
    for number, run in enumerate(runs):
        grouped[_root(parent, number)].append(run)
    return list(grouped.values())


def _runs(mask: Array) -> Iterator[Run]:
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    for (row, start), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True):
        yield row, start, end


def _touching(runs: list[Run]) -> Iterator[tuple[int, int]]:
    """Pairs of runs, by number, that lie in neighbouring rows and touch."""
    by_row = defaultdict(list)
    for number, run in enumerate(runs):
        by_row[run[0]].append(number)
    for row, lower in by_row.items():
        for number in lower:
            _, start, end = runs[number]
            for upper in by_row.get(row - 1, ()):
                if runs[upper][1] <= end and start <= runs[upper][2]:
                    yield upper, number


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


def _box(region: list[Run], probabilities: Array) -> tuple[Box, int]:
    """The region's box with its mean probability, and its area in pixels."""
    area = sum(end - start for _, start, end in region)
    total = sum(float(probabilities[row, start:end].sum()) for row, start, end in region)
    left, right = min(run[1] for run in region), max(run[2] for run in region)
    return Box(left, region[0][0], right, region[-1][0] + 1, total / area), area


def _level(first: Box, second: Box) -> bool:
    middles = (first.top + first.bottom) / 2, (second.top + second.bottom) / 2
    return first.top <= middles[1] < first.bottom and second.top <= middles[0] < second.bottom
