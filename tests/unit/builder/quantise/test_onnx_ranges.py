"""Ranges on calibration data, sample by sample."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

from tailorbird.builder.cases.data import save_set
from tailorbird.builder.quantise.onnx_ranges import Found, find, load, save
from tailorbird.domain.errors import BackendError, TailorbirdError
from tailorbird.domain.quantisation import Ranges
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import node, numbers

NORMAL = np.random.default_rng(0).standard_normal((4, 50_000)).astype(np.float32)


def doubled() -> onnx.ModelProto:
    """``h`` is twice the input, ``r`` its positive part."""
    nodes = [node("Mul", "x two", "h"), node("Relu", "h", "r"), node("Identity", "r", "y")]
    return model(nodes, [value("x", ["n"])], [value("y", ["n"])], [numbers("two", 2)])


def found(folder: Path, arrays: list[Any], method: Ranges, values: tuple[str, ...] = ("x", "h", "r")) -> Found:
    files = []
    for number, array in enumerate(arrays):
        files.append(str(folder / f"{number}.npz"))
        save_set(Path(files[-1]), {"x": np.asarray(array, np.float32)})
    return find(doubled(), list(values), tuple(files), method, folder, 1)


@pytest.mark.parametrize("method", [Ranges.MINMAX, Ranges.ENTROPY])
def test_the_extremes_of_few_values_over_samples_of_all_lengths(method: Ranges, tmp_path: Path) -> None:
    got = found(tmp_path, [[1, -3], [], [2, 0.5, -1]], method)
    assert got == Found(method, {"x": (-3, 2), "h": (-6, 4), "r": (0, 4)}, 3)


def test_the_share_that_may_be_cut_is_cut(tmp_path: Path) -> None:
    """Two of 200 002 values lie far out, one on each side: 0.0005 % each, which is what is cut."""
    got = found(tmp_path, [*NORMAL, [-40, 40]], Ranges.PERCENTILE).ranges
    assert got["x"] == (-40, 40)  # of an input, nothing is
    assert -10.5 < got["h"][0] < -7
    assert 7 < got["h"][1] < 10.5
    assert got["r"][0] == 0


def test_entropy_cuts_a_long_tail(tmp_path: Path) -> None:
    tail = [np.linspace(5, 50, 20, dtype=np.float32)]
    got = found(tmp_path, [*NORMAL, *tail], Ranges.ENTROPY).ranges
    assert -9.5 < got["h"][0] < -4  # the least value; the cut is even
    assert 4 < got["h"][1] < 50
    assert got["r"][0] == 0
    assert 4 < got["r"][1] < 50


@pytest.mark.parametrize("method", list(Ranges))
def test_constants_and_negative_values_have_ranges(method: Ranges, tmp_path: Path) -> None:
    got = found(tmp_path, [np.full(50_000, -2), np.full(50_000, -2)], method).ranges
    assert got["r"] == pytest.approx((0, 0), abs=0.01)
    assert got["h"] == pytest.approx((-4, -4), abs=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", list(Ranges))
def test_what_is_not_finite_has_no_range(bad: float, method: Ranges, tmp_path: Path) -> None:
    assert "h" not in found(tmp_path, [[1, 2], [bad, 1], [3]], method).ranges


@pytest.mark.parametrize("method", list(Ranges))
def test_the_whole_float_range_has_a_range(method: Ranges, tmp_path: Path) -> None:
    """An attention mask: -3.4e38."""
    low = float(np.finfo(np.float32).min) / 2
    got = found(tmp_path, [np.linspace(low, 1, 50_000)], method, ("h", "r")).ranges
    assert got["h"][0] == pytest.approx(2 * low, rel=0.01)


def test_no_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TailorbirdError, match=r"^calibration needs data\nHint: give real inputs with --data$"):
        found(tmp_path, [], Ranges.MINMAX)


def test_a_model_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    save_set(tmp_path / "other.npz", {"other": np.ones(1, np.float32)})
    with pytest.raises(BackendError, match=r"^onnxruntime could not quantise the model: got .*other"):
        find(doubled(), ["h"], (str(tmp_path / "other.npz"),), Ranges.MINMAX, tmp_path, 1)


def test_they_come_back_to_the_bit(tmp_path: Path) -> None:
    some = Found(Ranges.PERCENTILE, {"a/b:0": (float(np.float32(-0.1)), 1e-42), "é": (0.0, 3.4e38)}, 7)
    save(some, tmp_path)
    assert load(tmp_path) == some


@pytest.mark.parametrize("text", ["", "{", '{"method": "minmax"}'])
def test_a_spoilt_file_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(TailorbirdError, match=r"^cannot read the ranges in .*: got .*\nHint: quantise again"):
        load(tmp_path)
