"""Fidelity: how close one array is to another, in numbers."""

from __future__ import annotations

import numpy as np

from tailorbird.domain.dtype import Array

CAP_DB = 300.0
"""Stands for 'equal': doubles resolve about 313 dB, and JSON has no infinity."""


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


def _finite_pair(reference: Array, output: Array) -> tuple[Array, Array]:
    ref, out = reference.ravel().astype(np.float64), output.ravel().astype(np.float64)
    finite = np.isfinite(ref) & np.isfinite(out)
    return ref[finite], out[finite]
