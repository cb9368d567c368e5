from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.demo.ctc import alphabet, characters_right, decode, edits
from tailorbird.domain.errors import ModelError

CHARACTERS = ["", "a", "b", " "]


def steps(*classes: int, sure: float = 0.9) -> np.ndarray:
    rest = (1 - sure) / (len(CHARACTERS) - 1)
    found = np.full((len(classes), len(CHARACTERS)), rest, np.float32)
    found[range(len(classes)), classes] = sure
    return found


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((0, 1, 1, 0, 1, 2, 2, 0), "aab"),
        ((1, 3, 2), "a b"),
        ((1, 1, 1), "a"),
        ((2,), "b"),
        ((0, 0), ""),
    ],
)
def test_repeats_are_one_character_unless_a_blank_parts_them(classes: tuple[int, ...], text: str) -> None:
    assert decode(steps(*classes), CHARACTERS)[0] == text


def test_confidence_is_the_mean_over_the_steps_that_gave_characters() -> None:
    probabilities = np.concatenate([steps(1, sure=0.8), steps(0, sure=0.3), steps(2, sure=0.6)])
    assert decode(probabilities, CHARACTERS)[1] == pytest.approx(0.7)
    assert decode(steps(0, 0), CHARACTERS) == ("", 0.0)


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
)
def test_edits(first: str, second: str, distance: int) -> None:
    assert edits(first, second) == edits(second, first) == distance


@given(st.text("ab ", max_size=8), st.text("ab ", max_size=8))
def test_edits_are_a_distance(first: str, second: str) -> None:
    assert (edits(first, second) == 0) == (first == second)
    assert abs(len(first) - len(second)) <= edits(first, second) <= max(len(first), len(second))


def test_characters_right() -> None:
    assert characters_right("Flat white 3.80", "Flat  white 3.80 ") == 1
    assert characters_right("abcd", "abxd") == 0.75
    assert characters_right("ab", "something else") == 0


def recogniser(folder: Path, **metadata: str) -> Path:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_the_alphabet_is_the_blank_the_models_characters_and_a_space(tmp_path: Path) -> None:
    assert alphabet(recogniser(tmp_path, character="!\n\u2028\nZ")) == ["", "!", "\u2028", "Z", " "]


def test_a_model_without_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        alphabet(recogniser(tmp_path, author="nobody"))
    assert caught.value.message == "model.onnx names no characters: got author, expected the metadata 'character'"
