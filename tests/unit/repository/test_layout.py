"""Names: what can be a model or a version, and that nothing else becomes a path."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.errors import UsageError
from tailorbird.repository import layout

ROOT = Path("/repository")


@pytest.mark.parametrize("name", ["m", "resnet50", "PP-OCRv6_det.v2", "0", "a..b", "x" * 128])
def test_names_that_are_allowed(name: str) -> None:
    assert layout.model_dir(ROOT, name) == ROOT / name


BAD = [
    *["", ".", "..", "../up", "/etc", "a/b", "a\\b", "a\0b", "a\n", "-rf", ".hidden", "_x", "a b", "a:b", "~"],
    *["x" * 129, "x" * 300, "m\u043edel", "ｍodel", "model\u200b", "mode\u0301l", "٣", "\ud800"],
]


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        layout.model_dir(ROOT, name)
    assert caught.value.what == "not a model name"
    assert caught.value.expected == (
        "1 to 128 of ASCII letters, digits, '.', '_' and '-', starting with a letter or digit"
    )
    caught.value.message.encode("ascii")


def test_a_long_name_is_not_repeated() -> None:
    with pytest.raises(UsageError, match="not a model name: got 300 characters"):
        layout.model_name("x" * 300)


@pytest.mark.parametrize("name", ["configs", "warmup", "initial_state"])
def test_names_that_triton_reserves(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        layout.model_name(name)
    assert caught.value.message == (
        f"the model name is reserved by Triton: got {name}, expected none of configs, warmup, initial_state"
    )


@given(st.text(max_size=200))
def test_a_name_is_one_path_part_or_refused(text: str) -> None:
    try:
        folder = layout.model_dir(ROOT, text)
    except UsageError:
        pass
    else:
        assert folder.parent == ROOT
        assert folder.name == text
        assert text.isascii()


@pytest.mark.parametrize("text", ["1", "12", "999999999999999999"])
def test_folders_that_are_versions(text: str) -> None:
    assert layout.version_number(text) == int(text)


@pytest.mark.parametrize("text", ["0", "01", "-1", "+1", "1.0", "1_0", " 1", "1\n", "", "x", "٣", "1" * 19])
def test_folders_that_triton_passes_by(text: str) -> None:
    assert layout.version_number(text) is None


@given(st.text(max_size=30))
def test_a_version_is_its_own_spelling(text: str) -> None:
    number = layout.version_number(text)
    assert number is None or (str(number) == text and number > 0)


@pytest.mark.parametrize("version", [0, -1, 10**18])
def test_numbers_that_are_no_versions(version: int) -> None:
    with pytest.raises(UsageError, match=f"not a version: got {version}, expected a positive whole number"):
        layout.version_dir(ROOT, "m", version)


def test_what_a_folder_holds(tmp_path: Path) -> None:
    for name in ["m/1", "m/10", "m/9", "m/01", "m/configs", "empty", ".tailorbird/1", "configs/1", "é/1"]:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "m" / "3").touch()
    (tmp_path / "file").touch()
    assert layout.versions_in(tmp_path / "m") == (1, 9, 10)
    assert layout.models_in(tmp_path) == ("m",)
