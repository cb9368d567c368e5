"""What the user's data is: bytes of files, arrays of callables, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from tailorbird.builder.cases.identity import DataArgs, digest_files, digest_yielded
from tailorbird.domain.errors import UsageError

CODE = """
import itertools, numpy
def rows(change=0):
    for n in range(3):
        yield {"b": numpy.full((1, 2), n, "f4"), "a": numpy.array([b"x", b"y"], dtype=object)}
def more():
    yield from rows()
    yield {"a": numpy.zeros(1)}
def turned():
    for sample in rows():
        yield dict(reversed(sample.items()))
def wider():
    for sample in rows():
        yield {name: array.astype("f8") if name == "b" else array for name, array in sample.items()}
def endless():
    for n in itertools.count():
        yield {"a": numpy.zeros((1, 4), "f4")}
def odd():
    yield 3
def broken():
    raise RuntimeError("no")
    yield
"""


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "identity_samples.py").write_text(CODE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name: digest_yielded(DataArgs(f"identity_samples:{name}")).digest


def test_what_is_yielded_counts_and_the_order_of_names_does_not(digest) -> None:
    assert digest("rows") == digest("rows") == digest("turned")
    assert len({digest(name) for name in ("rows", "more", "wider", "odd")}) == 4


def test_endless_data_has_an_end(digest) -> None:
    assert digest("endless").startswith("sha256:")


def test_what_the_callable_raises_is_told(digest) -> None:
    with pytest.raises(UsageError, match="cannot load data from identity_samples:broken: got RuntimeError: no"):
        digest("broken")


def test_files_count_by_bytes_and_in_a_directory_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "a.npy", np.arange(3))
    np.save(folder / "b.npy", np.arange(4))
    before = digest_files(folder)
    (folder / "notes.txt").write_text("no data", "utf-8")
    assert digest_files(folder) == before
    np.save(folder / "b.npy", np.arange(5))
    assert digest_files(folder) != before
    np.save(folder / "b.npy", np.arange(4))
    assert digest_files(folder) == before
    (folder / "b.npy").rename(folder / "c.npy")
    assert digest_files(folder) != before
    assert digest_files(folder / "a.npy") != digest_files(folder / "c.npy")
