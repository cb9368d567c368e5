"""Metrics: numbers by hand, outputs found by rule, and every way a metric can fail."""

import sys
from typing import Any

import numpy as np
import pytest

from tailorbird.builder.gate.metrics import find_metric, resolve_metric, score
from tailorbird.domain.budget import Budget, parse_budget
from tailorbird.domain.errors import UsageError

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]], np.float32)
HINT = "Hint: give a metric of your own: --metric module:callable, from (outputs, labels) to a number"


def taken(metric: str, labels: Any, **outputs: Any) -> float:
    return score(metric, outputs or {"y": SCORES}, np.asarray(labels))


def refusal(metric: str, labels: Any, **outputs: Any) -> str:
    with pytest.raises(UsageError) as caught:
        taken(metric, labels, **outputs)
    return str(caught.value)


# --- built in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "labels", "points"),
    [
        ("top1", [1, 0, 2, 0], 100.0),
        ("top1", [1, 0, 2, 1], 75.0),
        ("top1", [[1], [0], [2], [1]], 75.0),
        ("top1", [0, 1, 0, 2], 0.0),
        ("top2", [1, 0, 2, 1], 100.0),
        ("top2", [0, 1, 0, 2], 25.0),
        ("f1", [1, 0, 2, 0], 100.0),
        # Answers 1 0 2 0 against 1 0 1 1: class 0 has 2*1/(2+1), class 1 has 2*1/(1+3), class 2 none.
        ("f1", [1, 0, 1, 1], 100 * (2 / 3 + 1 / 2 + 0) / 3),
    ],
)
def test_class_metrics(metric: str, labels: list[Any], points: float) -> None:
    assert taken(metric, labels) == pytest.approx(points)


def test_of_equal_scores_the_first_counts_so_that_an_engine_of_zeros_does_not_win() -> None:
    assert taken("top1", [2, 2], y=np.zeros((2, 9), np.float32)) == 0.0
    assert taken("top5", [5, 4], y=np.zeros((2, 9), np.float32)) == 50.0


def test_accuracy_counts_equal_elements_of_the_output_shaped_as_the_labels() -> None:
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    assert taken("accuracy", [[1, 2, 0], [4, 5, 6]], tokens=tokens, y=SCORES) == pytest.approx(100 * 5 / 6)
    assert taken("accuracy", [1, 0], best=np.array([[1], [1]])) == 50.0
    assert taken("accuracy", [True, False], best=np.array([True, False])) == 100.0


@pytest.mark.parametrize("metric", ["top1", "f1"])
def test_the_class_like_output_is_found_among_others(metric: str) -> None:
    others = {"hidden": np.zeros((4, 2, 2), np.float32), "ids": np.zeros((4, 3), np.int64),
              "one": np.zeros((4, 1), np.float32), "pooled": np.zeros((1, 3), np.float32)}  # fmt: skip
    assert taken(metric, [1, 0, 2, 0], y=SCORES, **others) == 100.0


@pytest.mark.parametrize(
    ("metric", "labels", "outputs", "said"),
    [
        ("top1", [0], {"a": SCORES[:1], "b": SCORES[:1]},
         "top1 cannot tell which output to score: got a float32[1, 3], b float32[1, 3], "
         f"expected one float output [1 rows, classes]\n{HINT}"),
        ("f1", [0], {"a": SCORES},
         f"f1 finds no output to score: got a float32[4, 3], expected one float output [1 rows, classes]\n{HINT}"),
        ("accuracy", [0, 1], {"a": SCORES[:2]},
         "accuracy finds no output to score: got a float32[2, 3], "
         f"expected one whole-number output shaped as the labels [2]\n{HINT}"),
        ("accuracy", ["a"], {"a": np.array([1])}, f"accuracy takes whole numbers as labels: got <U1\n{HINT}"),
        ("top1", ["a"] * 4, {}, f"top1 takes whole numbers as labels: got <U1\n{HINT}"),
        ("top1", [0.0] * 4, {}, f"top1 takes whole numbers as labels: got float64\n{HINT}"),
        ("top1", [[1, 2]] * 4, {}, "top1 takes one label a row: got [4, 2], expected [4]"),
        ("top1", [0, 1, 2, 3], {}, "a label is no class of the output: got 3, expected 0 to 2"),
        ("top1", [0, 1, 2, -1], {}, "a label is no class of the output: got -1, expected 0 to 2"),
        ("top3", [0, 1, 2, 0], {}, "top3 says nothing about 3 classes: expected more classes than that"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(metric: str, labels: Any, outputs: dict[str, Any], said: str) -> None:
    assert refusal(metric, labels, **outputs) == said


# --- the user's own ------------------------------------------------------------------------------

OWN = f"{__name__}:own"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Any:
    def become(value: Any) -> str:
        monkeypatch.setattr(sys.modules[__name__], "own", value, raising=False)
        return OWN

    return become


def test_a_callable_gets_outputs_and_labels(own: Any) -> None:
    assert taken(own(lambda outputs, labels: outputs["y"].sum() - labels.sum()), [1, 2], y=np.ones((2, 4))) == 5.0


@pytest.mark.parametrize("result", [3, 3.0, np.float32(3), np.int64(3)])
def test_any_kind_of_number_will_do(own: Any, result: Any) -> None:
    assert taken(own(lambda outputs, labels: result), [1]) == 3.0


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "gave no number: got None of type NoneType, expected a number, more is better"),
        ("0.9", "gave no number: got '0.9' of type str, expected a number, more is better"),
        (True, "gave no number: got True of type bool, expected a number, more is better"),
        (np.True_, "gave no number: got np.True_ of type bool, expected a number, more is better"),
        (np.array([1.0]), "gave no number: got array([1.]) of type ndarray, expected a number, more is better"),
        (1j, "gave no number: got 1j of type complex, expected a number, more is better"),
        (float("nan"), "gave no finite number: got nan, expected a finite number"),
        (np.float32("-inf"), "gave no finite number: got -inf, expected a finite number"),
    ],
)
def test_a_result_that_is_no_number_is_refused(own: Any, result: Any, said: str) -> None:
    assert refusal(own(lambda outputs, labels: result), [1]) == f"the metric {OWN} {said}"


def test_a_metric_that_raises_is_told_in_its_own_words(own: Any) -> None:
    assert refusal(own(lambda outputs, labels: outputs["gone"]), [1]) == (
        f"the metric {OWN} raised: got KeyError: 'gone', expected a number"
    )


def test_a_metric_that_is_not_there_is_refused(own: Any) -> None:
    with pytest.raises(UsageError) as caught:
        find_metric("no_such_module:f")
    assert str(caught.value) == (
        "cannot load the metric no_such_module:f: got ModuleNotFoundError: No module named 'no_such_module', "
        "expected module:callable"
    )
    with pytest.raises(UsageError, match=r"AttributeError: module .* has no attribute 'no_such'"):
        find_metric(f"{__name__}:no_such")
    with pytest.raises(UsageError, match=f"the metric {OWN} cannot be called: got int, expected a callable"):
        find_metric(own(3))


# --- which one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "budget", "labelled", "metric"),
    [
        ("", "99%", False, ""),
        ("", "snr >= 30", False, ""),
        ("", "99%", True, "top1"),
        ("f1", "99%", True, "f1"),
        ("", "top5 drop <= 1", True, "top5"),
        ("f1", "f1 >= 98%", True, "f1"),
        ("", "a.b:c drop <= 0.01", True, "a.b:c"),
        ("top10", "99%", True, "top10"),
    ],
)
def test_one_metric_decides(config: str, budget: str, labelled: bool, metric: str) -> None:
    assert resolve_metric(config, parse_budget(budget), labelled) == metric


NEEDS = (
    'expected data with labels\nHint: give labels in the data (--labels names their key), or say the budget as "99%": '
    "without labels it is the least agreement with FP32"
)


@pytest.mark.parametrize(
    ("config", "budget", "labelled", "said"),
    [
        ("f1", Budget(metric="top1"), True,
         "the budget is for another metric: got top1, expected f1\nHint: name one of them only"),
        ("f1", Budget(), False, f"a metric needs labels: got f1, {NEEDS}"),
        ("", Budget(metric="top1", drop=0.5), False, f"a metric needs labels: got top1, {NEEDS}"),
        ("", Budget(drop=0.5), False, f"a metric needs labels: {NEEDS}"),
        ("acuracy", Budget(), True,
         "unknown metric 'acuracy': expected top1, top5, f1, accuracy, module:callable\n"
         "Hint: did you mean 'accuracy'?"),
        ("top0", Budget(), True, "unknown metric 'top0': expected top1, top5, f1, accuracy, module:callable\n"
         "Hint: did you mean 'top5'?"),
        ("zzz", Budget(), False, "unknown metric 'zzz': expected top1, top5, f1, accuracy, module:callable"),
        ("mine:", Budget(), True, "unknown metric 'mine:': expected top1, top5, f1, accuracy, module:callable"),
    ],
)  # fmt: skip
def test_a_metric_that_cannot_decide_is_refused(config: str, budget: Budget, labelled: bool, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_metric(config, budget, labelled)
    assert str(caught.value) == said
