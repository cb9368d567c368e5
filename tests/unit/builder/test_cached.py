"""Delivery: what a build hands out is a copy of the cache's file."""

import stat
from pathlib import Path

import pytest

from tailorbird.builder.cached import deliver
from tailorbird.domain.errors import BundleError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    path.chmod(0o444)
    return path


def test_writing_over_an_output_alters_nothing_else(bundle: Path, tmp_path: Path) -> None:
    first, second = (deliver(bundle, tmp_path / name) for name in ("a.engine", "b.engine"))
    with first.open("r+b") as file:  # as cp does
        file.write(b"altered")
    assert (bundle.read_bytes(), second.read_bytes()) == (b"engine", b"engine")
    assert stat.S_IMODE(first.stat().st_mode) == 0o644


def test_an_output_that_is_there_is_replaced_and_nothing_is_left_aside(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(b"older")
    assert deliver(bundle, deliver(bundle, tmp_path / "a.engine")).read_bytes() == b"engine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.engine", "model.engine"]


def test_a_place_that_cannot_be_written_is_told_of(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        deliver(bundle, tmp_path / "none" / "a.engine")
    assert caught.value.what == f"cannot write {tmp_path}/none/a.engine"
    assert caught.value.got == "No such file or directory"
    assert caught.value.hint == "nothing was written: free some space or choose another place with -o"
