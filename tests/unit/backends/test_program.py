"""The program's file has no pickle in it, and one that has is not loaded."""

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends import graphtext
from tailorbird.backends.program import load_program, save_program
from tailorbird.domain.errors import BackendError
from tests.unit.backends.archives import NAMES, Scaled, exported, rewritten

torch = pytest.importorskip("torch")


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


@pytest.mark.parametrize(
    "name",
    [
        "p/data/aotinductor/model/model.so",  # torch would load the library
        "version",  # and from here on an older form of archive, which is a pickle
        "serialized_state_dict.pt",
        "p/extra/other.json",
    ],
)
def test_what_no_program_holds_is_refused(name: str, tmp_path: Path) -> None:
    save_program(exported(), NAMES, tmp_path / "p.pt2")
    rewritten(tmp_path / "p.pt2", lambda _: None, **{name: b"x"})
    with pytest.raises(BackendError) as refused:
        load_program(tmp_path / "p.pt2")
    assert refused.value.message == (
        f"the exported program holds what no exported program does: got {name}, expected a graph and tensors\n"
        "Hint: write it with torch.export.save"
    )


def test_a_size_is_no_code(tmp_path: Path) -> None:
    """``torch`` gives the text of symbolic sizes to SymPy, which evaluates it."""
    rows = torch.export.Dim.AUTO
    program = torch.export.export(Scaled().eval(), (torch.ones(2, 3),), dynamic_shapes={"x": {0: rows}})
    save_program(program, NAMES, tmp_path / "p.pt2")
    back, _ = load_program(tmp_path / "p.pt2")
    x = torch.randn(5, 3)
    torch.testing.assert_close(back.module()(x), program.module()(x))
    ran = tmp_path / "ran"

    def edit(record: dict[str, Any]) -> None:
        values = record["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0]["as_expr"]["expr_str"] = f"__import__('pathlib').Path({str(ran)!r}).touch()"

    rewritten(tmp_path / "p.pt2", edit)
    with pytest.raises(BackendError, match=r"holds a size that is none: got \"__import__\('pathlib'\)"):
        load_program(tmp_path / "p.pt2")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("Symbol('s95', positive=True, integer=True)", True),
        ("Mul(Integer(2), Pow(Symbol('u0', integer=True), Integer(-1)))", True),
        ("FloorDiv(Add(Symbol('s0'), Integer(-3)), Integer(2))", True),
        ("2*s0 + (s1 - 1)//2", True),
        ("Max(1, s77)", True),
        ("Dummy('_d0', dummy_index=3, real=True)", True),
        ("eval(chr(49))", False),
        ("S('exec(1)')", False),
        ("Symbol.mro()", False),
        ("x", False),
        ("(lambda: 1)()", False),
        ("[1]", False),
    ],
)
def test_sizes_as_they_are_written(text: str, good: bool) -> None:
    assert bool(graphtext._SIZE.fullmatch(text)) is good
    assert not graphtext._SIZE.fullmatch("1" * 5000 + "A" * 5000 + "!")  # and that at once


def test_containers_whose_module_would_be_imported_are_refused(tmp_path: Path) -> None:
    save_program(exported(), NAMES, tmp_path / "p.pt2")

    def edit(record: dict[str, Any]) -> None:
        for call in record["graph_module"]["module_call_graph"]:
            if call["signature"]:
                call["signature"]["in_spec"] = json.dumps([1, {"type": "collections.defaultdict", "context": "{}",
                                                               "children_spec": []}])  # fmt: skip

    rewritten(tmp_path / "p.pt2", edit)
    with pytest.raises(BackendError, match=r"takes or gives containers of its own: got collections\.defaultdict"):
        load_program(tmp_path / "p.pt2")


def test_nothing_is_told_of_where_it_was_exported(tmp_path: Path) -> None:
    save_program(exported(), NAMES, tmp_path / "p.pt2")
    with zipfile.ZipFile(tmp_path / "p.pt2") as archive:
        text = archive.read("p/models/model.json").decode()
    assert "Scaled" not in text
    assert Path(__file__).name not in text


def test_another_torchs_program_is_refused_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def newer(record: dict[str, Any]) -> None:
        record["schema_version"]["major"] += 1
        record["torch_version"] = "9.9.0"

    save_program(exported(), NAMES, tmp_path / "p.pt2")
    rewritten(tmp_path / "p.pt2", newer)
    with pytest.raises(BackendError) as refused:
        load_program(tmp_path / "p.pt2")
    error = refused.value
    assert error.what == "this torch cannot read the exported program"
    assert error.got is not None
    assert error.got.startswith(f"torch {torch.__version__}: SerializeError: Serialized schema version")
    assert error.expected == "torch 9.9.0, which wrote it"
    assert error.hint == "install that release here, or export the program with this one"
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]  # its trace is in the error


def test_what_this_torch_wrote_and_cannot_read_is_broken(tmp_path: Path) -> None:
    save_program(exported(), NAMES, tmp_path / "p.pt2")
    rewritten(tmp_path / "p.pt2", lambda record: record["graph_module"]["graph"]["nodes"].clear())
    with pytest.raises(BackendError, match="the exported program cannot be read: got "):
        load_program(tmp_path / "p.pt2")


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.pt2").write_bytes(b"no zip")
    with pytest.raises(BackendError, match="the file is no exported program: got File is not a zip file"):
        load_program(tmp_path / "p.pt2")


def test_guards_are_neither_written_nor_kept(tmp_path: Path) -> None:
    """They are Python, which ``program.module()`` runs."""
    ran = tmp_path / "ran"
    save_program(exported(), NAMES, tmp_path / "p.pt2")
    code = f"__import__('pathlib').Path({str(ran)!r}).touch() is None"
    rewritten(tmp_path / "p.pt2", lambda record: record["guards_code"].append(code))
    program, _ = load_program(tmp_path / "p.pt2")
    program.module()(torch.ones(2, 3))
    assert not ran.exists()
