"""The user's data: read without running code from it, checked, dealt out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailorbird.builder.cases import data
from tailorbird.builder.cases.data import deal, distinct_rows, load_samples, load_set, save_set
from tailorbird.builder.cases.places import Place
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.signature import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", DType.FP32, ("N", 2)),), (TensorSpec("y", DType.FP32, ("N",)),))
TEXT = Signature((TensorSpec("x", DType.BYTES, ("N",)),), ())


def rows(*numbers: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[number, number] for number in numbers], np.float32)}


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


def test_at_most_so_many_samples_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_SAMPLES", 3)
    monkeypatch.setattr(sys.modules[__name__], "endless", endless, raising=False)
    assert len(load_samples(f"{__name__}:endless", SIGNATURE)) == 3


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
    expected = "expected an .npz file, a directory of them, or module:callable"
    assert refusal("lost.npz") == f"cannot read data: got lost.npz, {expected}"
    assert refusal("not a module:call").startswith("cannot read data: got not a module:call")


def test_a_directory_without_samples_is_refused(tmp_path: Path) -> None:
    hint = "each .npz file is one sample: an array for every input"
    assert refusal(str(tmp_path)) == f"no .npz file in {tmp_path}\nHint: {hint}"


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "zip", "npy"]
)
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    said = refusal(str(tmp_path / "a.npz"))
    assert said.startswith(f"cannot read {tmp_path / 'a.npz'}: got ")
    assert said.endswith("expected .npz with one array for each input")


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


# --- dealing -------------------------------------------------------------------------------------


def dealt(samples: list[dict[str, np.ndarray]], count: int, at_rows: int, batch: str | None = "N") -> list[list[float]]:
    place = Place("opt", {"x": (at_rows, 2)}, at_rows)
    return [one["x"][:, 0].tolist() for one in deal(samples, place, batch, count)]


def test_rows_are_dealt_in_order_and_differ_between_sets() -> None:
    assert dealt([rows(1, 2, 3), rows(4, 5)], 2, 2) == [[1, 2], [3, 4]]


def test_as_many_sets_as_the_rows_allow() -> None:
    assert dealt([rows(1, 2, 3)], 4, 2) == [[1, 2]]
    assert dealt([rows(1, 2, 3)], 4, 1) == [[1], [2], [3]]


def test_too_few_rows_are_repeated() -> None:
    assert dealt([rows(1), rows(2)], 4, 5) == [[1, 2, 1, 2, 1]]


def test_samples_of_other_dims_are_passed_over() -> None:
    other = {"x": np.zeros((1, 3), np.float32)}
    assert dealt([other, rows(7)], 4, 1) == [[7]]
    assert dealt([other], 4, 1) == []
    assert dealt([], 4, 1) == []


def test_without_a_batch_dim_samples_are_taken_whole() -> None:
    assert dealt([rows(1, 2), rows(3), rows(4, 5)], 4, 2, batch=None) == [[1, 2], [4, 5]]


def test_distinct_rows_differ_in_some_input() -> None:
    assert distinct_rows(rows(1, 2), 2)
    assert distinct_rows(rows(1), 1)
    assert not distinct_rows(rows(1, 2, 1), 3)
    assert distinct_rows(rows(1, 1) | {"m": np.array([0, 1])}, 2)
