"""How close two sets of outputs are: the checks the gate makes of the numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tailorbird.domain.budget import Budget, Check
from tailorbird.domain.dtype import Array
from tailorbird.domain.fidelity import cosine, is_class_like, snr_db, strange
from tailorbird.domain.signature import Tensors

NOT_JUDGED = "not judged"
"""The limit of a number that is noted only."""


def compare(references: Tensors, outputs: Tensors, budget: Budget, where: str, judged: bool = True) -> Iterator[Check]:
    """Every rule of form and fidelity, for every output of one run.

    Args:
        references: outputs of the source, FP32.
        outputs: outputs of the engine for the same inputs.
        budget: the least allowed fidelity.
        where: place and output enter the checks' ``where``.
        judged: whether fidelity decides. Where labels do, its numbers are noted; form, NaN and Inf are judged anyway.
    """
    for name, reference in references.items():
        spot = f"{where}, {name}"
        if name not in outputs:
            yield Check("output", False, spot, "missing", "present")
            continue
        output = outputs[name]
        form = Check("dtype and shape", _form(output) == _form(reference), spot, _form(output), _form(reference))
        yield form
        if form.passed:
            yield from _compare_one(reference, output, budget, spot, judged)


def winners(references: Tensors, outputs: Tensors) -> Iterator[tuple[str, int, int]]:
    """Name, equal winners and rows of each class-like output that can be compared."""
    for name in [name for name in references if name in outputs]:
        reference, output = references[name], outputs[name]
        same_form = _form(output) == _form(reference)
        if same_form and is_class_like(reference) and not strange(reference, output):
            yield name, int(np.sum(reference.argmax(-1) == output.argmax(-1))), len(reference)


def at_least(rule: str, where: str, measured: float, limit: float, judged: bool = True) -> Check:
    """A check of a number that must not be less than its limit, or one that is only noted."""
    if not judged:
        return Check(rule, True, where, measured, NOT_JUDGED)
    return Check(rule, measured >= limit, where, measured, limit)


def _compare_one(reference: Array, output: Array, budget: Budget, spot: str, judged: bool) -> Iterator[Check]:
    if reference.dtype.kind != "f":
        equal = float(np.mean(reference == output)) if reference.size else 1.0
        yield at_least("equal elements", spot, equal, budget.top1, judged)
        return
    odd = strange(reference, output)
    yield Check("NaN or Inf", odd == 0, spot, float(odd), 0.0)
    if odd == 0:
        yield at_least("snr_db", spot, snr_db(reference, output), budget.snr_db, judged)
        yield at_least("cosine", spot, cosine(reference, output), budget.cosine, judged)


def _form(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
