"""ONNX files of strangers: what is accepted, and in which words the rest is refused."""

import hashlib
import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.graph.flops import count_flops
from tailorbird.builder.sources import onnx_file
from tailorbird.builder.sources.graph_check import tensors
from tailorbird.builder.sources.onnx_file import external_files, read_model, signature_of, source_digest, write_model
from tailorbird.domain.errors import ModelError, TailorbirdError
from tests.unit.builder.graphs import externalise, linear, model, point_to, save, value, weight


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    return caught.value


def refused(made: onnx.ModelProto, tmp_path: Path) -> ModelError:
    return refusal(save(made, tmp_path / "m.onnx"))


def test_a_whole_model_is_read_as_it_is(tmp_path: Path) -> None:
    assert read_model(save(linear(), tmp_path / "m.onnx")) == linear()


# --- what is no ONNX file ------------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"0" * 64)
    return buffer.getvalue()


FOREIGN = {
    "empty": (b"", "an empty file"),
    "text": (b"hello, I am a model\n", "text, beginning 'hello, I am a model\\n'"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    "xml": (b'<?xml version="1.0"?><net name="m"></net>', "XML (an OpenVINO model?)"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer, not the file itself"),
    "png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "a PNG image"),
    "zip": (zipped("a.txt"), "a zip archive"),
    "torch": (
        zipped("archive/data.pkl"),
        "a PyTorch checkpoint, which is not opened because it can run code",
    ),
    "pt2": (
        zipped("m/archive_format", "m/models/model.json"),
        "a PyTorch exported program (.pt2), under another name",
    ),
    "pickle": (
        b"\x80\x02}q\x00.",
        "a Python pickle (a PyTorch checkpoint?), which is not opened because it can run code",
    ),
    "safetensors": (b"\x02" + b"\0" * 7 + b"{}" + b"\0" * 8, "a safetensors file: weights without a graph"),
    "tflite": (b"\x1c\0\0\0TFL3" + b"\0" * 40, "a TensorFlow Lite model"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 40, "a gzip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "an HDF5 file (Keras weights?)"),
    "elf": (b"\x7fELF" + b"\0" * 40, "a program or shared library (ELF)"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_named(kind: str, tmp_path: Path) -> None:
    data, got = FOREIGN[kind]
    (tmp_path / "m.onnx").write_bytes(data)
    error = refusal(tmp_path / "m.onnx")
    assert (error.what, error.got, error.expected) == ("the file is not an ONNX model", got, "an ONNX file")


def test_hints_say_how_to_get_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(FOREIGN["torch"][0])
    assert "torch.onnx.export" in str(refusal(tmp_path / "a"))
    (tmp_path / "b").write_bytes(FOREIGN["lfs"][0])
    assert str(refusal(tmp_path / "b")).endswith("Hint: run `git lfs pull`")


def test_noise_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(bytes([0xF3, 0x9C, 0x07]) * 300)
    assert refusal(tmp_path / "m.onnx").what == "the file is not an ONNX model, or is damaged"


def test_a_missing_file(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none.onnx")
    assert error.message == f"there is no model file {tmp_path}/none.onnx\nHint: check the path"
    assert error.exit_code == 2


def test_what_is_no_file(tmp_path: Path) -> None:
    assert f"{tmp_path} is not a model file: got a directory, expected an ONNX file" in str(refusal(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    assert "got a special file" in str(refusal(tmp_path / "pipe"))


def test_a_path_with_a_nul() -> None:
    refusal(Path("a\0b"))


def test_a_file_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", 100)
    path = save(linear(), tmp_path / "m.onnx")
    error = refusal(path)
    assert (error.got, error.expected) == (f"{path.stat().st_size} bytes", "at most 100 bytes")


def test_a_cut_file_says_how_much_is_missing(tmp_path: Path) -> None:
    data = linear().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[:100])
    error = refusal(tmp_path / "m.onnx")
    assert (error.what, error.got) == ("the ONNX file is cut short", "100 bytes")
    assert error.expected is not None
    assert len(data) - 20 < int(error.expected.removeprefix("at least ").removesuffix(" bytes")) <= len(data)


def test_a_cut_at_every_byte_is_refused(tmp_path: Path) -> None:
    data = linear().SerializeToString()
    for end in range(len(data)):
        (tmp_path / "m.onnx").write_bytes(data[:end])
        refusal(tmp_path / "m.onnx")


# --- damage --------------------------------------------------------------------------------------


def rich() -> onnx.ModelProto:
    """A model with about everything that has tensors: sparse weights, subgraphs, constants, a function."""
    then = helper.make_graph([helper.make_node("Add", ["x", "t"], ["z"])], "then", [], [value("z", None)])
    then.initializer.append(weight("t", 4))
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["z2"])], "else", [], [value("z2", None)])
    sparse = helper.make_sparse_tensor(weight("s", 2), weight("i", 2, dtype=np.int64), [8])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=weight("cv", 4)),
        helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True), "f")),
        helper.make_node("If", ["flag"], ["branch"], then_branch=then, else_branch=other),
        helper.make_node("Twice", ["branch"], ["d"], domain="local"),
        helper.make_node("Add", ["d", "c"], ["y"]),
        helper.make_node("Shape", ["s"], ["unused"]),
    ]
    made = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], sparse_initializer=[sparse])
    body = [
        helper.make_node("Constant", [], ["two"], value=weight("k", 1)),
        helper.make_node("Mul", ["a", "two"], ["b"]),
    ]
    made.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, list(made.opset_import)))
    made.opset_import.append(helper.make_opsetid("local", 1))
    return made


def survives(path: Path) -> bool:
    """Whether a damaged file is still a model that can be described; raising anything but ModelError is a failure."""
    try:
        made = read_model(path)
        shapes = {
            spec.name: tuple(3 if isinstance(dim, str) else dim for dim in spec.dims)
            for spec in signature_of(made).inputs
        }
        count_flops(made, shapes)
    except ModelError:
        return False
    return True


def test_bytes_changed_at_random_give_a_model_or_a_model_error(tmp_path: Path) -> None:
    data = rich().SerializeToString()
    assert survives(save(rich(), tmp_path / "m.onnx"))
    chance = random.Random(7)
    refusals = 0
    for _ in range(600):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 8])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / "m.onnx").write_bytes(damaged)
        refusals += not survives(tmp_path / "m.onnx")
    assert 100 < refusals < 600


@settings(max_examples=150)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(data)
    refusal(path)


@settings(max_examples=150)
@given(start=st.integers(0, 600), drop=st.integers(1, 200), insert=st.binary(max_size=20))
def test_pieces_taken_out_or_put_in(
    start: int, drop: int, insert: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = rich().SerializeToString()
    path = tmp_path_factory.getbasetemp() / "piece.onnx"
    path.write_bytes(data[:start] + insert + data[start + drop :])
    survives(path)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    made = linear()
    made.graph.doc_string = made.graph.initializer[0].doc_string = made.graph.input[0].doc_string = "product"
    point_to(made.graph.initializer[0], location="product")
    data = made.SerializeToString()
    for number in range(data.count(b"product")):
        parts = data.split(b"product")
        parts[number : number + 2] = [parts[number] + b"pr\xffduct" + parts[number + 1]]
        (tmp_path / "m.onnx").write_bytes(b"product".join(parts))
        assert refusal(tmp_path / "m.onnx").what == "the model holds a name that is not UTF-8"


def test_fields_this_onnx_does_not_know_are_dropped(tmp_path: Path) -> None:
    unknown = b"\xfa\x3f\x03abc"  # field 1023, three bytes
    (tmp_path / "m.onnx").write_bytes(linear().SerializeToString() + unknown)
    assert read_model(tmp_path / "m.onnx").SerializeToString() == linear().SerializeToString()


# --- tensors -------------------------------------------------------------------------------------


def test_a_tensor_with_too_few_bytes(tmp_path: Path) -> None:
    made = linear()
    made.graph.initializer[0].raw_data = b"\0" * 40
    error = refused(made, tmp_path)
    assert error.what == "tensor 'w' has the wrong amount of data"
    assert (error.got, error.expected) == ("40 bytes", "48 for FLOAT[4, 3]")


def test_a_tensor_without_data(tmp_path: Path) -> None:
    made = linear()
    made.graph.initializer[0].ClearField("raw_data")
    assert refused(made, tmp_path).got == "0 in float_data"


def test_a_huge_tensor_takes_no_memory(tmp_path: Path) -> None:
    made = linear()
    made.graph.initializer[0].dims[:] = [2**62, 2**62]
    assert "the wrong amount of data" in refused(made, tmp_path).what


def test_a_negative_dim(tmp_path: Path) -> None:
    made = linear()
    made.graph.initializer[0].dims[:] = [-4, -3]
    assert refused(made, tmp_path).message == "tensor 'w' has a negative dim: got [-4, -3], expected dims >= 0"


def test_an_unknown_element_type(tmp_path: Path) -> None:
    made = linear()
    made.graph.initializer[0].data_type = 99
    error = refused(made, tmp_path)
    assert error.message == "tensor 'w' has an element type that cannot be read: got type number 99"


def test_segments_are_refused(tmp_path: Path) -> None:
    made = linear()
    made.graph.initializer[0].segment.begin = 0
    assert refused(made, tmp_path).what == "tensor 'w' is split into segments"


@pytest.mark.parametrize("code", [code for code in TensorProto.DataType.values() if 0 < code < 27])
def test_every_element_type_is_measured_as_onnx_writes_it(code: int, tmp_path: Path) -> None:
    made = linear()
    values = [b"a", b"bc", b""] if code == TensorProto.STRING else [1, 0, 1]
    made.graph.initializer.append(helper.make_tensor("extra", code, [3], values))
    read_model(save(made, tmp_path / "typed.onnx"))
    if code != TensorProto.STRING:
        array = numpy_helper.to_array(made.graph.initializer[2])
        made.graph.initializer[2].CopyFrom(numpy_helper.from_array(array, "extra"))
        read_model(save(made, tmp_path / "raw.onnx"))


def test_every_tensor_is_found() -> None:
    names = {tensor.name for tensor in tensors(rich())}
    assert names == {"cv", "f", "t", "s", "i", "k"}


# --- external data -------------------------------------------------------------------------------


def with_external(tmp_path: Path, location: str = "w.bin", **entries: str) -> Path:
    made = linear()
    externalise(made.graph.initializer[0], tmp_path, location, **entries)
    return save(made, tmp_path / "m.onnx")


def pointing_at(tmp_path: Path, location: str, **entries: str) -> ModelError:
    made = linear()
    point_to(made.graph.initializer[0], location=location, **entries)
    return refused(made, tmp_path)


@pytest.mark.parametrize("location", ["w.bin", "deep/er/w.bin", "name with space.bin"])
def test_external_data_is_inlined(location: str, tmp_path: Path) -> None:
    assert read_model(with_external(tmp_path, location)) == linear()


def test_dots_and_doubled_slashes_mean_nothing(tmp_path: Path) -> None:
    with_external(tmp_path, "deep/w.bin")
    made = linear()
    point_to(made.graph.initializer[0], location="./deep//./w.bin")
    assert read_model(save(made, tmp_path / "m.onnx")) == linear()
    assert external_files(tmp_path / "m.onnx") == ("deep/w.bin",)


def test_offset_and_length(tmp_path: Path) -> None:
    made = linear()
    data = made.graph.initializer[0].raw_data
    (tmp_path / "w.bin").write_bytes(b"\xff" * 64 + data + b"\xff" * 7)
    point_to(made.graph.initializer[0], location="w.bin", offset="64", length="48")
    assert read_model(save(made, tmp_path / "m.onnx")) == linear()


@pytest.mark.parametrize(
    "location",
    ["../w.bin", "deep/../../w.bin", "..", "/etc/passwd", "//etc/passwd", "C:/w.bin", "C:w.bin", "deep/../w.bin"],
)
def test_a_location_outside(location: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 48)
    error = pointing_at(tmp_path, location)
    assert error.what == "tensor 'w' names external data outside the model's directory"
    assert error.got == repr(location)
    assert error.expected == "a relative path below the model's directory, with '/' between its parts"


@pytest.mark.parametrize("location", ["", ".", "./", "w\0.bin", "..\\w.bin", "deep\\w.bin", "w\n.bin", "w" * 2000])
def test_a_bad_location(location: str, tmp_path: Path) -> None:
    assert pointing_at(tmp_path, location).what == "tensor 'w' names external data by a bad path"


def test_a_missing_data_file(tmp_path: Path) -> None:
    error = pointing_at(tmp_path, "w.bin")
    assert error.message == (
        f"tensor 'w' names 'w.bin', which is missing: expected a file beneath {tmp_path}\n"
        "Hint: copy it beside the model"
    )


def test_a_symbolic_link(tmp_path: Path) -> None:
    path = with_external(tmp_path)
    (tmp_path / "w.bin").rename(tmp_path / "real.bin")
    (tmp_path / "w.bin").symlink_to("real.bin")
    error = refusal(path)
    assert error.what == "tensor 'w' names 'w.bin', which leads through a symbolic link"
    assert (error.got, error.expected) == ("link 'w.bin'", "a regular file")
    assert (
        error.hint == "copy the real file beside the model: a link could lead out of its directory, so none is followed"
    )


def test_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "w.bin").symlink_to("nowhere")
    assert "leads through a symbolic link" in pointing_at(tmp_path, "w.bin").what


def test_a_linked_folder(tmp_path: Path) -> None:
    path = with_external(tmp_path, "deep/w.bin")
    (tmp_path / "deep").rename(tmp_path / "real")
    (tmp_path / "deep").symlink_to("real")
    assert refusal(path).what == "tensor 'w' names 'deep/w.bin', which leads through a symbolic link"


def test_a_hard_link(tmp_path: Path) -> None:
    path = with_external(tmp_path)
    os.link(tmp_path / "w.bin", tmp_path / "second.bin")
    error = refusal(path)
    assert error.what == "tensor 'w' names 'w.bin', a file with more than one name"
    assert (error.got, error.expected) == ("2 hard links", "1")


def test_a_folder_a_pipe_and_a_device_are_no_data_files(tmp_path: Path) -> None:
    (tmp_path / "w.bin").mkdir()
    assert pointing_at(tmp_path, "w.bin").what == "tensor 'w' names 'w.bin', which is not a regular file"
    os.mkfifo(tmp_path / "pipe")
    assert pointing_at(tmp_path, "pipe").what == "tensor 'w' names 'pipe', which is not a regular file"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"")
    error = pointing_at(tmp_path, "w/w.bin")
    assert error.message == "tensor 'w' names 'w/w.bin', which cannot be opened: got Not a directory"


def test_a_data_file_cut_short(tmp_path: Path) -> None:
    path = with_external(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"\0" * 47)
    error = refusal(path)
    assert error.what == "tensor 'w' lies outside its data file 'w.bin'"
    assert error.got == "bytes 0 to 48 of 47"


def test_a_wrong_length(tmp_path: Path) -> None:
    error = refusal(with_external(tmp_path, length="44"))
    assert error.what == "tensor 'w' has external data of the wrong length"
    assert (error.got, error.expected) == ("44 bytes", "48 bytes for its type and dims")


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("text", ["-1", "+1", " 1", "1_0", "0x10", "1e3", "²", "", "9" * 30])
def test_a_bad_number(key: str, text: str, tmp_path: Path) -> None:
    error = refusal(with_external(tmp_path, **{key: text}))
    assert error.what == f"tensor 'w' has a bad external data {key}"
    assert error.expected == "a count of bytes"


def test_an_offset_past_the_end(tmp_path: Path) -> None:
    assert refusal(with_external(tmp_path, offset="9" * 18)).what.endswith("lies outside its data file 'w.bin'")


def test_an_unknown_key(tmp_path: Path) -> None:
    error = refusal(with_external(tmp_path, basepath="/etc"))
    assert error.what == "tensor 'w' has an unknown external data key 'basepath'"
    assert error.expected == "location, offset, length, checksum"


def test_a_key_given_twice(tmp_path: Path) -> None:
    made = linear()
    externalise(made.graph.initializer[0], tmp_path, "w.bin")
    made.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    assert refused(made, tmp_path).what == "tensor 'w' gives the external data key 'location' twice"


def test_data_inside_and_outside(tmp_path: Path) -> None:
    made = linear()
    data = externalise(made.graph.initializer[0], tmp_path, "w.bin")
    made.graph.initializer[0].raw_data = data
    assert refused(made, tmp_path).what == "tensor 'w' holds its data twice"


def test_external_entries_count_even_where_the_tensor_says_it_is_inside(tmp_path: Path) -> None:
    made = linear()
    point_to(made.graph.initializer[0], location="../w.bin")
    made.graph.initializer[0].data_location = TensorProto.DEFAULT
    assert "outside the model's directory" in refused(made, tmp_path).what


def test_external_strings_are_refused(tmp_path: Path) -> None:
    made = linear()
    externalise(made.graph.initializer[0], tmp_path, "w.bin")
    made.graph.initializer[0].data_type = TensorProto.STRING
    assert refused(made, tmp_path).got == "STRING"


def test_a_checksum_is_verified(tmp_path: Path) -> None:
    right = hashlib.sha1(linear().graph.initializer[0].raw_data).hexdigest()
    assert read_model(with_external(tmp_path, checksum=right)) == linear()
    error = refusal(with_external(tmp_path, checksum="0" * 40))
    assert error.what == "tensor 'w' names 'w.bin', whose checksum differs"
    assert (error.got, error.expected) == (right, "0" * 40)


def test_the_limit_holds_for_what_tensors_take_together(tmp_path: Path) -> None:
    made = linear()
    externalise(made.graph.initializer[0], tmp_path, "w.bin")
    for index in range(1000):
        made.graph.initializer.add(name=f"w{index}").CopyFrom(made.graph.initializer[0])
    path = save(made, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        read_model(path, max_bytes=path.stat().st_size + 1000)
    assert caught.value.message == (
        "the model's external data is too large: got 48048 bytes, expected at most 1000 bytes"
    )


def place_in_sparse_values(made: onnx.ModelProto) -> Any:
    return made.graph.sparse_initializer[0].values


def place_in_sparse_indices(made: onnx.ModelProto) -> Any:
    return made.graph.sparse_initializer[0].indices


def place_in_constant(made: onnx.ModelProto) -> Any:
    return made.graph.node[0].attribute[0].t


def place_in_subgraph(made: onnx.ModelProto) -> Any:
    branches = {attribute.name: attribute.g for attribute in made.graph.node[2].attribute}
    return branches["then_branch"].initializer[0]


def place_in_function(made: onnx.ModelProto) -> Any:
    return made.functions[0].node[0].attribute[0].t


def place_in_training_info(made: onnx.ModelProto) -> Any:
    made.training_info.add().algorithm.initializer.add().CopyFrom(weight("train", 4))
    return made.training_info[0].algorithm.initializer[0]


def place_in_sparse_attribute(made: onnx.ModelProto) -> Any:
    sparse = helper.make_sparse_tensor(weight("sa", 2), weight("si", 2, dtype=np.int64), [8])
    made.graph.node.append(helper.make_node("Constant", [], ["sc"], sparse_value=sparse))
    return made.graph.node[-1].attribute[0].sparse_tensor.values


def place_in_tensor_list(made: onnx.ModelProto) -> Any:
    made.graph.node[0].attribute.append(helper.make_attribute("many", [weight("listed", 4)]))
    return made.graph.node[0].attribute[-1].tensors[0]


PLACES = [
    place_in_sparse_values,
    place_in_sparse_indices,
    place_in_constant,
    place_in_subgraph,
    place_in_function,
    place_in_training_info,
    place_in_sparse_attribute,
    place_in_tensor_list,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_no_tensor_escapes_the_rules(place: Any, tmp_path: Path) -> None:
    made = rich()
    tensor = place(made)
    data = externalise(tensor, tmp_path, "t.bin")
    read = read_model(save(made, tmp_path / "m.onnx"))
    found = next(inlined for inlined in tensors(read) if inlined.name == tensor.name)
    assert found.raw_data == data
    assert not found.external_data
    point_to(tensor, location="../t.bin")
    error = refused(made, tmp_path)
    assert error.what == f"tensor '{tensor.name}' names external data outside the model's directory"


# --- versions, operators, names ------------------------------------------------------------------


def test_a_model_without_outputs(tmp_path: Path) -> None:
    made = linear()
    del made.graph.output[:]
    assert refused(made, tmp_path).what == "the model's graph has no output"


def test_a_model_without_operator_sets(tmp_path: Path) -> None:
    made = linear()
    del made.opset_import[:]
    assert refused(made, tmp_path).what == "the model imports no operator set"


@pytest.mark.parametrize(("version", "hint"), [(2, "export the model anew"), (999, "pip install --upgrade onnx")])
def test_an_unsupported_ir_version(version: int, hint: str, tmp_path: Path) -> None:
    made = linear()
    made.ir_version = version
    error = refused(made, tmp_path)
    assert error.what == "the model's IR version is not supported"
    assert (error.got, error.expected, error.hint) == (str(version), f"3 to {onnx.IR_VERSION}", hint)


@pytest.mark.parametrize("version", [0, -1, 999, 2**40])
def test_an_unsupported_opset(version: int, tmp_path: Path) -> None:
    made = linear()
    made.opset_import[0].version = version
    error = refused(made, tmp_path)
    assert error.what == "the model's opset is not supported"
    assert error.expected == f"1 to {onnx.defs.onnx_opset_version()}"


def with_node(op_type: str, opset: int = 17, **facts: Any) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x"], ["y"], name="n1", **facts)
    return model([node], [value("x", [1])], [value("y", [1])], opset=opset)


def test_an_unknown_operator_names_the_nearest(tmp_path: Path) -> None:
    error = refused(with_node("Sofmax"), tmp_path)
    assert error.message == (
        "unknown operator 'Sofmax' at node 'n1' (Sofmax): expected an operator of ai.onnx 17\n"
        "Hint: did you mean 'Softmax'?"
    )


def test_an_operator_of_a_later_opset(tmp_path: Path) -> None:
    error = refused(with_node("Gelu"), tmp_path)
    assert error.hint == "'Gelu' entered ai.onnx at opset 20: export at that opset"


def test_an_operator_of_an_unknown_domain(tmp_path: Path) -> None:
    error = refused(with_node("Mine", domain="my.ops"), tmp_path)
    assert error.what == "unknown operator 'Mine' at node 'n1' (Mine)"
    assert error.got == "domain 'my.ops'"
    assert error.expected is not None
    assert "com.microsoft" in error.expected


def test_an_operator_set_that_is_not_imported(tmp_path: Path) -> None:
    error = refused(with_node("Normalizer", domain="ai.onnx.ml"), tmp_path)
    assert error.what == ("node 'n1' (Normalizer) is of operator set 'ai.onnx.ml', which the model does not import")


def test_an_operator_inside_a_subgraph_and_a_function(tmp_path: Path) -> None:
    made = rich()
    place_in_subgraph(made)
    made.graph.node[2].attribute[1].g.node[0].op_type = "Nope"
    assert "unknown operator 'Nope'" in refused(made, tmp_path).what
    made = rich()
    made.functions[0].node[1].op_type = "Nope"
    assert "unknown operator 'Nope'" in refused(made, tmp_path).what


@pytest.mark.parametrize(
    "made",
    [
        with_node("FusedConv", domain="com.microsoft"),
        with_node("Relu", domain="ai.onnx"),
        rich(),
    ],
    ids=["a runtime's domain", "the default domain by its name", "a function of the model"],
)
def test_known_operators_pass(made: onnx.ModelProto, tmp_path: Path) -> None:
    read_model(save(made, tmp_path / "m.onnx"))


def test_what_onnx_runtimes_optimiser_writes_passes(tmp_path: Path) -> None:
    node = helper.make_node("LayerNormalization", ["x", "g", "b"], ["y"])
    made = model([node], [value("x", [1, 4])], [value("y", [1, 4])], [weight("g", 4), weight("b", 4)], opset=12)
    read_model(save(made, tmp_path / "m.onnx"))


def test_the_wrong_number_of_inputs_and_outputs(tmp_path: Path) -> None:
    made = linear()
    made.graph.node[0].input.pop()
    error = refused(made, tmp_path)
    assert error.message == "node 'product' (MatMul) has the wrong number of inputs: got 1, expected 2"
    made = linear()
    made.graph.node[2].output.append("more")
    assert refused(made, tmp_path).what == "node 'relu' (Relu) has the wrong number of outputs"


def test_a_missing_attribute_and_one_of_the_wrong_type(tmp_path: Path) -> None:
    error = refused(with_node("Concat"), tmp_path)
    assert error.what == "node 'n1' (Concat) lacks the attribute 'axis'"
    error = refused(with_node("Concat", axis="first"), tmp_path)
    assert error.what == "attribute 'axis' of node 'n1' (Concat) has the wrong type"
    assert error.expected == "INT"


def test_a_value_that_nothing_produces(tmp_path: Path) -> None:
    made = linear()
    made.graph.node[2].input[0] = "sw"
    error = refused(made, tmp_path)
    assert error.what == "node 'relu' (Relu) reads 'sw', which nothing produces"
    made = linear()
    made.graph.output[0].name = "z"
    assert refused(made, tmp_path).what == "nothing produces the output 'z'"


def test_what_normalise_repairs_is_let_through(tmp_path: Path) -> None:
    made = linear()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.node.append(helper.make_node("Neg", ["x"], ["s"]))
    read_model(save(made, tmp_path / "m.onnx"))


# --- writing -------------------------------------------------------------------------------------


def big() -> onnx.ModelProto:
    made = linear(width=100, out=50)
    made.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [1000], [1.5] * 1000))
    return made


def test_a_small_model_is_one_file(tmp_path: Path) -> None:
    write_model(big(), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert read_model(tmp_path / "m.onnx") == big()


def test_large_weights_go_into_one_file_beside_it(tmp_path: Path) -> None:
    made = big()
    write_model(made, tmp_path / "m.onnx", inline_bytes=1000)
    assert made == big()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert external_files(tmp_path / "m.onnx") == ("m.onnx.data",)
    read = read_model(tmp_path / "m.onnx")
    for tensor, original in zip(read.graph.initializer, made.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(original))
    assert list(read.graph.node) == list(made.graph.node)


def test_what_is_written_is_what_onnx_reads(tmp_path: Path) -> None:
    write_model(big(), tmp_path / "m.onnx", inline_bytes=1000)
    onnx.checker.check_model(str(tmp_path / "m.onnx"))
    loaded = onnx.load(tmp_path / "m.onnx")
    assert loaded.graph.initializer[0].raw_data == big().graph.initializer[0].raw_data


def test_a_stale_data_file_is_removed(tmp_path: Path) -> None:
    write_model(big(), tmp_path / "m.onnx", inline_bytes=1000)
    write_model(big(), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_external_data_cannot_be_written(tmp_path: Path) -> None:
    made = linear()
    point_to(made.graph.initializer[0], location="w.bin")
    with pytest.raises(ModelError, match="the model still names external data: expected weights inside"):
        write_model(made, tmp_path / "m.onnx")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(linear(), tmp_path / "m.onnx")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for inline_bytes in (10, 10**9):
        with pytest.raises(TailorbirdError) as caught:
            write_model(big(), tmp_path / "m.onnx", inline_bytes)
        assert caught.value.message == f"cannot write {tmp_path}/m.onnx: got No space left on device"
        assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert read_model(tmp_path / "m.onnx") == linear()


# --- digests -------------------------------------------------------------------------------------


def test_the_digest_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "m.onnx")
    assert source_digest(path) == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_the_digest_covers_external_data_and_not_the_models_name(tmp_path: Path) -> None:
    path = with_external(tmp_path)
    first = source_digest(path)
    assert first.startswith("sha256-files:")
    assert source_digest(path.rename(tmp_path / "other.onnx")) == first
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[5] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert source_digest(tmp_path / "other.onnx") != first


def test_the_digest_reads_nothing_outside(tmp_path: Path) -> None:
    made = linear()
    point_to(made.graph.initializer[0], location="../w.bin")
    with pytest.raises(ModelError, match="outside the model's directory"):
        source_digest(save(made, tmp_path / "m.onnx"))


# --- signatures ----------------------------------------------------------------------------------


def signature_text(made: onnx.ModelProto) -> str:
    signature = signature_of(made)
    return " ".join(map(str, signature.inputs)) + " -> " + " ".join(map(str, signature.outputs))


def test_a_signature_keeps_sizes_and_names() -> None:
    assert signature_text(linear("batch")) == "x FP32[batch,4] -> y FP32[batch,3]"


@pytest.mark.parametrize("dim", [None, 0, -1, "?", "-1", ""])
def test_a_dim_without_a_name_gets_one(dim: int | str | None) -> None:
    assert signature_text(linear(dim)) == "x FP32[x_0,4] -> y FP32[y_0,3]"


def test_a_given_name_is_not_given_again() -> None:
    made = model([helper.make_node("Identity", ["x"], ["y"])], [value("x", [None, "x_0"])], [value("y", ["x_1", None])])
    assert signature_text(made) == "x FP32[x_0_,x_0] -> y FP32[x_1,y_1]"


def test_initializers_are_no_inputs() -> None:
    made = linear()
    made.graph.input.append(value("w", [4, 3]))
    assert [spec.name for spec in signature_of(made).inputs] == ["x"]


def test_a_scalar_has_no_dims() -> None:
    made = model([helper.make_node("Identity", ["x"], ["y"])], [value("x", [])], [value("y", [])])
    assert signature_text(made) == "x FP32[] -> y FP32[]"


def test_an_output_without_shape_is_inferred() -> None:
    made = linear("batch")
    made.graph.output[0].type.tensor_type.ClearField("shape")
    assert signature_text(made) == "x FP32[batch,4] -> y FP32[batch,3]"
    made.graph.output[0].ClearField("type")
    assert signature_text(made) == "x FP32[batch,4] -> y FP32[batch,3]"


def test_an_output_whose_rank_cannot_be_known() -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    inputs = [value("x", [4]), value("shape", ["k"], TensorProto.INT64)]
    with pytest.raises(ModelError) as caught:
        signature_of(model([node], inputs, [value("y", None)]))
    assert caught.value.what == "the rank of the output 'y' is not known"
    assert caught.value.hint == "export the model with a shape for 'y'; single dims may be dynamic"


def test_an_input_without_rank() -> None:
    made = model([helper.make_node("Identity", ["x"], ["y"])], [value("x", None)], [value("y", [1])])
    with pytest.raises(ModelError, match="the rank of the input 'x' is not known: expected dims of every input"):
        signature_of(made)


@pytest.mark.parametrize("kind", ["sequence", "optional", "map", "sparse tensor"])
def test_only_tensors_go_in(kind: str) -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    types = {
        "sequence": helper.make_sequence_type_proto(tensor),
        "optional": helper.make_optional_type_proto(tensor),
        "map": helper.make_map_type_proto(TensorProto.INT64, tensor),
        "sparse tensor": helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [1]),
    }
    made = linear()
    made.graph.input.append(helper.make_value_info("odd", types[kind]))
    with pytest.raises(ModelError) as caught:
        signature_of(made)
    assert caught.value.what == "the model's input 'odd' is not a tensor"
    assert caught.value.got == kind


def test_an_element_type_no_runtime_takes() -> None:
    made = linear()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.COMPLEX64
    with pytest.raises(ModelError, match="unsupported ONNX element type: got type number 14"):
        signature_of(made)


def test_two_inputs_of_one_name() -> None:
    made = linear()
    made.graph.input.append(made.graph.input[0])
    with pytest.raises(ModelError, match="the model has two inputs named 'x'"):
        signature_of(made)
