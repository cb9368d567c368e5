"""The program's file has no pickle in it, and one that has is not loaded."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends.program import Names, load_program, save_program
from tailorbird.domain.errors import BackendError

torch = pytest.importorskip("torch")

NAMES = Names(("x",), ("y",))


class Scaled(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.register_buffer("mask", torch.tensor([1.0, 0.0]), persistent=False)

    def forward(self, x: Any) -> Any:
        return (self.layer(x) * self.mask + torch.tensor([1.0, 2.0]),)


def exported() -> Any:
    return torch.export.export(Scaled().eval(), (torch.ones(2, 3),))


def test_it_comes_back_with_its_names(tmp_path: Path) -> None:
    program, x = exported(), torch.randn(2, 3)
    expected = program.module()(x)[0]
    save_program(program, NAMES, tmp_path / "p.pt2")
    back, names = load_program(tmp_path / "p.pt2")
    assert names == NAMES
    torch.testing.assert_close(back.module()(x)[0], expected)


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    save_program(exported(), NAMES, tmp_path / "p.pt2")
    with zipfile.ZipFile(tmp_path / "p.pt2") as archive:
        contents = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert contents["data/sample_inputs/model.pt"] == b""
    assert any(name.startswith("data/constants/tensor_") for name in contents)
    # A pickle of protocol 2 or later begins so, and torch's are inside zip files.
    assert not [name for name, data in contents.items() if data.startswith((b"\x80", b"PK"))]


def test_example_inputs_are_refused(tmp_path: Path) -> None:
    """``torch.export.save`` itself keeps them, and loading them unpickles."""
    torch.export.save(exported(), str(tmp_path / "p.pt2"))
    with pytest.raises(BackendError) as refused:
        load_program(tmp_path / "p.pt2")
    assert "holds a pickle, which runs code when read: got" in refused.value.message
    assert "data/sample_inputs/model.pt, expected plain tensors" in refused.value.message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data/weights/model_weights_config.json", b'{"config": {"w": {"path_name": "weight_0", "use_pickle": true}}}'),
        ("data/constants/model_constants_config.json", b'{"config": {"c": {"use_pickle": true}}}'),
        ("data/constants/custom_obj_0", b"x"),
        ("data/constants/opaque_obj_0", b"x"),
        ("data/weights/model.pt", b"x"),
    ],
)
def test_every_place_of_a_pickle_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    save_program(exported(), NAMES, tmp_path / "p.pt2")
    with zipfile.ZipFile(tmp_path / "p.pt2") as whole, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        root = whole.namelist()[0].partition("/")[0]
        for one in whole.namelist():
            if one != f"{root}/{name}":
                bad.writestr(one, whole.read(one))
        bad.writestr(f"{root}/{name}", content)
    with pytest.raises(BackendError, match="holds a pickle"):
        load_program(tmp_path / "bad.pt2")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    save_program(exported(), NAMES, tmp_path / "p.pt2")
    with zipfile.ZipFile(tmp_path / "p.pt2", "a") as archive:
        name = next(one for one in archive.namelist() if one.endswith("weights_config.json"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b'{"config": {}}')
    with pytest.raises(BackendError, match=r"holds two files of one name: got .*weights_config.json, expected each"):
        load_program(tmp_path / "p.pt2")
