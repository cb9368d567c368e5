"""Where the user's data comes from: files and callables, one sample at a time, nothing read before it is wanted."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailorbird.builder.cases.labels import key_among, share
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import UsageError
from tailorbird.domain.signature import Signature, TensorSpec

EXPECTED = "an .npz file, a directory of .npz or .npy, or module:callable"
_NPZ = ".npz with one array for each input"
_NPY = ".npy with one array, and no pickle"


class Raw(NamedTuple):
    """One sample that is not read yet."""

    size: int
    """Bytes of its arrays."""
    read: Callable[[], Any]


def raw_samples(spec: str, signature: Signature, key: str) -> Iterator[Raw]:
    """Samples of whatever ``spec`` names, in order; raises :class:`UsageError` when it cannot be read.

    A directory of ``.npy`` files holds one for each input, by its name, with samples along the first axis, and one
    for the labels; or, where the model has one input, each file is a sample.
    """
    path = Path(spec)
    if path.is_dir():
        return _from_folder(path, signature, key)
    if path.is_file():
        return map(_npz, [path])
    module, colon, name = spec.partition(":")
    if not colon or not module.replace(".", "").replace("_", "").isalnum():
        raise UsageError("cannot read data", got=spec, expected=EXPECTED)
    return _from_call(module, name)


@contextmanager
def readable(path: Path, expected: str = _NPZ) -> Iterator[None]:
    """Whatever a broken or hostile file makes numpy or zip raise becomes a :class:`UsageError`.

    That is a long list, from ``NotImplementedError`` for odd compression to the tokenizer's error for an odd header.
    """
    try:
        yield
    except Exception as error:
        raise UsageError(f"cannot read {path}", got=error, expected=expected) from None


def read_npz(path: Path) -> dict[str, Array]:
    """Named arrays of an ``.npz`` file; raises :class:`UsageError` for anything else, pickles among them."""
    with readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _npz(path: Path) -> Raw:
    with readable(path), zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    return Raw(size, partial(read_npz, path))


def _from_folder(folder: Path, signature: Signature, key: str) -> Iterator[Raw]:
    archives, arrays = sorted(folder.glob("*.npz")), sorted(folder.glob("*.npy"))
    if archives and arrays:
        raise UsageError(f"{folder} holds both .npz and .npy files", expected="one kind",
                         hint="an .npz file is one sample, an .npy file may be all samples of one input")  # fmt: skip
    if archives:
        return map(_npz, archives)
    if arrays:
        return _from_arrays({path.stem: _mapped(path) for path in arrays}, folder, signature, key)
    raise UsageError(f"no .npz or .npy file in {folder}", hint="each .npz file is one sample: an array for every input")


def _mapped(path: Path) -> Array:
    """The array of an ``.npy`` file, its elements left on disk until they are copied."""
    with readable(path, _NPY):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        found.close()
        raise ValueError("an archive under the name of an array")


def _from_arrays(arrays: dict[str, Array], folder: Path, signature: Signature, key: str) -> Iterator[Raw]:
    names = tuple(spec.name for spec in signature.inputs)
    label_key = key_among(arrays, names, key)
    if all(name in arrays for name in names):
        pieces = {spec.name: _pieces(arrays[spec.name], spec, signature) for spec in signature.inputs}
    elif len(names) == 1:
        pieces = {names[0]: [array for name, array in arrays.items() if name != label_key]}
    else:
        missing = next(name for name in names if name not in arrays)
        raise UsageError(f"no .npy file for input '{missing}' in {folder}", got=", ".join(arrays),
                         expected=", ".join(f"{name}.npy" for name in names))  # fmt: skip
    samples = _in_step(pieces, folder)
    if label_key is not None:
        first = pieces[names[0]]
        parts = share(arrays[label_key], [len(piece) if piece.ndim else 1 for piece in first])
        samples = [sample | {label_key: part} for sample, part in zip(samples, parts, strict=True)]
    return (Raw(_size(sample), partial(dict, sample)) for sample in samples)


def _pieces(array: Array, spec: TensorSpec, signature: Signature) -> list[Array]:
    """An input's samples: along an axis before its own, or as many rows each as the model takes, one of a batch."""
    if array.ndim == len(spec.dims) + 1:
        return [array[n, ...] for n in range(len(array))]
    lead = spec.dims[0] if spec.dims else None
    step = 1 if signature.batch_dim else lead
    if array.ndim != len(spec.dims) or not isinstance(step, int) or len(array) % max(step, 1):
        return [array]
    return [array[n : n + step] for n in range(0, len(array), max(step, 1))] or [array]


def _in_step(pieces: Mapping[str, Sequence[Array]], folder: Path) -> list[dict[str, Array]]:
    counts = {name: len(arrays) for name, arrays in pieces.items()}
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"inputs differ in their number of samples in {folder}", got=got, expected="equal numbers")
    return [dict(zip(pieces, arrays, strict=True)) for arrays in zip(*pieces.values(), strict=True)]


def _from_call(module: str, name: str) -> Iterator[Raw]:
    """The callable is the user's code: whatever it raises, at once or while it yields, is theirs to read."""
    try:
        for sample in getattr(importlib.import_module(module), name)():
            yield Raw(_size(sample) if isinstance(sample, Mapping) else 0, partial(_same, sample))
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        expected = "a callable that yields dicts of arrays"
        raise UsageError(f"cannot load data from {module}:{name}", got=got, expected=expected) from error


def _same(sample: Any) -> Any:
    return sample


def _size(sample: Mapping[str, Any]) -> int:
    return sum(getattr(array, "nbytes", 0) for array in sample.values())
