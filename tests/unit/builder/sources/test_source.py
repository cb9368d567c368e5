"""Sources: told apart without running any of them."""

from pathlib import Path

import pytest

from tailorbird.builder.sources.source import Source, program_digest, resolve
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import ModelError, UsageError


def test_a_file_is_named_by_its_stem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "My net (v2).onnx").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    expected = Source(str(tmp_path / "My net (v2).onnx"), is_program=False, name="My-net-v2")
    assert resolve("My net (v2).onnx") == expected


@pytest.mark.parametrize(("stem", "name"), [("...", "model"), ("名", "model"), ("a" * 200, "a" * 100), ("-x-", "x")])
def test_any_file_name_gives_a_model_name(tmp_path: Path, stem: str, name: str) -> None:
    (tmp_path / f"{stem}.onnx").write_bytes(b"x")
    assert resolve(str(tmp_path / f"{stem}.onnx")).name == name


def test_programs(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"x")
    assert resolve(str(tmp_path / "m.pt2")).is_program
    assert resolve("pkg.nets:make_net") == Source("pkg.nets:make_net", is_program=True, name="make_net")


def test_the_digest_of_a_program_is_that_of_its_file_or_name(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"x")
    assert program_digest(resolve(str(tmp_path / "m.pt2"))) == digest_bytes(b"x")
    assert program_digest(resolve("a:b")) == digest_bytes(b"a:b")


@pytest.mark.parametrize("text", ["lost.onnx", "a:b:c", "a b:c", "1a:b", ":b", "a:", ""])
def test_what_is_neither_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if text == "":
        with pytest.raises(ModelError, match="the model is a directory"):
            resolve(text)
        return
    with pytest.raises(UsageError) as caught:
        resolve(text)
    assert str(caught.value) == f"no such model: got {text}, expected an ONNX file, a .pt2 file, or module:callable"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(str(tmp_path))
    assert str(caught.value) == (
        f"the model is a directory: got {tmp_path}, expected a file\nHint: name the .onnx file inside it"
    )


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl"])
def test_files_that_hold_pickles_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        resolve(str(path))
    assert str(caught.value).startswith(f"{suffix} files hold pickles, which run code when read: got {path}")
