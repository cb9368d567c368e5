"""How close two sets of outputs are: the numbers the gate judges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tailorbird.domain.budget import Budget, Check
from tailorbird.domain.dtype import Array
from tailorbird.domain.signature import Tensors

CAP_DB = 300.0
"""Stands for 'equal': doubles resolve about 313 dB, and JSON has no infinity."""

NOT_JUDGED = "not judged"
"""The limit of a number that is noted only."""


def snr_db(reference: Array, output: Array) -> float:
    """10 log10(sum(ref^2) / sum((ref - out)^2)) in dB over finite elements, between -300 and 300."""
    ref, out = _finite_pair(reference, output)
    signal, noise = float(np.dot(ref, ref)), float(np.dot(ref - out, ref - out))
    return decibels(signal, noise)


def decibels(signal: float, noise: float) -> float:
    """The ratio of two energies in dB, between -300 and 300; no noise is 300, anything without meaning -300."""
    if noise == 0.0:
        return CAP_DB
    if not 0.0 < signal < np.inf or not noise < np.inf:
        return -CAP_DB
    return float(np.clip(10 * (np.log10(signal) - np.log10(noise)), -CAP_DB, CAP_DB))


def cosine(reference: Array, output: Array) -> float:
    """Cosine of the angle between two flattened arrays; 1.0 when both are zero."""
    ref, out = _finite_pair(reference, output)
    norms = float(np.linalg.norm(ref) * np.linalg.norm(out))
    if norms == 0.0:
        return 1.0 if not (ref.any() or out.any()) else 0.0
    return float(np.dot(ref, out)) / norms if np.isfinite(norms) else 0.0


def top1_agreement(reference: Array, output: Array) -> float:
    """Share of rows whose largest element is at the same index. Arrays are ``[rows, classes]``."""
    return float(np.mean(reference.argmax(-1) == output.argmax(-1)))


def strange(reference: Array, output: Array) -> int:
    """Elements of the output that are NaN or infinite where the reference holds anything else."""
    same = (output == reference) | (np.isnan(output) & np.isnan(reference))
    return int(np.sum(~np.isfinite(output) & ~same))


def is_class_like(reference: Array) -> bool:
    """Whether an output is a distribution over classes: ``[rows, classes]``, each row >= 0 and summing to 1."""
    if reference.ndim != 2 or reference.shape[0] == 0 or reference.shape[1] < 2 or reference.dtype.kind != "f":
        return False
    return bool((reference >= 0).all() and np.allclose(reference.sum(-1), 1.0, atol=1e-3))


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


def _finite_pair(reference: Array, output: Array) -> tuple[Array, Array]:
    ref, out = reference.ravel().astype(np.float64), output.ravel().astype(np.float64)
    finite = np.isfinite(ref) & np.isfinite(out)
    return ref[finite], out[finite]
