"""The build's own directory, and what killed builds left."""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailorbird.builder.workdir import PREFIX, workdir


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_it_is_private_and_goes_away(root: Path) -> None:
    with workdir() as path:
        assert path.parent == root
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "deep").mkdir()
    assert not list(root.iterdir())


def test_it_goes_away_when_the_build_fails(root: Path) -> None:
    with pytest.raises(RuntimeError), workdir():
        raise RuntimeError
    assert not list(root.iterdir())


def test_what_a_dead_build_left_is_swept(root: Path, dead: int) -> None:
    left = root / f"{PREFIX}{dead}-abc"
    left.mkdir()
    (left / "lock").touch()
    (root / f"{PREFIX}{dead}-early").mkdir()
    with workdir() as path:
        assert list(root.iterdir()) == [path]


def test_a_live_build_is_left_alone(root: Path) -> None:
    with workdir() as first, workdir() as second:
        assert first.is_dir()
        assert second.is_dir()
    other = root / f"{PREFIX}{os.getppid()}-abc"
    other.mkdir()
    with workdir():
        assert other.is_dir()


def test_a_build_in_another_container_is_left_alone(root: Path, dead: int) -> None:
    left = root / f"{PREFIX}{dead}-abc"
    left.mkdir()
    with (left / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with workdir():
            assert left.is_dir()


@pytest.mark.parametrize("name", ["other-1-abc", f"{PREFIX}x-abc", f"{PREFIX}"])
def test_what_is_not_ours_is_left_alone(root: Path, name: str) -> None:
    (root / name).mkdir()
    with workdir():
        assert (root / name).is_dir()


def test_links_are_not_followed(root: Path, dead: int) -> None:
    (root / "kept").mkdir()
    (root / f"{PREFIX}{dead}-abc").symlink_to(root / "kept")
    with workdir():
        assert (root / "kept").is_dir()
