"""Three tasks with labels, on which an engine is scored: handwritten digits, file types and lines of text.

Each is a module of the shape of :class:`Task`. Its splits are disjoint: a build, ours or a naive one, is given
``calibration`` and ``gate``; ``test`` gives the score that is printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Sample = dict[str, Array]

LABELS = "labels"
"""The key under which a sample carries its labels, one row for each row of inputs."""

NAMES = ("digits", "filetypes", "text")
SPLITS = ("calibration", "gate", "test")


class Task(Protocol):
    """A trained model, labelled inputs, and how answers are scored."""

    metric: str
    """``top1``, or ``module:callable(outputs, labels) -> float``: a mean over rows from 0 to 100."""
    shapes: str
    """The shape of every sample, in trtexec's grammar."""

    def model(self) -> Path:
        """The FP32 model as an ONNX file, made first if it is absent."""

    def samples(self, split: str, seed: int = 0) -> list[Sample]:
        """Labelled samples of one split; the seed draws or orders them, and never moves a row to another split."""

    def data(self) -> Iterator[Sample]:
        """What a build is given: all of ``calibration``, then all of ``gate``."""


def get(name: str) -> Task:
    """The task of that name."""
    if name not in NAMES:
        raise ValueError(f"no task {name!r}; there are {', '.join(NAMES)}")
    return cast(Task, import_module(f"bench.tasks.{name}"))


def in_batches(rows: Mapping[str, Array], size: int) -> list[Sample]:
    """Samples of ``size`` rows each; rows that do not fill a last one are left out, so that all have one shape."""
    count = min(len(array) for array in rows.values()) // size
    return [
        {name: np.ascontiguousarray(array[number * size : (number + 1) * size]) for name, array in rows.items()}
        for number in range(count)
    ]


def top1(outputs: Mapping[str, Array], labels: Array) -> float:
    """Percent of rows whose greatest score is that of the labelled class.

    Args:
        outputs: the first is rows x classes.
        labels: whole numbers, one for each row.
    """
    scores = next(iter(outputs.values()))
    return float(100 * np.mean(scores.argmax(axis=1) == labels))
