"""The INT8 peers: NNCF as its documentation shows it, plain, and with its own accuracy control.

Each makes an OpenVINO model in a process of its own; the contest then runs that as it runs OpenVINO. Nothing is set
that a user would not set, besides that no telemetry is sent and the remaining weights stay FP32 on disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bench.contest import words
from bench.contestants import Feeds, Turn, named
from tailorbird.backends.isolate import Worker
from tailorbird.builder.cases.data import load_set
from tailorbird.builder.gate.fidelity import compare
from tailorbird.builder.quantise.nncf_package import load_nncf
from tailorbird.domain.budget import Budget, GateReport
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.fidelity import CAP_DB

TRANSFORMERS = frozenset({"minilm", "vit-base", "bert-base"})
"""NNCF's documentation asks for ``model_type=TRANSFORMER`` for these."""

ROOT = str(Path(__file__).resolve().parent.parent)
NNCF_SECONDS = 400.0
SCORE_CAP_DB = 60.0
"""Beyond this two FP32 computations differ by rounding alone, and a better score would mean nothing."""

VALIDATION_SETS = 16
"""Of the data, the last ones: what accuracy control scores on. It calibrates on the others."""


class PeerArgs(msgspec.Struct, frozen=True):
    """A model, sets to calibrate on and to score, and where the quantised model goes."""

    model: str
    calibration: tuple[str, ...]
    target: str
    transformer: bool
    validation: tuple[tuple[str, str], ...] = ()
    """Inputs and FP32's answers to them, by file; accuracy control alone needs them."""
    budget: Budget = Budget()


class Made(msgspec.Struct, frozen=True):
    """A peer's model and the seconds it took, or why there is none."""

    model: str = ""
    seconds: float = 0.0
    failure: str = ""


def plain(args: PeerArgs) -> Made:
    """``nncf.quantize`` with its defaults."""
    nncf, model = load_nncf(), _read(args.model)
    return _saved(nncf.quantize(model, _inputs(args.calibration), **_model_type(args)), args)


def controlled(args: PeerArgs) -> Made:
    """``nncf.quantize_with_accuracy_control``, scored by the gate's own signal-to-noise ratio.

    The drop that is allowed is what lies between the FP32 model's score, as OpenVINO runs it, and the budget.
    """
    nncf, model = load_nncf(), _read(args.model)
    pairs = nncf.Dataset(args.validation)
    score = _scorer(args.budget)
    unquantised, _ = score(_compiled(model), args.validation)
    drop = max(0.0, unquantised - args.budget.snr_db)
    found = nncf.quantize_with_accuracy_control(
        model, _inputs(args.calibration), pairs, score, max_drop=drop, **_model_type(args)
    )
    return _saved(found, args)


def made(function: str, args: PeerArgs, seconds: float, log: Path) -> Made:
    """What ``bench.peers:function`` makes in a process of its own; whatever happens to it becomes a record."""
    started = time.perf_counter()
    with Worker(Limits(seconds=seconds), log, (ROOT,)) as worker:
        try:
            found = worker.call(f"{__name__}:{function}", args, Made)
        except TailorbirdError as error:
            spent = round(time.perf_counter() - started, 1)
            return Made(seconds=spent, failure=words(error))
    return msgspec.structs.replace(found, seconds=round(time.perf_counter() - started, 1))


def entered(found: Made, inputs: Path, threads: int) -> Turn:
    """How a peer's model takes part."""
    return Turn("openvino", found.model, str(inputs), threads)


def score_db(report: GateReport) -> float:
    """One number that grows with fidelity: the least SNR over all outputs, capped; none where the form is broken."""
    broken = any(not check.passed for check in report.checks if check.rule not in ("snr_db", "cosine"))
    worst = report.worst("snr_db")
    if broken:
        return -CAP_DB
    return SCORE_CAP_DB if worst is None else min(worst, SCORE_CAP_DB)


def _scorer(budget: Budget) -> Any:
    """NNCF's validation function: the least score over the sets, and that of each."""

    def score(model: Any, pairs: Iterable[tuple[str, str]]) -> tuple[float, list[float]]:
        scores = [score_db(_fidelity(model, *pair, budget)) for pair in pairs]
        return min(scores), scores

    return score


def _fidelity(model: Any, inputs: str, outputs: str, budget: Budget) -> GateReport:
    references: Feeds = load_set(Path(outputs))
    answered = named(tuple(references), model(load_set(Path(inputs))))
    return GateReport(tuple(compare(references, answered, budget, "validation")))


def _inputs(files: tuple[str, ...]) -> Any:
    return load_nncf().Dataset(files, lambda file: load_set(Path(file)))


def _model_type(args: PeerArgs) -> dict[str, Any]:
    return {"model_type": load_nncf().ModelType.TRANSFORMER} if args.transformer else {}


def _read(model: str) -> Any:
    import openvino

    return openvino.Core().read_model(model)


def _compiled(model: Any) -> Any:
    import openvino

    return openvino.Core().compile_model(model, "CPU")


def _saved(model: Any, args: PeerArgs) -> Made:
    import openvino

    openvino.save_model(model, args.target, compress_to_fp16=False)
    return Made(args.target)
