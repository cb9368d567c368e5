"""Metrics: outputs scored against labels, by built-in rules or the user's own.

A built-in metric runs from 0 to 100 points. It finds its output by rule, and where the rule finds none or
several it says so instead of guessing.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from tailorbird.domain.budget import Budget
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import UsageError, nearest

DEFAULT = "top1"
"""The metric where there are labels and nobody named one."""

BUILT_IN = ("top1", "top5", "f1", "accuracy")
"""Names to show; ``top<k>`` goes for any k."""

Metric = Callable[[dict[str, Array], Array], Any]

_TOP = re.compile(r"top([1-9]\d*)")
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_YOURS = "give a metric of your own: --metric module:callable, from (outputs, labels) to a number"


def resolve_metric(config_metric: str, budget: Budget, labelled: bool) -> str:
    """The one metric that decides, or ``""`` where there are no labels and none was asked for.

    Args:
        config_metric: from the settings; empty when nothing was said.
        budget: may name a metric, too: ``top1 drop <= 0.5``.
        labelled: whether the data has labels.

    Raises:
        UsageError: two metrics were named, one was named without labels, or there is none of that name.
    """
    named = tuple(dict.fromkeys(name for name in (config_metric, budget.metric) if name))
    if len(named) > 1:
        raise UsageError("the budget is for another metric", got=budget.metric, expected=config_metric,
                         hint="name one of them only")  # fmt: skip
    for name in named:
        _check_name(name)
    if not labelled and (named or budget.drop is not None):
        raise UsageError("a metric needs labels", got=", ".join(named), expected="data with labels",
                         hint='give labels in the data (--labels names their key), or say the budget as "99%": '
                              "without labels it is the least agreement with FP32")  # fmt: skip
    return (*named, DEFAULT)[0] if labelled else ""


def find_metric(name: str) -> Metric:
    """The metric of that name, its module imported; raises :class:`UsageError` when there is none."""
    _check_name(name)
    if ":" not in name:
        return _built_in(name)
    module, _, function = name.partition(":")
    try:
        found: Metric = getattr(importlib.import_module(module), function)
    except Exception as error:  # importing runs the user's code
        raise UsageError(f"cannot load the metric {name}", got=_words(error), expected="module:callable") from error
    if not callable(found):
        raise UsageError(f"the metric {name} cannot be called", got=type(found).__name__, expected="a callable")
    return found


def score(metric: str, outputs: dict[str, Array], labels: Array) -> float:
    """What the outputs score against the labels; more is better.

    Args:
        metric: a built-in name (0 to 100 points) or ``module:callable``, in units of its own.
        outputs: by name; each holds as many rows as there are labels.
        labels: first axis = rows.

    Raises:
        UsageError: no such metric, it finds no output it can score, it raised, or its result is not a finite number.
    """
    function = find_metric(metric)
    if ":" not in metric:
        return float(function(outputs, labels))
    try:
        result = function(outputs, labels)
    except Exception as error:
        raise UsageError(f"the metric {metric} raised", got=_words(error), expected="a number") from error
    if isinstance(result, bool) or not isinstance(result, Real):
        got = f"{result!r:.80} of type {type(result).__name__}"
        raise UsageError(f"the metric {metric} gave no number", got=got, expected="a number, more is better")
    if not math.isfinite(result):
        raise UsageError(f"the metric {metric} gave no finite number", got=float(result), expected="a finite number")
    return float(result)


def _check_name(name: str) -> None:
    if name in BUILT_IN or _TOP.fullmatch(name) or _OWN.fullmatch(name):
        return
    close = nearest(name, BUILT_IN)
    raise UsageError(f"unknown metric '{name}'", expected=", ".join((*BUILT_IN, "module:callable")),
                     hint=f"did you mean '{close}'?" if close else None)  # fmt: skip


def _built_in(name: str) -> Metric:
    if found := _TOP.fullmatch(name):
        return lambda outputs, labels: _top(int(found[1]), outputs, labels)
    return {"f1": _f1, "accuracy": _accuracy}[name]


def _top(k: int, outputs: Mapping[str, Array], labels: Array) -> float:
    """Share of rows whose label is among the k largest elements; of equal ones the first counts, as in argmax."""
    scores, classes = _class_like(f"top{k}", outputs, labels)
    if k >= scores.shape[1]:
        raise UsageError(f"top{k} says nothing about {scores.shape[1]} classes", expected="more classes than that")
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k]
    return 100.0 * float(np.mean((best == classes[:, None]).any(1)))


def _f1(outputs: Mapping[str, Array], labels: Array) -> float:
    """Macro F1: the mean over classes of 2 TP / (2 TP + FP + FN), of every class that is labelled or answered."""
    scores, classes = _class_like("f1", outputs, labels)
    answers = scores.argmax(1)
    each = [2 * np.sum((answers == one) & (classes == one)) / (np.sum(answers == one) + np.sum(classes == one))
            for one in np.union1d(answers, classes)]  # fmt: skip
    return 100.0 * float(np.mean(each))


def _accuracy(outputs: Mapping[str, Array], labels: Array) -> float:
    """Share of equal elements of the only whole-number output that is shaped as the labels are: tokens, a mask."""
    fitting = {name: array for name, array in outputs.items()
               if array.dtype.kind in "iub" and _without_ones(array) == _without_ones(labels)}  # fmt: skip
    only = _only("accuracy", fitting, outputs, f"one whole-number output shaped as the labels {list(labels.shape)}")
    _check_whole("accuracy", labels)
    return 100.0 * float(np.mean(only.reshape(labels.shape) == labels))


def _class_like(metric: str, outputs: Mapping[str, Array], labels: Array) -> tuple[Array, Array]:
    """The output ``[rows, classes]`` and the labels ``[rows]`` as classes of it."""
    rows = len(labels)
    tables = {name: array for name, array in outputs.items() if array.dtype.kind == "f" and array.ndim == 2}
    fitting = {name: array for name, array in tables.items() if array.shape[0] == rows and array.shape[1] > 1}
    found = _only(metric, fitting, outputs, f"one float output [{rows} rows, classes]")
    _check_whole(metric, labels)
    if labels.size != rows:
        raise UsageError(f"{metric} takes one label a row", got=list(labels.shape), expected=[rows])
    classes = labels.reshape(rows)
    outside = classes[(classes < 0) | (classes >= found.shape[1])]
    if outside.size:
        raise UsageError("a label is no class of the output", got=outside[0], expected=f"0 to {found.shape[1] - 1}")
    return found, classes


def _only(metric: str, fitting: Mapping[str, Array], outputs: Mapping[str, Array], expected: str) -> Array:
    if len(fitting) != 1:
        shown = fitting or outputs
        got = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in shown.items())
        said = "cannot tell which output to score" if fitting else "finds no output to score"
        raise UsageError(f"{metric} {said}", got=got, expected=expected, hint=_YOURS)
    return next(iter(fitting.values()))


def _check_whole(metric: str, labels: Array) -> None:
    if labels.dtype.kind not in "iub":
        raise UsageError(f"{metric} takes whole numbers as labels", got=labels.dtype, hint=_YOURS)


def _without_ones(array: Array) -> tuple[int, ...]:
    """The shape after the rows' axis, less axes of size 1: labels [rows, 1] are as good as [rows]."""
    return (*array.shape[:1], *(size for size in array.shape[1:] if size != 1))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
