"""The user's data: read without running code from it, bounded, checked; and its labels."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailorbird.builder.cases import data
from tailorbird.builder.cases.data import Sample, distinct_rows, load_data, load_set, save_set
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.signature import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", DType.FP32, ("N", 2)),), (TensorSpec("y", DType.FP32, ("N",)),))
TEXT = Signature((TensorSpec("x", DType.BYTES, ("N",)),), ())


def rows(*numbers: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[number, number] for number in numbers], np.float32)}


def load_samples(spec: str, signature: Signature) -> list[Sample]:
    return load_data(spec, signature).samples


def saved(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


# --- reading -------------------------------------------------------------------------------------


def test_one_file_is_one_sample(tmp_path: Path) -> None:
    (sample,) = load_samples(saved(tmp_path / "a.npz", **rows(1, 2)), SIGNATURE)
    np.testing.assert_array_equal(sample["x"], rows(1, 2)["x"])


def test_a_directory_holds_samples_in_order_of_name(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        saved(tmp_path / f"{number}.npz", **rows(number))
    assert [sample["x"][0, 0] for sample in load_samples(str(tmp_path), SIGNATURE)] == [0, 1, 2]


def test_arrays_that_are_no_inputs_are_left_aside(tmp_path: Path) -> None:
    (sample,) = load_samples(saved(tmp_path / "a.npz", labels=np.zeros(1), **rows(1)), SIGNATURE)
    assert list(sample) == ["x"]


def test_a_set_survives_being_saved(tmp_path: Path) -> None:
    tensors = {
        "file": np.arange(3, dtype=np.int64),
        "a/b:0": np.array(2.5, np.float32),
        "text": np.array([[b"one"], [b"three"]], object),
        "empty": np.zeros((0, 4), np.float16),
    }
    save_set(tmp_path / "s.npz", tensors)
    found = load_set(tmp_path / "s.npz")
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_callable_is_left_after_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_ROWS", 3)
    found = load_data(f"{__name__}:endless", SIGNATURE)
    assert len(found.samples) == 3
    assert found.notes == ("the data was read up to 3 rows; what follows was left out",)


def endless() -> Iterator[dict[str, np.ndarray]]:
    while True:
        yield rows(1)


def from_callable(result: Any, monkeypatch: pytest.MonkeyPatch, signature: Signature = SIGNATURE) -> list[Any]:
    monkeypatch.setattr(sys.modules[__name__], "given", lambda: result, raising=False)
    return load_samples(f"{__name__}:given", signature)


def test_a_callable_yields_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(from_callable([rows(1), rows(2, 3)], monkeypatch)) == 2


# --- refusing ------------------------------------------------------------------------------------


def refusal(spec: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_samples(spec, SIGNATURE)
    return str(caught.value)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    expected = "expected an .npz file, a directory of .npz or .npy, or module:callable"
    assert refusal("lost.npz") == f"cannot read data: got lost.npz, {expected}"
    assert refusal("not a module:call").startswith("cannot read data: got not a module:call")


def test_a_directory_without_samples_is_refused(tmp_path: Path) -> None:
    hint = "each .npz file is one sample: an array for every input"
    assert refusal(str(tmp_path)) == f"no .npz or .npy file in {tmp_path}\nHint: {hint}"


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "zip", "npy"]
)
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    said = refusal(str(tmp_path / "a.npz"))
    assert said.startswith(f"cannot read {tmp_path / 'a.npz'}: got ")
    assert said.endswith("expected .npz with one array for each input")


def test_an_npz_packed_in_a_way_that_nothing_here_reads_is_refused(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "a.npz", **rows(1)))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 10] = 99  # the compression method, in the directory at the end
    path.write_bytes(content)
    assert refusal(str(path)).startswith(f"cannot read {path}: got That compression method is not supported")


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(1)["x"])
    assert refusal(str(tmp_path / "a.npy")).startswith(f"cannot read {tmp_path / 'a.npy'}")


def test_a_pickled_array_is_refused_and_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], object))
    assert "allow_pickle=False" in refusal(str(tmp_path / "a.npz"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": np.zeros(1)}, "the data names no input of the model: got z, expected x"),
        ({}, "missing input 'x': expected x FP32[N,2]"),
        ({"x": np.zeros((1, 2))}, "input 'x' has the wrong dtype: got float64, expected FP32"),
        ({"x": np.zeros((1, 2, 1), np.float32)}, "input 'x' has rank 3: got [1, 2, 1], expected [N,2]"),
        ({"x": np.zeros((1, 3), np.float32)}, "input 'x' has the wrong shape: got [1, 3], expected [N,2]"),
        ({"x": np.zeros((0, 2), np.float32)}, "the data is empty in input 'x': got [0, 2], expected one row or more"),
        ({"x": np.full((1, 2), np.nan, np.float32)},
         "the data holds NaN in input 'x'\nHint: clean the data; NaN hides every other fault"),
    ],
)  # fmt: skip
def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_samples(saved(tmp_path / "a.npz", **arrays), SIGNATURE)
    assert str(caught.value) == said


def test_a_callable_that_cannot_be_called_is_refused() -> None:
    expected = "expected a callable that yields dicts of arrays"
    assert refusal("no_such_module:f") == (
        f"cannot load data from no_such_module:f: got ModuleNotFoundError: No module named 'no_such_module', {expected}"
    )
    assert "AttributeError" in refusal(f"{__name__}:no_such_name")


def breaking() -> Iterator[dict[str, np.ndarray]]:
    yield rows(1)
    raise ZeroDivisionError("half-way")


def test_a_callable_that_raises_is_told_in_its_own_words() -> None:
    assert "got ZeroDivisionError: half-way" in refusal(f"{__name__}:breaking")


def test_a_callable_that_gives_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"the data holds no sample: got .*:given, expected x FP32\[N,2\]"):
        from_callable([], monkeypatch)
    with pytest.raises(UsageError, match="'NoneType' object is not iterable"):
        from_callable(None, monkeypatch)
    with pytest.raises(InputError, match="a sample is not a dict: got tuple, expected arrays by input name"):
        from_callable([(1, 2)], monkeypatch)


def test_text_may_be_given_as_bytes(tmp_path: Path) -> None:
    (sample,) = load_samples(saved(tmp_path / "a.npz", x=np.array([b"one", b"two"])), TEXT)
    assert sample["x"].tolist() == [b"one", b"two"]


# --- limits --------------------------------------------------------------------------------------


def test_a_sample_is_cut_where_the_rows_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_ROWS", 3)
    saved(tmp_path / "a.npz", **rows(1, 2), labels=[1, 2])
    saved(tmp_path / "b.npz", **rows(3, 4), labels=[3, 4])
    saved(tmp_path / "c.npz", **rows(5), labels=[5])
    found = load_data(str(tmp_path), SIGNATURE)
    assert [sample["x"][:, 0].tolist() for sample in found.samples] == [[1, 2], [3]]
    assert [labels.tolist() for labels in found.labels] == [[1, 2], [3]]
    assert found.notes == ("the data was read up to 3 rows; what follows was left out",)


def test_just_as_many_rows_leave_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_ROWS", 2)
    assert load_data(saved(tmp_path / "a.npz", **rows(1, 2)), SIGNATURE).notes == ()


def test_what_would_take_too_much_memory_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_BYTES", 1 << 10)
    saved(tmp_path / "a.npz", **rows(1))
    saved(tmp_path / "b.npz", **rows(*range(100)))
    broken = (tmp_path / "b.npz").read_bytes().replace(b"NUMPY", b"NOTNP")  # reading it would fail
    (tmp_path / "b.npz").write_bytes(broken)
    found = load_data(str(tmp_path), SIGNATURE)
    assert len(found.samples) == 1
    assert found.notes == ("the data was read up to 0 GiB; what follows was left out",)


def test_a_first_sample_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_BYTES", 1 << 10)
    assert refusal(saved(tmp_path / "a.npz", **rows(*range(200)))) == (
        "the first sample of the data is too large: got 0.0 GiB, expected 0 GiB or less\n"
        "Hint: split it into several files, or give a directory of .npy files"
    )


def test_bytes_of_all_samples_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_BYTES", 3 * rows(1)["x"].nbytes)
    assert len(load_data(f"{__name__}:endless", SIGNATURE).samples) == 3


# --- .npy ----------------------------------------------------------------------------------------

PAIR = Signature((TensorSpec("a", DType.FP32, ("N", 2)), TensorSpec("b", DType.INT64, ("N",))), ())
STATIC = Signature((TensorSpec("x", DType.FP32, (1, 2)),), ())
BY_TWO = Signature((TensorSpec("x", DType.FP32, (2, 2)),), ())
PLAIN = Signature((TensorSpec("x", DType.FP32, (2,)), TensorSpec("s", DType.FP32, ())), ())


def stored(folder: Path, **arrays: Any) -> str:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def grid(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_one_npy_for_each_input_holds_samples_along_its_first_axis(tmp_path: Path) -> None:
    found = load_data(stored(tmp_path, a=grid(3, 2), b=np.arange(3), labels=[7, 8, 9]), PAIR)
    assert [(sample["a"].shape, sample["b"].tolist()) for sample in found.samples] == [((1, 2), [n]) for n in range(3)]
    assert [labels.tolist() for labels in found.labels] == [[7], [8], [9]]
    assert not any(isinstance(array.base, np.memmap) for sample in found.samples for array in sample.values())


@pytest.mark.parametrize(
    ("signature", "array", "shapes"),
    [
        (STATIC, grid(3, 2), [(1, 2)] * 3),
        (STATIC, grid(3, 1, 2), [(1, 2)] * 3),
        (BY_TWO, grid(6, 2), [(2, 2)] * 3),
        (SIGNATURE, grid(3, 4, 2), [(4, 2)] * 3),
    ],
)
def test_the_first_axis_is_cut_into_what_the_model_takes(
    tmp_path: Path, signature: Signature, array: np.ndarray, shapes: list[Any]
) -> None:
    found = load_data(stored(tmp_path, x=array), signature).samples
    assert [sample["x"].shape for sample in found] == shapes
    np.testing.assert_array_equal(np.concatenate([sample["x"].ravel() for sample in found]), array.ravel())


def test_inputs_without_rows_have_samples_before_their_own_axes(tmp_path: Path) -> None:
    found = load_data(stored(tmp_path, x=grid(3, 2), s=grid(3), label=[4, 5, 6]), PLAIN)
    assert [(one["x"].shape, one["s"].shape, float(one["s"])) for one in found.samples] == [
        ((2,), (), 0.0), ((2,), (), 1.0), ((2,), (), 2.0)
    ]  # fmt: skip
    assert [labels.tolist() for labels in found.labels] == [[4], [5], [6]]


def test_of_one_input_each_npy_may_be_a_sample(tmp_path: Path) -> None:
    found = load_data(stored(tmp_path, p=grid(2, 2), q=grid(1, 2), labels=[4, 5, 6]), SIGNATURE)
    assert [len(sample["x"]) for sample in found.samples] == [2, 1]
    assert [labels.tolist() for labels in found.labels] == [[4, 5], [6]]


def test_of_many_rows_only_so_many_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_ROWS", 5)
    found = load_data(stored(tmp_path, x=grid(100, 2), labels=np.arange(100)), SIGNATURE)
    assert (len(found.samples), len(found.labels), len(found.notes)) == (5, 5, 1)


@pytest.mark.parametrize(
    ("signature", "arrays", "said"),
    [
        (PAIR, {"a": grid(3, 2)}, "no .npy file for input 'b' in {folder}: got a, expected a.npy, b.npy"),
        (PAIR, {"a": grid(3, 2), "b": np.arange(2)},
         "inputs differ in their number of samples in {folder}: got a 3, b 2, expected equal numbers"),
        (SIGNATURE, {"x": grid(3, 2), "labels": np.arange(4)},
         "labels do not match the samples: got [4], expected 3, one for each sample"),
        (SIGNATURE, {"x": grid(3, 3)}, "input 'x' has the wrong shape: got [1, 3], expected [N,2]"),
        (SIGNATURE, {"x": grid(3)}, "input 'x' has rank 1: got [3], expected [N,2]"),
        (BY_TWO, {"x": grid(5, 2)}, "input 'x' has the wrong shape: got [5, 2], expected [2,2]"),
        (SIGNATURE, {"x": grid(0, 2)}, "the data is empty in input 'x': got [0, 2], expected one row or more"),
    ],
)  # fmt: skip
def test_npy_files_that_do_not_fit_are_refused(
    tmp_path: Path, signature: Signature, arrays: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_data(stored(tmp_path, **arrays), signature)
    assert str(caught.value) == said.format(folder=tmp_path)


def test_both_kinds_of_files_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.npz", **rows(1))
    assert refusal(stored(tmp_path, x=grid(1, 2))) == (
        f"{tmp_path} holds both .npz and .npy files: expected one kind\n"
        "Hint: an .npz file is one sample, an .npy file may be all samples of one input"
    )


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x03\x00{(\n", b"PK\x05\x06" + bytes(18)]
)
def test_what_is_no_npy_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    said = refusal(str(tmp_path))
    assert said.startswith(f"cannot read {tmp_path / 'x.npy'}: got ")
    assert said.endswith("expected .npy with one array, and no pickle")


def test_a_pickled_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object))
    assert refusal(str(tmp_path)).startswith(f"cannot read {tmp_path / 'x.npy'}: got ")


# --- labels --------------------------------------------------------------------------------------


def labels_of(monkeypatch: pytest.MonkeyPatch, *samples: Any, key: str = "", signature: Any = SIGNATURE) -> list[Any]:
    monkeypatch.setattr(sys.modules[__name__], "given", lambda: samples, raising=False)
    return [labels.tolist() for labels in load_data(f"{__name__}:given", signature, key).labels]


def test_labels_are_found_under_the_usual_names_or_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert labels_of(monkeypatch, rows(1, 2) | {"labels": [3, 4]}) == [[3, 4]]
    assert labels_of(monkeypatch, rows(1) | {"label": 3}, rows(2) | {"label": [4]}) == [[3], [4]]
    assert labels_of(monkeypatch, rows(1) | {"target": [5], "labels": [6]}, key="target") == [[5]]
    assert labels_of(monkeypatch, rows(1) | {"target": [5]}) == []


def test_an_input_is_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = Signature((TensorSpec("labels", DType.FP32, ("N", 2)),), ())
    sample = {"labels": rows(1)["x"]}
    assert labels_of(monkeypatch, sample, signature=signature) == []
    assert labels_of(monkeypatch, sample | {"label": [1]}, signature=signature) == [[1]]
    with pytest.raises(InputError, match="'labels' is an input of the model, so it cannot be the labels"):
        labels_of(monkeypatch, sample, key="labels", signature=signature)


def test_labels_may_be_numbers_sequences_or_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert labels_of(monkeypatch, rows(1, 2) | {"labels": [[1, 2, 3], [4, 5, 6]]}) == [[[1, 2, 3], [4, 5, 6]]]
    assert labels_of(monkeypatch, rows(1) | {"labels": 0.5}) == [[0.5]]
    assert labels_of(monkeypatch, rows(1) | {"labels": ["a"]}, rows(2) | {"labels": ["longer"]}) == [["a"], ["longer"]]
    assert labels_of(monkeypatch, rows(1) | {"labels": np.array(["é".encode()])}) == [["é"]]
    assert labels_of(monkeypatch, rows(1) | {"labels": np.array(["a"], object)}) == [["a"]]


def test_without_a_batch_dim_leading_dims_may_be_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = {"x": grid(2, 2)}
    assert labels_of(monkeypatch, sample | {"labels": [1, 2]}, signature=BY_TWO) == [[1, 2]]
    assert labels_of(monkeypatch, sample | {"labels": 1}, signature=BY_TWO) == [[1]]
    with pytest.raises(InputError, match="got 3 labels, expected 1 or 2, one for each row"):
        labels_of(monkeypatch, sample | {"labels": [1, 2, 3]}, signature=BY_TWO)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, 2, 3], "labels do not match the rows of their sample: got 3 labels, expected 2, one for each row"),
        (1, "labels do not match the rows of their sample: got one label, expected 2, one for each row"),
        ([], "the labels are empty: got [0], expected one for each row"),
        ([0.5, np.nan], "the labels hold NaN\nHint: leave rows without a label out"),
        ([{}, {}], "the labels have an unsupported type: got object, expected numbers or text"),
        ([1j, 2], "the labels have an unsupported type: got complex128, expected numbers or text"),
    ],
)
def test_labels_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch, labels: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        labels_of(monkeypatch, rows(1, 2) | {"labels": labels})
    assert str(caught.value) == said


@pytest.mark.parametrize("labels", [[[1], [2, 3]], np.array([b"\xff", b"a"])])
def test_labels_that_cannot_be_read_are_refused(monkeypatch: pytest.MonkeyPatch, labels: Any) -> None:
    with pytest.raises(InputError, match=r"cannot read the labels: got .*, expected numbers or text, of one shape"):
        labels_of(monkeypatch, rows(1, 2) | {"labels": labels})


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ({"labels": [1]}, {}, "no labels, but those before it have"),
        ({}, {"labels": [1]}, "labels, but those before it have none"),
    ],
)
def test_labels_of_some_samples_only_are_refused(
    monkeypatch: pytest.MonkeyPatch, first: Any, second: Any, state: str
) -> None:
    with pytest.raises(InputError) as caught:
        labels_of(monkeypatch, rows(1) | first, rows(2) | second)
    assert str(caught.value) == (f"sample 2 has {state}: expected labels in every sample, or in none")


@pytest.mark.parametrize("other", [["a"], [[1, 2]], [0.5]])
def test_labels_of_different_forms_are_refused(monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    with pytest.raises(
        InputError, match=r"labels differ in form between samples: got .*, expected int64\[1\] as before"
    ):
        labels_of(monkeypatch, rows(1) | {"labels": [1]}, rows(2) | {"labels": other})


def test_labels_that_are_not_there_are_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        labels_of(monkeypatch, rows(1) | {"target": [1]}, key="targets")
    assert str(caught.value) == ("the data has no labels under 'targets': got x, target\nHint: did you mean 'target'?")


def test_distinct_rows_differ_in_some_input() -> None:
    assert distinct_rows(rows(1, 2), 2)
    assert distinct_rows(rows(1), 1)
    assert not distinct_rows(rows(1, 2, 1), 3)
    assert distinct_rows(rows(1, 1) | {"m": np.array([0, 1])}, 2)
