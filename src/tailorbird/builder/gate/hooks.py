"""What metrics of one's own are often made of: words, characters and boxes.

::

    from tailorbird.builder.gate.hooks import word_accuracy

    def spoken(outputs, labels):                       # --metric mine:spoken
        return word_accuracy(my_decoder(outputs["logits"]), labels)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import UsageError

_RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads the precision."""


def word_accuracy(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """100 (1 - WER), in points; below 0 when more words are wrong than were said.

    WER is the word error rate: substitutions, deletions and insertions (the Levenshtein distance over words) of all
    texts together, over the words of all references.

    Args:
        hypotheses: what the model read or heard, one text a row.
        references: the right texts, in the same order; numpy arrays of text will do.

    Raises:
        UsageError: counts differ, or the references hold no word.
    """
    return _accuracy(_texts(hypotheses, str.split), _texts(references, str.split), "word")


def character_accuracy(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """100 (1 - CER), in points: :func:`word_accuracy` over characters, spaces among them."""
    return _accuracy(_texts(hypotheses, list), _texts(references, list), "character")


def levenshtein(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Least number of substitutions, deletions and insertions that make one sequence the other."""
    costs = list(range(len(other) + 1))
    for row, item in enumerate(one, 1):
        diagonal, costs[0] = costs[0], row
        for column, against in enumerate(other, 1):
            diagonal, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, diagonal + (item != against)),
            )
    return costs[-1]


def mean_average_precision(found: Sequence[Array], truth: Sequence[Array], iou: float = 0.5) -> float:
    """Mean over classes of the average precision of boxes, in points, as COCO takes it at one overlap.

    Boxes of a class are taken by falling score over all images; each is right when it overlaps a box of the truth of
    its image and class that no better one has taken by at least ``iou``. Average precision is the mean, at 101
    recalls from 0 to 1, of the best precision at that recall or a greater one (pycocotools, ``accumulate``). Classes
    without truth do not count. Crowds and areas are left out.

    Args:
        found: one array ``[boxes, 6]`` an image: x0, y0, x1, y1, score, class.
        truth: one array ``[boxes, 5]`` an image: x0, y0, x1, y1, class.
        iou: least intersection over union.

    Raises:
        UsageError: counts or shapes differ from that, or the truth holds no box.
    """
    if len(found) != len(truth):
        raise UsageError("images differ in number", got=f"{len(found)} with boxes found", expected=len(truth))
    answers = [_boxes(one, 6) for one in found]
    right = [_boxes(one, 5) for one in truth]
    classes = sorted({number for image in right for number in image[:, 4].tolist()})
    if not classes:
        raise UsageError("the truth holds no box", expected="one or more")
    each = [_average_precision(_of_class(answers, 5, one), _of_class(right, 4, one), iou) for one in classes]
    return 100.0 * float(np.mean(each))


def _accuracy(hypotheses: list[list[str]], references: list[list[str]], unit: str) -> float:
    if len(hypotheses) != len(references):
        raise UsageError("texts differ in number", got=len(hypotheses), expected=len(references))
    total = sum(map(len, references))
    if total == 0:
        raise UsageError(f"the references hold no {unit}", expected="one or more")
    wrong = sum(levenshtein(one, other) for one, other in zip(hypotheses, references, strict=True))
    return 100.0 * (1 - wrong / total)


def _texts(texts: Iterable[str | bytes], units: Callable[[str], list[str]]) -> list[list[str]]:
    plain = (text.decode() if isinstance(text, bytes) else str(text) for text in texts)
    return [units(text) for text in plain]


def _boxes(array: Array, columns: int) -> Array:
    array = np.asarray(array, np.float64)
    if array.size == 0:
        return np.zeros((0, columns))
    if array.ndim != 2 or array.shape[1] != columns:
        raise UsageError("boxes have the wrong shape", got=list(array.shape), expected=f"[boxes, {columns}]")
    return array


def _of_class(images: list[Array], column: int, number: float) -> list[Array]:
    return [boxes[boxes[:, column] == number] for boxes in images]


def _average_precision(found: list[Array], truth: list[Array], iou: float) -> float:
    """Of one class; ``truth`` holds at least one box."""
    order = sorted(((box[4], image, n) for image, boxes in enumerate(found) for n, box in enumerate(boxes)),
                   key=lambda one: -one[0])  # fmt: skip
    free = [np.ones(len(boxes), bool) for boxes in truth]
    hits = np.array([_takes(found[image][n], truth[image], free[image], iou) for _, image, n in order], bool)
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / sum(map(len, truth)), _RECALLS)
    return float(np.mean([envelope[n] if n < len(envelope) else 0.0 for n in at]))


def _takes(box: Array, truth: Array, free: Array, iou: float) -> bool:
    """Whether the box is right; if so, the box of the truth that it overlaps most is no longer free."""
    overlaps = np.where(free, _overlaps(box, truth), -1.0)
    if not overlaps.size or overlaps.max() < iou:
        return False
    free[overlaps.argmax()] = False
    return True


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of one box with each of ``others``."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:4], others[:, 2:4])
    shared = np.clip(high - low, 0, None).prod(1)
    union = (box[2:4] - box[:2]).prod() + (others[:, 2:4] - others[:, :2]).prod(1) - shared
    overlaps: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps
