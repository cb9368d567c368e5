"""The gate: for every rule an engine that breaks it, and the engine that breaks none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tailorbird.backends import registry
from tailorbird.backends.base import Session
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case, Run, Trial, executed_check, judge, worst_row_db
from tailorbird.builder.sources.onnx_file import signature_of
from tailorbird.domain.budget import Budget, GateReport
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tests.unit.builder.graphs import model, save, value, weight

FP32 = {"layer": "fp32"}
WEIGHTS = np.random.default_rng(7).standard_normal((6, 5)).astype(np.float32)


def inputs(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, 6)).astype(np.float32)}


def right(tensors: Any) -> dict[str, np.ndarray]:
    """What the source answers: a distribution over five classes for each row."""
    powers = np.exp(tensors["x"] @ WEIGHTS)
    return {"y": (powers / powers.sum(-1, keepdims=True)).astype(np.float32)}


def trial(rows: int = 4, run: Run = right, real: bool = True, edge: str = "opt") -> Trial:
    given = inputs(rows)
    return Trial(Case(Place(edge, {"x": (rows, 6)}, rows), "", "", real), given, run(given))


def report(run: Run, *trials: Trial, min_rows: int | None = 1, **changes: Any) -> GateReport:
    settings: dict[str, Any] = {"budget": Budget(), "precision": Precision.FP32, "executed": FP32} | changes
    return judge(run, trials or (trial(),), min_rows=min_rows, **settings)


def broken(run: Run, *trials: Trial, **changes: Any) -> set[str]:
    return {check.rule for check in report(run, *trials, **changes).failures}


def test_a_faithful_engine_passes_every_rule() -> None:
    found = report(right)
    assert found.passed
    assert {check.rule for check in found.checks} == {
        "executed precision",
        "elements to compare",
        "dtype and shape",
        "NaN or Inf",
        "snr_db",
        "cosine",
        "top1",
        "same input again",
        "same row at another position",
        "same row beside other neighbours",
        "same row alone",
    }
    assert {check.where for check in found.checks} == {"all layers", "all places, y", "opt 4x6, y", "opt 4x6"}


def test_a_gate_without_trials_has_failed() -> None:
    found = judge(right, (), Budget(), Precision.FP32, FP32, 1)
    assert not found.passed
    assert found.verdict == "gate did not run"


# --- against the reference -----------------------------------------------------------------------


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Run:
    return lambda tensors: {"y": change(right(tensors)["y"])}


def test_one_nan_is_broken() -> None:
    def spoil(array: np.ndarray) -> np.ndarray:
        array[0, 0] = np.nan
        return array

    assert broken(changed(spoil), trial(1)) == {"NaN or Inf"}


def test_another_dtype_is_broken() -> None:
    assert broken(changed(lambda array: array.astype(np.float64))) == {"dtype and shape"}


def test_another_shape_is_broken() -> None:
    found = report(changed(lambda array: array[:, :4]))
    assert [str(check) for check in found.failures] == [
        "dtype and shape float32[4, 4] misses float32[4, 5] (opt 4x6, y)"
    ]


def test_a_missing_output_is_broken() -> None:
    assert broken(lambda tensors: {"z": right(tensors)["y"]}) == {"output"}


def test_noise_is_broken() -> None:
    def grain(array: np.ndarray) -> np.ndarray:
        return array * np.where(np.arange(5) % 2, 1.11, 0.89).astype(np.float32)

    # 11 % of the signal: 19.2 dB, a cosine of 0.994, and no class changes.
    assert broken(changed(grain), trial(real=False)) == {"snr_db", "cosine"}
    assert broken(changed(grain), trial(real=False), budget=Budget(cosine=0.9)) == {"snr_db"}


def test_a_scaled_output_keeps_its_direction_but_is_broken() -> None:
    assert broken(changed(lambda array: array * np.float32(0.85))) == {"snr_db"}


def close_call(tensors: Any) -> dict[str, np.ndarray]:
    """Every row is nearly undecided between two classes, so a small error flips it."""
    return {"y": np.tile(np.float32([0.501, 0.499, 0]), (len(tensors["x"]), 1))}


def flipped(tensors: Any) -> dict[str, np.ndarray]:
    return {"y": np.tile(np.float32([0.499, 0.501, 0]), (len(tensors["x"]), 1))}


def test_flipped_classes_are_broken_on_real_data() -> None:
    assert broken(flipped, trial(run=close_call)) == {"top1"}
    assert broken(flipped, trial(run=close_call, real=False)) == set()


def test_an_output_that_proves_nothing_is_broken() -> None:
    def hollow(tensors: Any) -> dict[str, np.ndarray]:
        rows = len(tensors["x"])
        return {"nan": np.full((rows, 2), np.nan, np.float32), "none": np.zeros((0, 4), np.float32), **right(tensors)}

    found = report(hollow, trial(1, run=hollow), trial(2, run=hollow))
    assert [str(check) for check in found.failures] == [
        "elements to compare 0 misses 1 (all places, nan)",
        "elements to compare 0 misses 1 (all places, none)",
    ]


def test_every_place_is_judged() -> None:
    def bad_at_eight(tensors: Any) -> dict[str, np.ndarray]:
        scale = np.float32(0.5 if len(tensors["x"]) == 8 else 1)
        return {"y": right(tensors)["y"] * scale}

    found = report(bad_at_eight, trial(1), trial(8, edge="max"), min_rows=None)
    assert {check.where for check in found.failures} == {"max 8x6, y"}


# --- rows ----------------------------------------------------------------------------------------


ROWS = {"same row at another position", "same row beside other neighbours", "same row alone"}


def summed(tensors: Any) -> dict[str, np.ndarray]:
    return {"y": np.cumsum(tensors["x"], 0, dtype=np.float32)}


def centred(tensors: Any) -> dict[str, np.ndarray]:
    return {"y": tensors["x"] - tensors["x"].mean(0, keepdims=True)}


def numbered(tensors: Any) -> dict[str, np.ndarray]:
    return {"y": tensors["x"] + np.arange(len(tensors["x"]), dtype=np.float32)[:, None]}


def last_lost(tensors: Any) -> dict[str, np.ndarray]:
    """The last row of a batch of more than one is that before it: an off-by-one in a kernel."""
    found = tensors["x"].copy()
    if len(found) > 1:
        found[-1] = found[-2]
    return {"y": found}


@pytest.mark.parametrize("rows", [2, 3, 8])
@pytest.mark.parametrize("run", [summed, numbered, last_lost])
def test_rows_that_depend_on_others_are_broken_though_the_source_agrees(run: Run, rows: int) -> None:
    found = broken(run, trial(rows, run=run))
    assert "same row at another position" in found
    assert found <= ROWS


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_normalising_over_the_batch_is_broken_beside_other_neighbours(rows: int) -> None:
    found = broken(centred, trial(rows, run=centred), min_rows=2)
    assert found == {"same row beside other neighbours"}
    assert broken(centred, trial(rows, run=centred)) >= {"same row alone"}


def test_a_batch_that_differs_from_single_rows_is_broken() -> None:
    def bolder_alone(tensors: Any) -> dict[str, np.ndarray]:
        return {"y": right(tensors)["y"] * np.float32(1.01 if len(tensors["x"]) == 1 else 1)}

    assert broken(bolder_alone) == {"same row alone"}


def test_one_strong_row_does_not_hide_the_others() -> None:
    def loud(run: Run) -> Run:
        def scaled(tensors: Any) -> dict[str, np.ndarray]:
            return {"y": np.concatenate([run(tensors)["y"], 1e6 * tensors["x"][:, :1]], 1)}

        return scaled

    given = inputs(8)
    given["x"][1:, 0] = 0
    one = Trial(trial(8).case, given, loud(centred)(given))
    assert "same row beside other neighbours" in broken(loud(centred), one)


def test_a_weak_row_is_held_against_the_usual_signal() -> None:
    reference = np.array([[1.0, 1], [1, 1], [1e-9, 0]])
    assert worst_row_db(reference, reference + 1e-6) == pytest.approx(120, abs=0.1)
    assert worst_row_db(np.zeros((0, 3)), np.zeros((0, 3))) == 300.0
    assert worst_row_db(np.array(2.0), np.array(2.0)) == 300.0


def test_rows_that_may_not_be_alone_are_not_tried_alone() -> None:
    found = report(right, min_rows=2)
    assert found.passed
    assert "same row alone" not in {check.rule for check in found.checks}


def test_without_rows_only_repetition_is_checked() -> None:
    for run, rows in ((lambda tensors: {"y": tensors["x"].mean(keepdims=True)}, 3), (right, 1)):
        found = report(run, trial(rows, run=run))
        assert found.passed
        assert not {check.rule for check in found.checks} & ROWS
    assert not {check.rule for check in report(right, min_rows=None).checks} & ROWS


def test_whole_numbers_of_a_row_must_be_equal() -> None:
    def ranked(tensors: Any) -> dict[str, np.ndarray]:
        return {"y": np.argsort(tensors["x"][:, :1], 0)}

    assert broken(ranked, trial(run=ranked)) <= ROWS
    assert broken(ranked, trial(run=ranked))


def test_nan_that_comes_and_goes_is_broken() -> None:
    state = {"count": 0}

    def flaky(tensors: Any) -> dict[str, np.ndarray]:
        state["count"] += 1
        found = right(tensors)
        if state["count"] % 2 == 0:
            found["y"][0, 0] = np.nan
        return found

    assert broken(flaky, trial(1)) == {"same input again"}


# --- executed precision --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "executed", "own", "held"),
    [
        ("fp32", ["fp32"], [], True),
        ("fp32", ["fp32", "int64", "bool"], [], True),
        ("fp32", ["fp32", "int8"], [], True),  # a mask or a picture: OpenVINO calls truth values u8
        ("fp32", ["int64"], [], True),
        ("fp32", ["fp64"], [], True),
        ("fp32", ["fp32", "bf16"], [], False),
        ("fp32", ["fp32", "fp16"], [], False),
        ("fp32", ["fp32", "fp16"], ["fp16"], True),
        ("fp32", ["fp32", "bf16"], ["fp16"], False),
        ("fp32", [], [], False),
        ("bf16", ["bf16", "fp32"], [], True),
        ("bf16", ["fp32"], [], False),
        ("bf16", ["fp16"], [], False),
        ("int8", ["fp32", "int8"], [], True),
        ("int8", ["fp32", "int32"], [], False),
    ],
)
def test_executed_precision(asked: str, executed: list[str], own: list[str], held: bool) -> None:
    check = executed_check(Precision(asked), {str(n): kind for n, kind in enumerate(executed)}, own)
    assert check.passed is held


def test_the_message_says_what_ran() -> None:
    layers = {"a": "fp32", "b": "fp32", "c": "int64"}
    assert str(executed_check(Precision.BF16, layers)) == "executed precision fp32 x2 misses bf16 (all layers)"
    assert str(executed_check(Precision.BF16, {})) == "executed precision nothing reported misses bf16 (all layers)"
    assert executed_check(Precision.FP32, {"c": "int64"}).measured == "1 layers, none of them float"


def test_half_precision_of_the_source_itself_is_no_lie() -> None:
    def half(tensors: Any) -> dict[str, np.ndarray]:
        return {"y": right(tensors)["y"].astype(np.float16)}

    layers = {"a": "fp32", "b": "fp16"}
    assert broken(half, trial(1, run=half), executed=layers) == set()
    assert broken(right, trial(1), executed=layers) == {"executed precision"}


# --- real engines --------------------------------------------------------------------------------


def opened(made: onnx.ModelProto, folder: Path, runtime: str, rows: int = 4, precision: str = "fp32") -> Session:
    found = registry.backend(runtime).capabilities()
    shapes = {spec.name: (1, *spec.dims[1:]) for spec in signature_of(made).inputs}
    profile = Profile(shapes, shapes, {name: (rows, *shape[1:]) for name, shape in shapes.items()})
    candidate = Candidate(found.target, Precision(precision), profile, ShapeMode.DYNAMIC, 1)
    (folder / "engine").mkdir()
    registry.backend(runtime).compile(save(made, folder / "m.onnx"), candidate, folder / "engine")
    return registry.backend(runtime).open(folder / "engine", candidate, signature_of(made))


def judged(session: Session, precision: str = "fp32") -> set[str]:
    given = trial(4, run=session.run)
    found = judge(session.run, (given,), Budget(), Precision(precision), session.executed_precision(), 1)
    return {check.rule for check in found.failures}


def chain(*kinds: str, weights: Any = (), **attributes: Any) -> onnx.ModelProto:
    """Operators one after another, from x to y; the first takes the attributes."""
    names = ["x", *(f"v{n}" for n in range(len(kinds) - 1)), "y"]
    nodes = [
        helper.make_node(
            kind, [names[n], *(w.name for w in weights if n == 0)], [names[n + 1]], **(attributes if n == 0 else {})
        )
        for n, kind in enumerate(kinds)
    ]
    return model(nodes, [value("x", ["N", 6])], [value("y", ["N", None])], weights)


def test_a_real_engine_passes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with opened(chain("MatMul", "Relu", weights=[weight("w", 6, 5)]), tmp_path, "onnxruntime") as session:
        assert judged(session) == set()


def test_a_sum_over_the_batch_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    axis = onnx.numpy_helper.from_array(np.array(0), "axis")
    with opened(chain("CumSum", weights=[axis]), tmp_path, "onnxruntime") as session:
        assert judged(session) == ROWS


def test_a_softmax_over_the_batch_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with opened(chain("Softmax", axis=0), tmp_path, "onnxruntime") as session:
        assert judged(session) == {"same row beside other neighbours", "same row alone"}


def test_random_numbers_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with opened(chain("RandomNormalLike", "Identity"), tmp_path, "onnxruntime") as session:
        assert "same input again" in judged(session)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_masks_are_no_lower_precision(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["mask"]),
        helper.make_node("Not", ["mask"], ["kept"]),
        helper.make_node("Where", ["kept", "x", "zero"], ["y"]),
    ]
    zero = onnx.numpy_helper.from_array(np.float32(0), "zero")
    outputs = [value("y", ["N", 6]), value("kept", ["N", 6], TensorProto.BOOL)]
    with opened(model(nodes, [value("x", ["N", 6])], outputs, [zero]), tmp_path, runtime) as session:
        assert judged(session) == set()


def test_asked_for_brain_floats_and_running_fp32_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    if "bf16" in registry.backend("openvino").capabilities().precisions:
        pytest.skip("this CPU executes BF16")
    made = chain("MatMul", "Relu", weights=[weight("w", 6, 5)])
    with opened(made, tmp_path, "openvino", precision="bf16") as session:
        assert judged(session, "bf16") == {"executed precision"}
