"""The gate of a build, held against what was timed: fidelity to eager FP32, rows, repetition, at every batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from bench.gpu_parts.timing import Runner
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case, Trial, judge
from tailorbird.domain.budget import Budget
from tailorbird.domain.dtype import Array
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Tensors


def verdict(model: Any, runners: Mapping[int, Runner], precision: Precision) -> dict[str, Any]:
    """Every check of the gate on one way of running a model, its engines of all batches taken together.

    A row is asked alone of the engine for one row, beside others of those for more: they must agree.

    Returns:
        ``passed``, the least ``snr_db``, ``cosine``, ``top1`` and agreement of rows, and the checks that failed.
    """

    def run(tensors: Tensors) -> dict[str, Array]:
        given = [torch.from_numpy(np.ascontiguousarray(tensors[name])) for name in model.inputs(1, 0)]
        found = runners[len(given[0])].answer(given)
        return {name: one.float().cpu().numpy() for name, one in zip(model.outputs, found, strict=True)}

    fewest = min(runners)
    executed = {"all": str(precision)}
    report = judge(run, _trials(model, runners), Budget(), precision, executed, fewest)
    least: dict[str, float] = {}
    for check in report.checks:
        if isinstance(check.measured, float):
            least[check.rule] = min(round(check.measured, 5), least.get(check.rule, float("inf")))
    failed = [f"{check.rule} ({check.where}): {check.measured} against {check.limit}"
              for check in report.checks if not check.passed]  # fmt: skip
    return {"passed": not failed and bool(report.checks), "least": least, "failed": failed[:5]}


def _trials(model: Any, runners: Mapping[int, Runner]) -> Iterator[Trial]:
    for batch in runners:
        for seed in (11, 12):
            given = model.inputs(batch, seed)
            inputs = {name: one.numpy() for name, one in given.items()}
            answers = {name: one.cpu().numpy() for name, one in model.reference(given).items()}
            place = Place(f"b{batch}", {name: one.shape for name, one in inputs.items()}, batch)
            yield Trial(Case(place, "", "", real=True), inputs, answers)
