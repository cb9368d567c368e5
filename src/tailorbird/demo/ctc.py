"""From the recogniser's probabilities to text: greedy CTC decoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import ModelError

BLANK = 0
"""The class that stands for no character; the alphabet starts after it."""


def alphabet(model: Path) -> list[str]:
    """The recogniser's characters by class: the blank, those in its metadata, and a space.

    Raises:
        ModelError: the model carries no characters.
    """
    from tailorbird.builder.sources.onnx_file import read_model

    listed = {entry.key: entry.value for entry in read_model(model).metadata_props}
    if "character" not in listed:
        raise ModelError(f"{model.name} names no characters", got=", ".join(listed) or "no metadata",
                         expected="the metadata 'character'")  # fmt: skip
    return ["", *listed["character"].split("\n"), " "]


def decode(probabilities: Array, characters: Sequence[str]) -> tuple[str, float]:
    """Text and confidence of one strip.

    The best class of each step; repeats are one character, unless a blank lies between them (Graves et
    al., "Connectionist Temporal Classification", ICML 2006, best path decoding).

    Args:
        probabilities: float, steps x classes.
        characters: one for each class.

    Returns:
        The text, and the mean probability of the steps that gave its characters (0 without any).
    """
    best = probabilities.argmax(axis=1)
    kept = (best != BLANK) & np.diff(best, prepend=BLANK).astype(bool)
    text = "".join(characters[number] for number in best[kept])
    return text, float(probabilities.max(axis=1)[kept].mean()) if kept.any() else 0.0


def characters_right(expected: str, read: str) -> float:
    """The share of expected characters that were read, 0 to 1: one less the edit distance over their count.

    White space at the ends and its amount in between do not count.
    """
    wanted, got = " ".join(expected.split()), " ".join(read.split())
    return max(0.0, 1 - edits(wanted, got) / max(len(wanted), 1))


def edits(first: str, second: str) -> int:
    """Levenshtein's distance: the fewest insertions, deletions and replacements that turn one into the other."""
    above = list(range(len(second) + 1))
    for row, left in enumerate(first, 1):
        line = [row]
        for column, right in enumerate(second, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (left != right)))
        above = line
    return above[-1]
