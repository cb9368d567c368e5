"""What is measured: names with a batch, and sets of inputs that do not overlap."""

from pathlib import Path

import numpy as np
import pytest

from bench import cases
from bench.zoo import ZooError, ZooModel
from tailorbird.builder.cases.data import load_set


def noise(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    return {name: np.random.default_rng(seed).standard_normal(shape, np.float32) for name, shape in shapes.items()}


def case(batch: int = 0) -> cases.Case:
    return cases.Case(ZooModel("tiny", lambda _: None, {"x": (1, 3)}, noise), batch)  # type: ignore[arg-type]


def test_a_name_may_carry_a_batch() -> None:
    assert (cases.parse("bert-base").batch, cases.parse("bert-base").name) == (0, "bert-base")
    large = cases.parse("bert-base@8")
    assert (large.batch, large.name) == (8, "bert-base@8")
    assert large.shapes == "input_ids:8x128,attention_mask:8x128"


@pytest.mark.parametrize("text", ["bert-base@", "bert-base@0", "bert-base@x", "bert-base@-1"])
def test_a_batch_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ZooError, match="expected NAME@BATCH with a batch of 1 or more"):
        cases.parse(text)


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(ZooError, match="No zoo model 'nosuch'"):
        cases.parse("nosuch@2")


def test_the_eight_come_first() -> None:
    assert len(cases.default_names()) == 9
    assert cases.default_names()[-1] == "bert-base@8"


def test_no_set_is_both_seen_and_unseen(tmp_path: Path) -> None:
    inputs = cases.write_inputs(case(), tmp_path)
    sets = [load_set(path)["x"] for place in (inputs.data, inputs.unseen) for path in sorted(place.glob("*.npz"))]
    assert len(sets) == cases.DATA_ROWS + cases.UNSEEN_ROWS
    assert len({one.tobytes() for one in sets}) == len(sets)


def test_a_larger_batch_means_fewer_sets_of_that_batch(tmp_path: Path) -> None:
    inputs = cases.write_inputs(case(batch=4), tmp_path)
    data, unseen = (list(place.glob("*.npz")) for place in (inputs.data, inputs.unseen))
    assert (len(data), len(unseen)) == (12, 4)
    assert load_set(data[0])["x"].shape == (4, 3)
