"""Tensors through a segment: all come out as they went in, and nothing that cannot be is believed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, InputError
from tailorbird.domain.signature import TensorSpec
from tailorbird.serving.processes.memory import Segment
from tailorbird.serving.processes.messages import Place
from tailorbird.serving.processes.tensors import ALIGNMENT, Layout, Reader, check_outputs

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw):
    """Specs and arrays of any dtype and shape."""
    found = {}
    for number in range(draw(st.integers(0, 4))):
        dtype, shape = draw(st.sampled_from(DType)), draw(SHAPES)
        texts = dtype is DType.BYTES
        array = draw(arrays.arrays(object, shape, elements=st.binary(max_size=9), fill=st.nothing()) if texts
                     else arrays.arrays(dtype.numpy, shape))  # fmt: skip
        found[f"t{number}"] = (dtype, array)
    specs = tuple(TensorSpec(name, dtype, array.shape) for name, (dtype, array) in found.items())
    return specs, {name: array for name, (_, array) in found.items()}


@given(tensors())
def test_all_come_out_as_they_went_in(made):
    specs, sent = made
    with Segment.create() as segment:
        layout = Layout(specs, sent)
        layout.write(segment)
        got = Reader(specs, segment).read(layout.places, layout.extent)
        assert list(got) == list(sent)
        for name, array in sent.items():
            assert got[name].dtype == array.dtype
            assert got[name].shape == array.shape
            assert (got[name].tolist() == array.tolist() if array.dtype == object
                    else got[name].tobytes() == array.tobytes())  # fmt: skip
        assert all(place.offset % ALIGNMENT == 0 for place in layout.places)
        del got


def test_strided_arrays_and_strings():
    specs = (TensorSpec("x", DType.INT32, ("n", 2)), TensorSpec("t", DType.BYTES, ("n",)))
    sent = {"x": np.arange(12, dtype="<i4").reshape(2, 6).T[::2, :], "t": np.array(["ä", b"\0"], object)}
    with Segment.create() as segment:
        layout = Layout(specs, sent)
        layout.write(segment)
        got = Reader(specs, segment).read(layout.places, layout.extent)
        assert got["x"].tolist() == sent["x"].tolist()
        assert got["t"].tolist() == ["ä".encode(), b"\0"]
        del got


@pytest.mark.parametrize("item", [None, 5, 1.5, ["a"]])
def test_an_element_that_is_no_text(item):
    array = np.empty(1, object)
    array[0] = item
    with pytest.raises(InputError, match=rf"^'t' has an element that is no text: got {type(item).__name__}, expected "):
        Layout((TensorSpec("t", DType.BYTES, (1,)),), {"t": array})


def test_the_same_places_are_read_anew_each_time():
    specs = (TensorSpec("x", DType.UINT8, ("n",)),)
    with Segment.create() as segment:
        reader = Reader(specs, segment)
        for value in (3, 4):
            layout = Layout(specs, {"x": np.full(5, value, np.uint8)})
            layout.write(segment)
            assert reader.read(layout.places, layout.extent)["x"].tolist() == [value] * 5
        reader.forget()


FP32 = TensorSpec("y", DType.FP32, ("rows", 4))
TEXT = TensorSpec("y", DType.BYTES, ("rows",))
ROOM = 1 << 16
HUGE = 1 << 62


@pytest.mark.parametrize(
    ("spec", "place", "words"),
    [
        (FP32, Place((2, 4), ROOM, 32), f"tensor 'y' lies outside its memory: got 32 at {ROOM}, expected aligned, in"),
        (FP32, Place((2, 4), ROOM - 16, 32), "tensor 'y' lies outside its memory"),
        (FP32, Place((2, 4), -64, 32), "tensor 'y' lies outside its memory: got 32 at -64"),
        (FP32, Place((2, 4), 32, 32), "tensor 'y' lies outside its memory: got 32 at 32"),
        (FP32, Place((2, 4), HUGE, 32), "tensor 'y' lies outside its memory"),
        (FP32, Place((2, 4), 0, 31), r"tensor 'y' has the wrong size: got 31 bytes, expected y FP32\[rows,4\]"),
        (FP32, Place((2, 4), 0, 0), "tensor 'y' has the wrong size"),
        (FP32, Place((2, 5), 0, 40), r"tensor 'y' has the wrong shape: got \[2, 5\], expected y FP32\[rows,4\]"),
        (FP32, Place((8,), 0, 32), "tensor 'y' has the wrong shape"),
        (FP32, Place((-2, 4), 0, -32), "tensor 'y' has the wrong shape"),
        (FP32, Place((HUGE, 4), 0, 0), "tensor 'y' has the wrong shape"),
        (FP32, Place((1 << 40, 4), 0, 1 << 44), "tensor 'y' lies outside its memory"),
        (TensorSpec("y", DType.FP32, ("a", "b")), Place((0, HUGE), 0, 0), "tensor 'y' has the wrong shape"),
        (TEXT, Place((1 << 40,), 0, 8), "tensor 'y' has the wrong size: got 8 bytes"),
        (TEXT, Place((1,), 0, 3), "tensor 'y' has the wrong size: got 3 bytes"),
        (TEXT, Place((1,), 0, 8), "text 0 of tensor 'y' runs past its end"),
        (TEXT, Place((2,), 64, 9), "text 1 of tensor 'y' runs past its end"),
        (TEXT, Place((1,), 64, 9), "tensor 'y' has bytes left over: got 9, expected 5"),
    ],
)
def test_what_cannot_be_is_not_believed(spec, place, words):
    with Segment.create() as segment:
        segment.memory[:4] = b"\xff\xff\xff\xff"
        segment.memory[64:73] = b"\x01\0\0\0a\xff\xff\xff\xff"
        with pytest.raises(BackendError, match=f"^{words}"):
            Reader((spec,), segment).read((place,), 0)


def test_one_tensor_too_few():
    with (
        Segment.create() as segment,
        pytest.raises(BackendError, match=r"^a wrong count of tensors: got 0, expected 1$"),
    ):
        Reader((FP32,), segment).read((), 0)


@given(st.lists(st.builds(Place, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple),
                          st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1)), max_size=3))  # fmt: skip
def test_no_message_makes_anything_else_than_an_error(places):
    specs = (TensorSpec("a", DType.FP32, ("n", "m")), TensorSpec("b", DType.BYTES, ("n",)))
    with Segment.create() as segment:
        try:
            got = Reader(specs, segment).read(tuple(places), 0)
        except BackendError:
            return
        assert [array.ndim for array in got.values()] == [2, 1]
        del got


@pytest.mark.parametrize(("array", "got"), [(np.zeros((2, 4)), "float64 [2, 4]"), (np.zeros(4, "<f4"), "float32 [4]")])
def test_an_engine_that_answers_otherwise_than_it_says(array, got):
    with pytest.raises(BackendError) as caught:
        check_outputs((FP32,), {"y": array})
    assert caught.value.message == (
        f"the engine's output 'y' is not what its signature says: got {got}, expected y FP32[rows,4]"
    )
