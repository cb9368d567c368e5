"""Builds as they really come out: INT8 refused, mixed precision searched for, candidates not tried."""

from collections.abc import Sequence
from typing import Any

from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.manifest import EngineFormat, Manifest, Provenance
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation, Ranges
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.domain.target import Target

SHAPES = {"image": (1, 3, 224, 224)}
BASELINE = "onnxruntime fp32 static t2"
WINNER = "openvino int8 static t2 nncf bf16-rest kept9"
PLACE = "opt 1x3x224x224"
FP32_SCORE = 78.125
LABELLED_ROWS = 256


def candidate(runtime: str, precision: str, threads: int = 2, way: Quantisation | None = None) -> Candidate:
    target = Target(runtime, "cpu", "avx512")
    return Candidate(target, Precision(precision), Profile.static(SHAPES), ShapeMode.STATIC, threads, {}, way)


def way(method: str, rest: str = "fp32", kept: int = 0, ranges: Ranges | None = Ranges.MINMAX) -> Quantisation:
    return Quantisation(method, Precision(rest), ranges, tuple(f"/layer{n}/conv/Conv" for n in range(kept)))


def row(median: float, edge: str = "opt", rows: int = 1, instances: int = 1) -> LatencyRow:
    shapes = {name: (rows, *shape[1:]) for name, shape in SHAPES.items()}
    return LatencyRow(edge, shapes, rows, instances, Latency.of([median * (0.97 + 0.01 * n) for n in range(7)]))


def gate(snr: float, score: float | None = None, rows_db: float = 62.0) -> GateReport:
    checks = [
        Check("executed precision", True, "all layers", "int8 x52 bf16 x9", "int8"),
        Check("elements to compare", True, "all places, logits", 4000.0, 1.0),
        Check("dtype and shape", True, f"{PLACE}, logits", "float32[1, 1000]", "float32[1, 1000]"),
        Check("NaN or Inf", True, f"{PLACE}, logits", 0.0, 0.0),
    ]
    limit: float | str = 20.0 if score is None else "not judged"
    held = score is not None or snr >= 20.0
    checks += [Check("snr_db", held, f"{PLACE}, logits", snr + n, limit) for n in range(4)]
    checks += [Check("same input again", True, PLACE, rows_db, 20.0)]
    if score is not None:
        least = Budget().least(FP32_SCORE)
        where = f"{PLACE}, {LABELLED_ROWS} rows"
        checks.append(Check("metric top1", score >= least, where, score, least, FP32_SCORE))
    return GateReport(tuple(checks))


def _tried(one: Candidate, median: float, snr: float, score: float | None, status: Status, reason: str) -> Outcome:
    judged = gate(snr, score)
    status = status if judged.passed else Status.REFUSED
    return Outcome(one, status, reason if judged.passed else judged.verdict, (row(median),), judged, {"int8": 52})


def outcomes(labelled: bool = False) -> tuple[Outcome, ...]:
    """Twenty-four rows; with labels the metric decides."""

    def tried(one: Candidate, median: float, snr: float, score: float, status: Status = Status.SLOWER) -> Outcome:
        reason = f"{median / 3.31:.2f}x the chosen engine's latency, measured in turn"
        if status is Status.CHOSEN:
            reason = "1.09x as fast as openvino int8 static t2 nncf bf16-rest kept18, beyond the noise (0.3 > 0.04 ms)"
        return _tried(one, median, snr, score if labelled else None, status, reason)

    chosen = tried(candidate("openvino", "int8", 2, way("nncf", "bf16", 9)), 3.31, 21.4, 77.734, Status.CHOSEN)
    rows = [
        tried(candidate("openvino", "int8", 2, way("nncf", "bf16", 18)), 3.62, 24.9, 78.125),
        tried(candidate("openvino", "bf16"), 4.41, 41.2, 78.125),
        tried(candidate("openvino", "int8", 2, way("nncf", "fp32", 9)), 4.02, 21.9, 77.734),
        tried(candidate("openvino", "fp32", 2, way("weights", "fp32", 0, None)), 8.8, 33.0, 78.125),
        tried(candidate("openvino", "fp32"), 9.12, 118.0, 78.125),
        tried(candidate("onnxruntime", "fp32"), 9.71, 121.0, 78.125),
        tried(candidate("openvino", "bf16", 1), 8.05, 41.2, 78.125),
        tried(candidate("onnxruntime", "int8", 2, way("qdq")), 4.9, 16.3, 76.0),
        tried(candidate("onnxruntime", "int8", 2, way("qdq", "fp32", 6)), 5.3, 18.1, 76.9),
        tried(candidate("onnxruntime", "int8", 2, way("qdq", "fp32", 14)), 5.9, 20.6, 77.5),
        tried(candidate("onnxruntime", "int8", 2, way("qoperator")), 5.1, 15.9, 75.6),
        tried(candidate("onnxruntime", "int8", 2, way("dynamic", "fp32", 0, None)), 14.2, 14.0, 74.1),
        tried(candidate("openvino", "int8", 2, way("nncf", "bf16")), 2.72, 12.3, 61.3),
        tried(candidate("openvino", "int8", 2, way("nncf", "bf16", 3)), 2.91, 15.8, 71.9),
        tried(candidate("openvino", "int8", 2, way("nncf", "bf16", 6)), 3.08, 18.7, 76.6),
        tried(candidate("openvino", "int8", 2, way("nncf", "bf16", 0, Ranges.PERCENTILE)), 2.75, 9.1, 44.0),
    ]
    stopped = candidate("onnxruntime", "fp32", 1)
    late = "2.84x the best at a first look, cannot win; not gated"
    crashed = Outcome(candidate("onnxruntime", "int8", 2, way("qdq", ranges=Ranges.ENTROPY)), Status.CRASHED,
                      "the step died: signal 11 (segmentation fault) while compiling [node 3]")  # fmt: skip
    return (chosen, *rows, Outcome(stopped, Status.STOPPED, late, (row(17.9),)), crashed, *_not_tried())


def _not_tried() -> list[Outcome]:
    ways = [way("nncf"), way("nncf", "bf16"), way("qdq"), way("qoperator"), way("dynamic", ranges=None)]
    refused = [Outcome(candidate("openvino", "int8", 1, one), Status.NOT_TRIED, "on 2 threads it was gate failed")
               for one in ways]  # fmt: skip
    rest = [Outcome(candidate("openvino", "int8", 2, way("nncf", ranges=ranges)), Status.NOT_TRIED,
                    "with bf16 for the rest it passed") for ranges in (Ranges.MINMAX, Ranges.PERCENTILE)]  # fmt: skip
    return [*refused, *rest]


def manifest(labelled: bool = False, rows: Sequence[Outcome] = ()) -> Manifest:
    table = tuple(rows) or outcomes(labelled)
    chosen = table[0]
    side_by_side = tuple(row(one[0], *one[1:]) for one in ((3.35, "opt", 1, 1), (3.9, "opt", 1, 2)))
    assert chosen.gate is not None
    return Manifest(
        model="resnet50",
        candidate=chosen.candidate,
        format=EngineFormat("openvino", "", "model.xml"),
        signature=Signature((TensorSpec("image", DType.FP32, (1, 3, 224, 224)),),
                            (TensorSpec("logits", DType.FP32, (1, 1000)),)),
        files={},
        executed={"int8": 52, "bf16": 9},
        latency=(*chosen.latency, *side_by_side[1:]),
        gate=chosen.gate,
        budget=Budget(),
        outcomes=table,
        baseline=BASELINE,
        provenance=Provenance("resnet50.onnx", "sha256:5f1c", "sha256:77aa", ("fold constants", "infer shapes"),
                              {"tailorbird": "0.2.0", "openvino": "2026.4"}, {"cpu": "a CPU", "cores": "2"},
                              "2026-01-01T00:00:00+00:00"),
    )  # fmt: skip


def events(objective: str = "latency", slo_ms: float | None = None) -> list[dict[str, Any]]:
    """The lines of its build log that people are told of."""
    noises = (0.031, 0.012, 0.006, 0.004, 0.0021, 0.0017, 0.0012, 0.0009, 0.0006, 0.0004, 0.0003, 0.0001)
    groups = [{"units": 4 + n % 2, "first": f"/layer{n % 4 + 1}/layer{n % 4 + 1}.{n}/conv1/Conv",
               "noise": {"logits": noise}} for n, noise in enumerate(noises)]  # fmt: skip
    return [
        {"event": "started", "at": 0.0, "config": {"objective": objective, "slo_ms": slo_ms}},
        {"event": "normalised", "at": 0.8, "passes": ["fold constants"], "notes": []},
        {"event": "cases", "at": 1.1, "profile": "image:1x3x224x224", "real": 4, "calibration": 128, "labelled": True,
         "notes": ["128 of 512 samples calibrate, 256 are judged"], "places": {"opt": SHAPES}},
        {"event": "candidates", "at": 2.0, "names": [one.candidate.name for one in outcomes()], "baseline": BASELINE,
         "left_out": ["dynamic: offers no entropy calibration"]},
        {"event": "quantised", "at": 9.0, "method": "nncf", "units": 53, "cached": False,
         "notes": ["the softmax stays in float"], "seconds": 6.4},
        {"event": "sensitivity", "at": 60.0, "candidate": "openvino int8 static t2 nncf bf16-rest", "groups": groups},
        {"event": "mixed", "at": 80.0, "seed": "onnxruntime int8 static t2 qdq",
         "stopped": "the time budget was used up"},
    ]  # fmt: skip
