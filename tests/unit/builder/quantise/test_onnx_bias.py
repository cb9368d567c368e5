"""Bias correction: means found in the graph, and the shift that makes up for rounded weights."""

from pathlib import Path

import numpy as np
import pytest

from tailorbird.builder.cases.data import save_set
from tailorbird.builder.quantise.onnx_bias import channel_means, load, save, shift_of
from tailorbird.domain.errors import TailorbirdError
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import const, images, node, normal, numbers


def test_means_are_over_rows_places_and_samples_of_any_number(tmp_path: Path) -> None:
    made = model([node("Conv", "x k", "y", "conv")], [value("x", ["n", 3, "h", "w"])], [value("y", None)],
                 [const("k", 4, 3, 1, 1)])  # fmt: skip
    samples = [images(0, 2), images(1, 5)]
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for file, sample in zip(files, samples, strict=True):
        save_set(file, sample)
    found = channel_means(made, ["x"], tuple(map(str, files)), tmp_path, 1)
    everything = np.concatenate([sample["x"] for sample in samples])
    np.testing.assert_allclose(found["x"], everything.mean((0, 2, 3)), atol=1e-6)
    assert channel_means(made, [], tuple(map(str, files)), tmp_path, 1) == {}


def test_each_value_is_divided_by_rows_of_its_own(tmp_path: Path) -> None:
    """What a reshape puts into the batch are rows, too."""
    made = model([node("Reshape", "x shape", "folded")], [value("x", [1, 6, 2, 2])], [value("folded", None)],
                 [numbers("shape", 2, 3, 2, 2, dtype=np.int64)])  # fmt: skip
    given = {"x": images(0, 2)["x"][:1].repeat(2, 1)[..., :2, :2].copy()}
    save_set(tmp_path / "a.npz", given)
    found = channel_means(made, ["x", "folded"], (str(tmp_path / "a.npz"),), tmp_path, 1)
    np.testing.assert_allclose(found["folded"], given["x"].reshape(2, 3, 2, 2).mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found["x"], given["x"].mean((0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("group", [1, 2, 6])
def test_the_shift_is_the_mean_of_what_is_missing(group: int) -> None:
    """Without padding, exactly."""
    error, x = normal("error", (12, 6 // group)), normal("x", (50, 6)) + 2.0
    parts = np.split(error, group)
    missing = np.concatenate([given @ part.T for given, part in zip(np.split(x, group, 1), parts, strict=True)], 1)
    shift = shift_of(error[..., None, None], x.mean(0), group)
    np.testing.assert_allclose(shift, missing.mean(0), atol=1e-12)


def test_means_are_kept_for_graphs_made_of_this_one(tmp_path: Path) -> None:
    save({"x": [0.5, -1.0]}, tmp_path)
    assert load(tmp_path) == {"x": [0.5, -1.0]}
    with pytest.raises(TailorbirdError, match="cannot read the means in"):
        load(tmp_path / "nowhere")
