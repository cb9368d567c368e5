"""Preparing: what is laid out at each place."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from tailorbird.builder.cases.data import distinct_rows, load_set
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.prepare import MANY_SETS, OPT_SETS, Cases, CasesArgs, PrepareArgs, lay_out, prepare
from tailorbird.builder.sources.onnx_file import read_model, signature_of
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.signature import Signature, TensorSpec
from tests.unit.builder.graphs import linear, save


def laid(folder: Path, data: str = "", seed: int = 0, **settings: str) -> Cases:
    said = {"min_shapes": "", "opt_shapes": "", "max_shapes": ""} | settings
    return lay_out(
        CasesArgs(signature=signature_of(linear()), index_limits={}, data=data, seed=seed, folder=str(folder), **said)
    )


def rows_in(folder: Path, count: int, labelled: bool = False) -> str:
    """Data whose rows are told by their first element, which is the label, too."""
    given = {"x": np.arange(4 * count, dtype=np.float32).reshape(count, 4)}
    np.savez(folder / "d.npz", **given, **({"labels": given["x"][:, 0].astype(int)} if labelled else {}))
    return str(folder / "d.npz")


def firsts(cases: tuple[Case, ...], edge: str = "opt") -> list[list[float]]:
    return [load_set(Path(case.inputs))["x"][:, 0].tolist() for case in cases if case.place.edge == edge]


def wide() -> Signature:
    """Of a model with two dynamic dims."""
    dims = ("rows", "w")
    return Signature((TensorSpec("x", DType.FP32, dims),), (TensorSpec("y", DType.FP32, dims),))


def flat(lists: list[list[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(lists))


def scored(cases: tuple[Case, ...], edge: str = "opt") -> list[list[float]]:
    return [load_set(Path(case.labels))["labels"].tolist() for case in cases if case.place.edge == edge and case.labels]


def test_a_model_is_read_normalised_and_written(tmp_path: Path) -> None:
    source = save(linear(), tmp_path / "m.onnx")
    found = prepare(PrepareArgs(str(source), str(tmp_path / "n.onnx")))
    assert found.signature == signature_of(linear())
    assert found.passes == ("drop-unused@2", "infer-shapes@1")
    assert found.source_digest != found.normalised_digest
    assert len(read_model(tmp_path / "n.onnx").graph.node) == 3


def test_each_place_has_a_set_and_opt_has_several_that_differ(tmp_path: Path) -> None:
    found = laid(tmp_path, min_shapes="x:1x4", opt_shapes="x:2x4", max_shapes="x:8x4")
    assert [case.place.edge for case in found.cases] == ["opt"] * OPT_SETS + ["min", "max", "batch4"]
    assert not any(case.real for case in found.cases)
    first, second = (load_set(Path(case.inputs))["x"] for case in found.cases[:2])
    assert not np.array_equal(first, second)


def test_the_same_seed_lays_out_the_same(tmp_path: Path) -> None:
    one, two = (load_set(Path(laid(tmp_path, opt_shapes="x:2x4").cases[0].inputs))["x"] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_data_is_used_where_it_fits(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(12, dtype=np.float32).reshape(3, 4))
    found = laid(tmp_path, str(tmp_path / "d.npz"), min_shapes="x:1x4", opt_shapes="x:3x4", max_shapes="x:3x4")
    assert all(case.real for case in found.cases)
    np.testing.assert_array_equal(load_set(Path(found.cases[0].inputs))["x"][:, 0], [0, 4, 8])


def test_rows_that_are_all_alike_are_joined_by_synthetic_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((1, 4), np.float32))
    found = laid(tmp_path, str(tmp_path / "d.npz"), opt_shapes="x:4x4")
    assert [case.real for case in found.cases] == [True, False]
    assert distinct_rows(load_set(Path(found.cases[1].inputs)), 4)


# --- held out and to calibrate on ----------------------------------------------------------------


def test_without_data_nothing_is_calibrated(tmp_path: Path) -> None:
    found = laid(tmp_path, opt_shapes="x:2x4")
    assert (found.calibration, found.data_digest, found.labelled, found.notes) == ((), "", False, ())


def test_what_calibrates_is_not_judged_on(tmp_path: Path) -> None:
    found = laid(tmp_path, rows_in(tmp_path, 12), opt_shapes="x:2x4", min_shapes="x:1x4")
    calibration, gate = flat(firsts(found.calibration)), flat(firsts(found.cases) + firsts(found.cases, "min"))
    assert (len(set(calibration)), len(calibration)) == (6, 6)
    assert not set(calibration) & set(gate)
    assert found.notes == ("6 rows to calibrate on, 6 held out for the gate (seed 0)",)
    assert [Path(case.inputs).name for case in found.calibration] == [f"calib-{n}-in.npz" for n in range(3)]
    assert all(case.real and case.place.edge == "opt" and not case.labels for case in found.calibration)
    assert not any(Path(case.outputs).exists() for case in found.calibration)


def test_the_digest_is_of_what_calibrates(tmp_path: Path) -> None:
    data = rows_in(tmp_path, 12)
    one, again, other = (laid(tmp_path, data, seed, opt_shapes="x:2x4").data_digest for seed in (0, 0, 1))
    assert one == again
    assert one.startswith("sha256:")
    assert one != other


def test_three_rows_are_used_twice_and_one_calibrates_nothing(tmp_path: Path) -> None:
    three = laid(tmp_path, rows_in(tmp_path, 3), opt_shapes="x:1x4")
    assert firsts(three.calibration) == firsts(three.cases) == [[0], [4], [8]]
    assert three.notes == ("3 rows: calibrated and judged on the same ones",)
    one = laid(tmp_path, rows_in(tmp_path, 1), opt_shapes="x:1x4")
    assert (one.calibration, one.data_digest) == ((), "")
    assert one.notes == ("1 row at the opt shapes is not enough to calibrate on",)


@pytest.mark.parametrize(("rows", "batch", "sets"), [(40, 1, MANY_SETS), (14, 1, OPT_SETS), (80, 4, 8), (80, 5, 4)])
def test_opt_has_more_sets_where_enough_rows_are_held_out(tmp_path: Path, rows: int, batch: int, sets: int) -> None:
    found = laid(tmp_path, rows_in(tmp_path, rows), opt_shapes=f"x:{batch}x4")
    assert [case.real for case in found.cases] == [True] * sets


def test_places_that_no_data_fits_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((2, 4), np.float32))
    args = CasesArgs(wide(), {}, "x:1x3", "x:2x4", "x:4x5", str(tmp_path / "d.npz"), 0, str(tmp_path))
    found = lay_out(args)
    assert {case.place.edge for case in found.cases if not case.real} >= {"min", "max"}
    assert "no data has the shapes of min, max: synthetic inputs there" in found.notes


# --- labels --------------------------------------------------------------------------------------


def test_every_held_out_label_is_scored_once_at_every_place(tmp_path: Path) -> None:
    found = laid(
        tmp_path, rows_in(tmp_path, 21, labelled=True), min_shapes="x:1x4", opt_shapes="x:3x4", max_shapes="x:8x4"
    )
    assert found.labelled
    calibration = flat(firsts(found.calibration))
    held = set(range(0, 84, 4)) - set(calibration)
    for edge, sets in {"min": 11, "opt": 4, "max": 2, "batch2": 6, "batch4": 3}.items():
        labels = scored(found.cases, edge)
        assert len(labels) == sets
        assert sorted(flat(labels)) == sorted(held)
        assert all(given[: len(one)] == one for given, one in zip(firsts(found.cases, edge), labels, strict=True))


def test_labels_that_no_place_fits_are_refused(tmp_path: Path) -> None:
    data = rows_in(tmp_path, 4, labelled=True)
    with pytest.raises(InputError) as caught:
        lay_out(CasesArgs(wide(), {}, "", "x:2x9", "", data, 0, str(tmp_path)))
    assert str(caught.value) == (
        "no labelled sample has the shapes to build for: got x:4x4, expected x:2x9\nHint: give --opt-shapes of the data"
    )


def test_a_key_of_ones_own_holds_the_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.eye(4, dtype=np.float32), target=np.arange(4))
    found = laid(tmp_path, str(tmp_path / "d.npz"), opt_shapes="x:1x4", labels="target", metric="f1")
    assert found.labelled


@pytest.mark.parametrize(
    ("labelled", "settings", "said"),
    [
        (True, {"metric": "topp1"}, "unknown metric 'topp1': expected top1, top5, f1, accuracy, module:callable\n"
         "Hint: did you mean 'top1'?"),
        (True, {"metric": "nowhere:f"}, "cannot load the metric nowhere:f: got ModuleNotFoundError"),
        (False, {"metric": "top1"}, "a metric needs labels: got top1, expected data with labels"),
        (False, {"labels": "y"}, "the data has no labels under 'y': got x"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_before_anything_is_written(
    tmp_path: Path, labelled: bool, settings: dict[str, str], said: str
) -> None:
    data = rows_in(tmp_path, 4, labelled)
    with pytest.raises(UsageError) as caught:
        laid(tmp_path, data, **settings)
    assert str(caught.value).startswith(said)
    assert [path.name for path in tmp_path.iterdir()] == ["d.npz"]


def test_labels_need_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no data to hold labels under 'y'\nHint: give --data"):
        laid(tmp_path, labels="y")
