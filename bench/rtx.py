"""Does the real TensorRT-RTX builder take the zoo? Every model in every precision, on a machine without a GPU.

Each model is built as for a target that is not here: normalised, lowered, calibrated on real inputs, compiled for a
range of shapes, nothing run. The table says what each engine took and weighs, and in which precision the builder
planned its layers; what it refused stands there with its reason.

``python -m bench.rtx [MODEL ...] [--target TARGET] [--precision P ...]`` prints the table in Markdown, and ends with
status 1 where an engine was refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tailorbird
from bench import zoo
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.workdir import workdir
from tailorbird.domain.errors import NoEngineError
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.profile import format_shapes

SAMPLES = 4
"""Sets of real inputs: two to calibrate on, two to look at."""

_PLANNED = "info: layers as planned: "


def shapes_of(model: zoo.ZooModel) -> dict[str, str]:
    """From one row to eight, at the size it is measured at; what else is dynamic stays at that size."""
    ranges = {"min": 1, "max": 8}
    found = {f"{edge}_shapes": {name: (rows, *dims[1:]) for name, dims in model.shapes.items()}
             for edge, rows in ranges.items()}  # fmt: skip
    return {key: format_shapes(shapes) for key, shapes in (found | {"opt_shapes": dict(model.shapes)}).items()}


def build(name: str, target: str, precisions: Sequence[str]) -> Iterator[tuple[Outcome, str]]:
    """Every candidate of one model, with the builder's plan of its layers in words."""
    model, plans = zoo.get(name), dict[str, str]()

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "said":
            plans[event["candidate"]] = next((line.removeprefix(_PLANNED) for line in event["messages"]
                                              if line.startswith(_PLANNED)), "")  # fmt: skip

    with workdir() as folder:
        for seed in range(SAMPLES):
            save_set(folder / f"{seed}.npz", model.sample(seed))
        for outcome in _outcomes(zoo.path(name), target, precisions, folder, hear, shapes_of(model)):
            yield outcome, plans.get(outcome.candidate.name, "")


def row(name: str, outcome: Outcome, plan: str) -> str:
    """One line of the table."""
    _, way = outcome.candidate.name.split(" ", 1)
    if outcome.status not in {Status.CHOSEN, Status.NOT_RUN}:
        return f"| {name} | {way} | – | – | **{outcome.status}**: {outcome.reason} |"
    return f"| {name} | {way} | {outcome.build_seconds:.1f} | {outcome.engine_bytes / 1e6:.1f} | {plan} |"


def _outcomes(path: Path, target: str, precisions: Sequence[str], data: Path, hear: Any, shapes: dict[str, str]) -> Any:
    settings: dict[str, Any] = {
        "budget": "snr >= 1, cosine >= 0.1",  # random weights tell of builders, not of accuracy
        "target": target,
        "data": str(data),
        "cache": str(data / "cache"),
        "time_budget": 0.0,
        **shapes,
    }
    try:
        found = tailorbird.build(path, observers=(hear,), precisions=tuple(precisions), **settings).table
    except NoEngineError as error:
        found = error.outcomes
    return sorted(found, key=lambda one: one.candidate.name)


def main() -> int:
    """Build what was named, or all."""
    parser = argparse.ArgumentParser("python -m bench.rtx", description=main.__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--target", default="tensorrt_rtx:cuda:sm89")
    parser.add_argument("--precision", action="append", default=[], metavar="P")
    arguments = parser.parse_args()
    print("| model | candidate | seconds | MB | layers as planned |\n|---|---|---|---|---|")
    refused = 0
    for name in arguments.models or [model.name for model in zoo.ZOO]:
        for outcome, plan in build(name, arguments.target, arguments.precision):
            refused += outcome.status not in {Status.CHOSEN, Status.NOT_RUN}
            print(row(name, outcome, plan), flush=True)
    return min(refused, 1)


if __name__ == "__main__":
    sys.exit(main())
