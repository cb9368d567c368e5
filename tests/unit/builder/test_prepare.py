"""Preparing: what is laid out at each place."""

from pathlib import Path

import numpy as np

from tailorbird.builder.cases.data import distinct_rows, load_set
from tailorbird.builder.prepare import OPT_SETS, Cases, CasesArgs, PrepareArgs, lay_out, prepare
from tailorbird.builder.sources.onnx_file import read_model, signature_of
from tests.unit.builder.graphs import linear, save


def laid(folder: Path, data: str = "", **shapes: str) -> Cases:
    said = {"min_shapes": "", "opt_shapes": "", "max_shapes": ""} | shapes
    return lay_out(
        CasesArgs(signature=signature_of(linear()), index_limits={}, data=data, seed=0, folder=str(folder), **said)
    )


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
