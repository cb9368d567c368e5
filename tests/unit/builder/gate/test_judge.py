"""The gate: for every rule an engine that breaks it, and the engine that breaks none."""

import sys
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
from tailorbird.builder.gate.judge import ROW_SETS, Case, Trial, executed_check, judge, reference_scores
from tailorbird.builder.gate.rows import Run, worst_row_db
from tailorbird.builder.sources.onnx_file import signature_of
from tailorbird.domain.budget import Budget, Check, GateReport, parse_budget
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.errors import StepCrashed, UsageError
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


def trial(rows: int = 4, run: Run = right, real: bool = True, edge: str = "opt", seed: int = 0) -> Trial:
    given = inputs(rows, seed)
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


# --- several sets at one place -------------------------------------------------------------------


def test_each_rule_is_said_once_for_a_place_as_its_worst_case() -> None:
    def noisy(tensors: Any) -> dict[str, np.ndarray]:
        return {"y": right(tensors)["y"] * np.float32(1 + 1e-3 * abs(float(tensors["x"][0, 0])))}

    trials = [trial(seed=seed) for seed in range(3)]
    found = report(noisy, *trials)
    assert len(found.checks) == len({(check.rule, check.where) for check in found.checks})
    alone = [report(noisy, one).worst("snr_db") for one in trials]
    assert found.worst("snr_db") == min(number for number in alone if number is not None)
    assert len(set(alone)) == 3


def test_one_bad_set_among_good_ones_is_broken() -> None:
    bad = trial(seed=1)

    def once(tensors: Any) -> dict[str, np.ndarray]:
        scale = np.float32(0.85 if tensors["x"].tobytes() == bad.inputs["x"].tobytes() else 1)
        return {"y": right(tensors)["y"] * scale}

    found = report(once, trial(), bad, trial(seed=2), min_rows=None)
    assert "snr_db" in {check.rule for check in found.failures}


def test_winners_are_counted_over_all_sets_of_a_place() -> None:
    def flips_the_first(tensors: Any) -> dict[str, np.ndarray]:
        first = tensors["x"].tobytes() == inputs(1)["x"].tobytes()
        return flipped(tensors) if first else close_call(tensors)

    trials = [trial(1, run=close_call, seed=seed) for seed in range(8)]
    (check,) = report(flips_the_first, *trials).failures
    assert (check.rule, check.measured, check.limit, check.where) == ("top1", 7 / 8, 0.99, "opt 1x6, y")
    assert broken(flips_the_first, *trials, budget=Budget(top1=0.8)) == set()
    assert broken(flips_the_first, trials[0], budget=Budget(top1=0.8)) == {"top1"}


def test_the_gate_takes_one_trial_after_another() -> None:
    alive = []

    def given() -> Any:
        for seed in range(3):
            alive.append(seed)
            yield trial(seed=seed)

    found = judge(
        lambda tensors: right(tensors) | {"n": np.array(len(alive))}, given(), Budget(), Precision.FP32, FP32, 1
    )
    assert found.passed
    assert alive == [0, 1, 2]


def test_rows_of_so_many_sets_are_moved_about_and_of_every_synthetic_one() -> None:
    runs: list[int] = []

    def counted(tensors: Any) -> dict[str, np.ndarray]:
        runs.append(len(tensors["x"]))
        return right(tensors)

    report(counted, *(trial(1, seed=seed) for seed in range(10)))
    assert len(runs) == 10 + ROW_SETS
    runs.clear()
    report(counted, *(trial(1, seed=seed, real=False) for seed in range(10)))
    assert len(runs) == 20


# --- an engine that raises -----------------------------------------------------------------------


def test_an_engine_that_raises_is_broken_where_it_does() -> None:
    def breaks_at_eight(tensors: Any) -> dict[str, np.ndarray]:
        if len(tensors["x"]) == 8:
            raise RuntimeError("no kernel for 8")
        return right(tensors)

    found = report(breaks_at_eight, trial(1), trial(8, edge="max"))
    assert [str(check) for check in found.failures] == [
        "engine runs RuntimeError: no kernel for 8 misses outputs (max 8x6)"
    ]
    assert not found.only_accuracy


def test_an_engine_that_raises_when_its_rows_are_moved_is_broken() -> None:
    state = {"runs": 0}

    def twice(tensors: Any) -> dict[str, np.ndarray]:
        state["runs"] += 1
        if state["runs"] > 2:
            raise RuntimeError("tired")
        return right(tensors)

    assert broken(twice) == {"engine runs"}


@pytest.mark.parametrize("error", [StepCrashed("signal 11"), MemoryError()])
def test_a_process_that_fails_is_no_verdict(error: Exception) -> None:
    def dies(tensors: Any) -> dict[str, np.ndarray]:
        raise error

    with pytest.raises(type(error)):
        report(dies)


# --- labels --------------------------------------------------------------------------------------


def labelled(rows: int = 4, edge: str = "opt", scored: int | None = None, seed: int = 0, wrong: int = 0) -> Trial:
    """Labels are FP32's own answers, but for the first ``wrong`` ones."""
    one = trial(rows, edge=edge, seed=seed)
    labels = one.references["y"].argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 5
    return Trial(one.case, one.inputs, one.references, labels[:scored])


def missing(rows: set[int]) -> Run:
    """An engine that answers some rows, told by their inputs, with another class."""
    known = {inputs(100)["x"][row].tobytes() for row in rows}

    def run(tensors: Any) -> dict[str, np.ndarray]:
        found = right(tensors)["y"]
        for n, row in enumerate(tensors["x"]):
            found[n] = np.roll(found[n], 1) if row.tobytes() in known else found[n]
        return {"y": found}

    return run


def top1_of(found: GateReport) -> list[Check]:
    return [check for check in found.checks if check.rule == "metric top1"]


def test_an_engine_that_scores_as_fp32_does_passes() -> None:
    found = report(right, labelled(100, wrong=10), metric="top1")
    assert found.passed
    assert top1_of(found) == [Check("metric top1", True, "opt 100x6, 100 rows", 90.0, 0.99 * 90, 90.0)]
    assert found.verdict == "pass, top1 90 of 90"


@pytest.mark.parametrize(("rows", "held"), [(1, True), (2, False)])
def test_an_engine_that_scores_less_is_broken_and_by_that_rule_alone(rows: int, held: bool) -> None:
    found = report(missing(set(range(rows))), labelled(100), metric="top1")
    assert {check.rule for check in found.failures} == (set() if held else {"metric top1"})
    assert [check.measured for check in top1_of(found)] == [100.0 - rows]
    assert found.only_accuracy is not held
    assert found.score == f"top1 {100 - rows} of 100"


@pytest.mark.parametrize(
    ("budget", "held"),
    [("top1 drop <= 2", True), ("top1 drop <= 1.9", False), ("top1 >= 98%", True), ("98.1%", False)],
)
def test_the_budget_is_said_as_a_share_or_as_a_drop(budget: str, held: bool) -> None:
    found = report(missing({0, 1}), labelled(100), metric="top1", budget=parse_budget(budget))
    assert found.passed is held


def test_an_engine_at_the_limit_has_met_it_whatever_binary_makes_of_it() -> None:
    found = report(missing(set(range(3))), labelled(30, wrong=0), metric="top1", budget=Budget(drop=100 - 90.0))
    assert found.passed


def test_where_labels_decide_fidelity_is_noted_only() -> None:
    def scaled(tensors: Any) -> dict[str, np.ndarray]:
        return {"y": right(tensors)["y"] * np.float32(0.5)}

    found = report(scaled, labelled(), metric="top1")
    assert found.passed
    assert {check.rule for check in found.checks if check.limit == "not judged"} == {"snr_db", "cosine", "top1"}
    assert found.worst("snr_db") == pytest.approx(6.02, abs=0.01)
    assert broken(scaled, labelled(), metric="top1", budget=parse_budget("snr >= 20, 99%")) == {"snr_db"}
    assert broken(scaled, labelled()) == {"snr_db"}, "without a metric labels decide nothing"


def test_sets_without_labels_are_judged_by_fidelity_beside_those_with() -> None:
    def scaled(tensors: Any) -> dict[str, np.ndarray]:
        return {"y": right(tensors)["y"] * np.float32(0.5)}

    found = report(scaled, labelled(), trial(real=False, seed=5), metric="top1")
    assert {check.rule for check in found.failures} == {"snr_db"}


def test_rows_that_fill_a_batch_are_not_scored() -> None:
    found = report(missing({2, 3}), labelled(4, scored=2), metric="top1")
    assert found.passed
    assert top1_of(found)[0].where == "opt 4x6, 2 rows"
    assert broken(missing({1}), labelled(4, scored=2), metric="top1") == {"metric top1"}


def test_sets_of_a_place_are_scored_together_and_places_apart() -> None:
    trials = [labelled(100), labelled(100, seed=1), labelled(2, edge="min")]
    found = report(missing({0}), *trials, metric="top1")
    assert [(check.where, check.measured, check.passed) for check in top1_of(found)] == [
        ("opt 100x6, 200 rows", 99.5, True),
        ("min 2x6, 2 rows", 50.0, False),
    ]
    assert found.score == "top1 50 of 100"


def test_labels_do_not_excuse_mixed_rows_or_nan() -> None:
    def rolled(tensors: Any) -> dict[str, np.ndarray]:
        shifted = np.roll(tensors["x"], 1, 0) * np.float32(1e-2)
        return right({"x": tensors["x"] + shifted})

    mixed = broken(rolled, labelled(), metric="top1")
    assert mixed
    assert mixed <= ROWS

    def spoil(array: np.ndarray) -> np.ndarray:
        array[0, 0] = np.nan
        return array

    found = report(changed(spoil), labelled(1), metric="top1")
    assert {check.rule for check in found.failures} == {"NaN or Inf"}
    assert found.only_accuracy


@pytest.mark.parametrize("spoil", [lambda array: array.astype(np.float64), lambda array: array[:, :4]])
def test_another_form_is_broken_and_nothing_is_scored(spoil: Any) -> None:
    found = report(changed(spoil), labelled(), metric="top1")
    assert {check.rule for check in found.failures} == {"dtype and shape"}
    assert top1_of(found) == []
    assert not found.only_accuracy


def words_of(found: GateReport) -> list[str]:
    assert not found.passed
    assert not found.only_accuracy, "no precision mends it"
    return [str(check) for check in found.failures]


def test_a_reference_that_scores_nothing_is_broken() -> None:
    assert words_of(report(right, labelled(4, wrong=4), metric="top1")) == [
        "metric top1 FP32 scores 0 misses more than 0 (opt 4x6, 4 rows)"
    ]


def test_a_share_of_a_score_below_zero_is_broken_and_a_drop_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "loss", lambda outputs, labels: -3.0, raising=False)
    metric = f"{__name__}:loss"
    assert words_of(report(right, labelled(), metric=metric)) == [
        f"metric {metric} FP32 scores -3 misses more than 0 (opt 4x6, 4 rows)"
    ]
    assert report(right, labelled(), metric=metric, budget=Budget(drop=0.1)).passed


def test_data_without_labels_is_broken_where_labels_should_decide() -> None:
    assert words_of(report(right, trial(), metric="top1")) == [
        "metric top1 no labelled rows misses 99% of FP32 (opt 4x6)"
    ]
    assert words_of(report(right, labelled(4, scored=0), metric="top1")) == [
        "metric top1 no labelled rows misses 99% of FP32 (opt 4x6)"
    ]
    assert words_of(report(right, labelled(), trial(2, edge="min"), metric="top1")) == [
        "metric top1 no labelled rows misses 99% of FP32 (min 2x6)"
    ]
    assert words_of(report(right, trial(real=False), metric="top1", budget=Budget(drop=0.5))) == [
        "metric top1 no labelled rows misses a drop of 0.5 (all places)"
    ]
    assert report(right, labelled(), trial(2, edge="min", real=False), metric="top1").passed


def test_more_labels_than_rows_are_broken() -> None:
    one = labelled()
    odd = Trial(one.case, one.inputs, one.references, np.zeros(5, int))
    assert words_of(report(right, odd, metric="top1")) == [
        "metric top1 FP32: there are more labels than rows: got 5, expected 4 or fewer "
        "misses 99% of FP32 (opt 4x6, 5 rows)"
    ]


def moody(outputs: dict[str, np.ndarray], labels: np.ndarray) -> Any:
    """Right about FP32, at a loss about anything else."""
    if np.array_equal(outputs["y"], right(inputs(4))["y"]):
        return 1.0
    return None if outputs["y"][0, 0] > 1 else outputs["gone"]


@pytest.mark.parametrize(
    ("scale", "said"),
    [(3, "gave no number: got None of type NoneType, expected a number, more is better"),
     (0.9, "raised: got KeyError: 'gone', expected a number")],
)  # fmt: skip
def test_a_metric_that_fails_on_the_engine_is_broken(scale: float, said: str) -> None:
    metric = f"{__name__}:moody"
    one = labelled()
    top = one.references["y"][0, 0]
    engine = changed(lambda array: array * np.float32(scale / top))
    assert words_of(report(engine, one, metric=metric)) == [
        f"metric {metric} the metric {metric} {said} misses 99% of FP32 (opt 4x6, 4 rows)"
    ]


def test_a_metric_that_fails_on_fp32_is_broken_and_can_be_known_before_any_engine() -> None:
    text = Trial(trial().case, trial().inputs, trial().references, np.array(["a", "b", "c", "d"]))
    (said,) = words_of(report(right, text, metric="top1"))
    assert said.startswith("metric top1 FP32: top1 takes whole numbers as labels: got <U1")
    with pytest.raises(UsageError, match="top1 takes whole numbers as labels: got <U1"):
        reference_scores("top1", [text], 1)
    scores = reference_scores("top1", [labelled(4, wrong=1), trial(2), labelled(2, edge="min")], 1)
    assert scores == {"opt": 75.0, "min": 100.0}


def kept(outputs: dict[str, Any], labels: np.ndarray) -> float:
    """Notes the shapes it was given."""
    SHAPES[:] = [(name, getattr(array, "shape", None), array.dtype.kind) for name, array in sorted(outputs.items())]
    SHAPES.append(("labels", labels.shape, labels.dtype.kind))
    return 1.0


SHAPES: list[Any] = []


def shapes_given(run: Run, *trials: Trial, min_rows: int | None) -> list[Any]:
    assert report(run, *trials, metric=f"{__name__}:kept", min_rows=min_rows).passed
    return list(SHAPES)


def test_a_metric_gets_one_row_for_each_label() -> None:
    def several(tensors: Any) -> dict[str, np.ndarray]:
        return right(tensors) | {"pooled": np.ones(3, np.float32)}

    def one(rows: int, scored: int) -> Trial:
        given = labelled(rows, scored=scored)
        return Trial(given.case, given.inputs, several(given.inputs), given.labels)

    assert shapes_given(several, one(4, 4), one(4, 2), min_rows=1) == [("y", (6, 5), "f"), ("labels", (6,), "i")]
    assert shapes_given(several, one(1, 1), one(1, 1), min_rows=1) == [
        ("pooled", (2, 3), "f"), ("y", (2, 5), "f"), ("labels", (2,), "i")
    ]  # fmt: skip


def test_samples_without_a_batch_dim_become_rows() -> None:
    def flat(tensors: Any) -> dict[str, np.ndarray]:
        count = int(abs(tensors["x"][0, 0]) * 10) + 2
        return {"classes": right(tensors)["y"][0], "boxes": np.ones((count, 4), np.float32)}

    def one(seed: int) -> Trial:
        given = inputs(3, seed)
        return Trial(Case(Place("opt", {"x": (3, 6)}, 1), "", "", True), given, flat(given), np.array([seed]))

    counts = {len(flat(inputs(3, seed))["boxes"]) for seed in (0, 1)}
    assert len(counts) == 2
    assert shapes_given(flat, one(0), one(1), min_rows=None) == [
        ("boxes", (2,), "O"), ("classes", (2, 5), "f"), ("labels", (2,), "i")
    ]  # fmt: skip


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


def test_a_real_engine_of_other_weights_is_refused_by_its_labels_alone(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    scores = {}
    for name, sign in {"same": 1, "negated": -1}.items():
        made = chain("MatMul", weights=[onnx.numpy_helper.from_array(sign * WEIGHTS, "w")])
        (tmp_path / name).mkdir()
        with opened(made, tmp_path / name, "onnxruntime", rows=64) as session:
            given = inputs(64)
            references = {"y": given["x"] @ WEIGHTS}
            one = Trial(trial(64).case, given, references, references["y"].argmax(1))
            scores[name] = report(session.run, one, metric="top1", executed=session.executed_precision())
    assert scores["same"].verdict == "pass, top1 100 of 100"
    assert {check.rule for check in scores["negated"].failures} == {"metric top1"}


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
