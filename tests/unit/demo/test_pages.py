import numpy as np
import pytest

from tailorbird.demo.models import DETECTOR, RECOGNISER, Model
from tailorbird.demo.pages import HEIGHT, WIDTH, pages
from tailorbird.demo.strips import cut, normalised, strip


def test_three_pages_of_one_size_with_their_words() -> None:
    found = pages()
    assert [page.name for page in found] == ["receipt", "sign", "poem"]
    assert {(page.pixels.shape, page.pixels.dtype.name) for page in found} == {((HEIGHT, WIDTH, 3), "uint8")}
    assert "Total EUR 15.00" in found[0].lines
    assert all(len(page.lines) >= 6 for page in found)


def test_a_seed_gives_the_same_pages_and_another_one_others_with_the_same_words() -> None:
    first, again, other = pages(3), pages(3), pages(4)
    for one, same, different in zip(first, again, other, strict=True):
        assert np.array_equal(one.pixels, same.pixels)
        assert not np.array_equal(one.pixels, different.pixels)
        assert one.lines == different.lines


def test_pixels_are_blue_first_and_within_one() -> None:
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    tensor = normalised(red)
    assert (tensor.shape, tensor.dtype.name) == ((1, 3, 4, 6), "float32")
    assert tensor[0, :, 0, 0].tolist() == [-1, -1, 1]


def test_a_short_line_is_scaled_and_padded_with_zeros() -> None:
    laid = strip(np.full((24, 60, 3), 255, np.uint8))
    assert laid.shape == (1, 3, 48, 320)
    assert (laid[..., :120] == 1).all()
    assert (laid[..., 120:] == 0).all()


def words(*spans: tuple[int, int], width: int) -> np.ndarray:
    """White paper with striped blocks for words."""
    line = np.full((30, width, 3), 255, np.uint8)
    for start, end in spans:
        line[8:22:2, start:end] = 0
    return line


def test_a_line_that_fits_stays_whole() -> None:
    line = words((0, 80), (100, 190), width=200)
    assert [piece.shape[1] for piece in cut(line)] == [200]


def test_a_long_line_is_cut_between_words() -> None:
    line = words((0, 150), (162, 260), (275, 390), width=400)
    pieces = cut(line)
    assert sum(piece.shape[1] for piece in pieces) == 400
    assert all(piece.shape[1] <= 200 for piece in pieces)
    ends = np.cumsum([piece.shape[1] for piece in pieces])[:-1]
    assert all(any(left <= end <= right for left, right in ((150, 162), (260, 275))) for end in ends)


def test_a_word_longer_than_a_strip_is_cut_where_the_strip_ends() -> None:
    assert [piece.shape[1] for piece in cut(words((0, 500), width=500))] == [200, 200, 100]


@pytest.mark.parametrize("model", [DETECTOR, RECOGNISER], ids=lambda model: model.name)
def test_the_inputs_of_a_build_have_the_models_shape(model: Model) -> None:
    arrays = list(model.inputs())
    assert len(arrays) >= 6
    assert {(array.shape, array.dtype.name) for array in arrays} == {(model.shape, "float32")}


def test_shapes_are_in_trtexecs_grammar() -> None:
    assert RECOGNISER.shapes == "x:1x3x48x320"
