"""ONNX files of strangers: read with everything checked and inlined, written back whole, digested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import onnx
from google.protobuf.message import DecodeError, EncodeError

from tailorbird.builder.sources.external_data import DataDirectory, ExternalRange, external_range, joint_digest
from tailorbird.builder.sources.file_kind import not_onnx
from tailorbird.builder.sources.graph_check import byte_count, check_model, check_tensor, element_bits, tensors
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import ModelError, TailorbirdError
from tailorbird.domain.files import replacing
from tailorbird.domain.signature import Dim, Signature, TensorSpec

MAX_FILE_BYTES = 2**31 - 1
"""Protocol buffers hold no message over 2 GiB."""

MAX_MODEL_BYTES = 64 << 30
"""Most bytes a model may hold once its external data is inlined."""

INLINE_BYTES = 3 << 29
"""Weights up to here (1.5 GiB) are written inside the ONNX file; more go into a data file beside it."""

_ALIGNMENT = 4096
"""Each tensor starts on a page of the data file, so that runtimes can map it."""

_SMALL = 1024
"""Tensors up to here (bytes) stay inside: shapes, scales and axes, which shape inference needs."""

_NOTES = frozenset({"doc_string", "metadata_props"})

_NO_NAME = frozenset({"", "?", "-1", "None"})
"""What exporters write for a dim they do not know; taken as a name it would tie unrelated dims together."""


def read_model(path: Path, max_bytes: int = MAX_MODEL_BYTES) -> onnx.ModelProto:
    """Read an ONNX file, check it, and inline its external data.

    Args:
        path: the file; external data is looked for beneath its directory only.
        max_bytes: most bytes of the file and all its external tensors together, checked before taking memory.

    Returns:
        A model whose every tensor holds its data inside, as long as its type and dims say; fields that
        this ONNX version does not know are dropped.

    Raises:
        ModelError: not a readable file, not ONNX, cut short, too large, unsafe or wrong external data,
            unknown operators, or values that nothing produces.
    """
    model, size = _parsed(path)
    _inline(model, path, max_bytes - size)
    check_model(model)
    return model


def write_model(model: onnx.ModelProto, path: Path, inline_bytes: int = INLINE_BYTES) -> None:
    """Write a model whose weights are all inside.

    Up to ``inline_bytes`` of weights the result is one file, and a data file left by an earlier write is
    removed. Above, the initializers go to one file beside it, named as ``path`` with ``.data`` added. Each file
    is written under a temporary name, synced and renamed; the model comes last, so a new model is whole once it
    is there. Replacing a model that has a data file is two renames: use a fresh directory where that matters.

    Raises:
        ModelError: the model is too large even without its weights, or names external data of its own.
        TailorbirdError: the disk is full or cannot be written.
    """
    if any(tensor.external_data for tensor in tensors(model)):
        raise ModelError("the model still names external data", expected="weights inside", hint="use read_model")
    data = path.with_name(path.name + ".data")
    try:
        if _weight_bytes(model) > inline_bytes:
            _write_with_data(model, path, data)
        else:
            _write_bytes(path, _serialised(model))
            data.unlink(missing_ok=True)
    except OSError as error:
        raise TailorbirdError(f"cannot write {path}", got=error.strerror or error) from error


def source_digest(path: Path) -> str:
    """What a model file is: the digest of its bytes and of every external data file it names.

    As :func:`tailorbird.builder.sources.external_data.joint_digest` describes it; the model's own name does not enter.

    Raises:
        ModelError: as :func:`read_model` for the file itself and the safety of its external data.
    """
    data = _file_bytes(path)
    places = _places(_parse(data))
    if not places:
        return digest_bytes(data)
    with DataDirectory(path.parent) as folder:
        external = {location: folder.digest(place) for location, place in places.items()}
    return joint_digest(digest_bytes(data), external)


def external_files(path: Path) -> tuple[str, ...]:
    """Locations of a model's data files, relative to its directory, sorted; raises as :func:`source_digest`."""
    return tuple(sorted(_places(_parse(_file_bytes(path)))))


def without_notes(message: Any) -> None:
    """Take doc strings and metadata out of a model, in place: exporters write paths and stack traces into them."""
    for name in _NOTES.intersection(message.DESCRIPTOR.fields_by_name.keys()):
        message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "extend") else (value,):
                without_notes(part)


def signature_of(model: onnx.ModelProto) -> Signature:
    """Named inputs (those that are not initializers) and outputs.

    A dim is its fixed size, or its own name, or ``<tensor>_<axis>`` when it has neither (absent, zero,
    negative, or a placeholder such as ``?``). An output whose rank or type the file does not give gets what
    ONNX shape inference finds; when that finds none, it is an error: nothing could check such an output.

    Raises:
        ModelError: a sequence, map, optional or sparse input or output, an input without rank, or an element
            type no runtime takes.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = list(model.graph.output)
    if not all(map(_is_ranked, outputs)):
        outputs = list(_inferred(model).graph.output)
    _check_names("input", inputs)
    _check_names("output", outputs)
    named = {dim.dim_param for value in inputs + outputs for dim in value.type.tensor_type.shape.dim}
    return Signature(
        inputs=tuple(_spec("input", value, named) for value in inputs),
        outputs=tuple(_spec("output", value, named) for value in outputs),
    )


def without_weights(
    model: onnx.ModelProto, place: Callable[[Any, Any], None] | None = None, keep_bytes: int = _SMALL
) -> onnx.ModelProto:
    """A copy of the model that shares no memory with it and leaves out the data of large initializers.

    Args:
        model: the model, which is not changed.
        place: called with each large initializer and its empty copy (name, type and dims only); without it,
            the large initializers are left out and stand as inputs, which is what shape inference needs.
        keep_bytes: initializers up to this size are copied whole.
    """
    copy = onnx.ModelProto()
    _copy_fields(model, copy, skip="graph")
    _copy_fields(model.graph, copy.graph, skip="initializer")
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if element_bits(tensor.data_type) == 0 or byte_count(tensor) <= keep_bytes:
            copy.graph.initializer.append(tensor)
        elif place is not None:
            empty = copy.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            place(tensor, empty)
        elif tensor.name not in inputs:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            copy.graph.input.append(value)
    return copy


def _parsed(path: Path) -> tuple[onnx.ModelProto, int]:
    data = _file_bytes(path)
    return _parse(data), len(data)


def _file_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise ModelError(f"there is no model file {path}", hint="check the path")
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "a special file"
            raise ModelError(f"{path} is not a model file", got=kind, expected="an ONNX file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"{path} is too large for an ONNX file",
                got=f"{path.stat().st_size} bytes",
                expected=f"at most {MAX_FILE_BYTES} bytes",
                hint="save the weights as external data",
            )
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ModelError(f"cannot read {path}", got=error) from None


def _parse(data: bytes) -> onnx.ModelProto:
    """The parsed bytes without the fields that this ONNX does not know: what is not seen is not checked."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise not_onnx(data, str(error)) from None
    if not model.HasField("graph"):
        raise not_onnx(data, "no graph in it")
    model.DiscardUnknownFields()
    return model


def _places(model: onnx.ModelProto) -> dict[str, ExternalRange]:
    """One range of each data file that the model names, by location."""
    return {place.location: place for tensor in tensors(model) if (place := external_range(tensor))}


def _inline(model: onnx.ModelProto, path: Path, budget: int) -> None:
    """Check every tensor, then give each external one its bytes."""
    places: list[tuple[Any, ExternalRange]] = []
    for tensor in tensors(model):
        place = external_range(tensor)
        if place is None:
            check_tensor(tensor)
        else:
            places.append((tensor, place))
    if places:
        _check_budget(places, budget)
        with DataDirectory(path.parent) as folder:
            for tensor, place in places:
                folder.check(place, byte_count(tensor))
            for tensor, place in places:
                _fill(tensor, folder.read(place, byte_count(tensor)))


def _check_budget(places: list[tuple[Any, ExternalRange]], budget: int) -> None:
    """Many tensors may name one range, so the sum of what they would take counts, not the files' size."""
    total = sum(byte_count(tensor) for tensor, _ in places)
    if total > budget:
        raise ModelError(
            "the model's external data is too large",
            got=f"{total} bytes",
            expected=f"at most {max(budget, 0)} bytes",
        )


def _fill(tensor: Any, data: bytes) -> None:
    tensor.raw_data = data
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _weight_bytes(model: onnx.ModelProto) -> int:
    known = (tensor for tensor in tensors(model) if element_bits(tensor.data_type))
    return sum(map(byte_count, known))


def _write_with_data(model: onnx.ModelProto, path: Path, data: Path) -> None:
    with replacing(data) as file:
        light = without_weights(model, lambda tensor, empty: _move_out(tensor, empty, file, data.name))
    _write_bytes(path, _serialised(light))


def _move_out(tensor: Any, empty: Any, file: IO[bytes], location: str) -> None:
    """Append one tensor's bytes to the data file and say in its copy where they are."""
    raw = tensor.raw_data or onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)).raw_data
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    offset = file.tell()
    file.write(raw)
    empty.data_location = empty.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(len(raw)))):
        empty.external_data.add(key=key, value=value)


def _serialised(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise ModelError(
            "the model is too large for an ONNX file, even with its weights beside it",
            got=error,
            expected=f"at most {MAX_FILE_BYTES} bytes without initializers",
        ) from None


def _write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def _copy_fields(source: Any, target: Any, skip: str) -> None:
    """Copy all fields but one: emptying a whole copy afterwards would have taken its memory."""
    for field, value in source.ListFields():
        if field.name == skip:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    light = without_weights(model)
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception as error:  # it raises classes of its own, and bare RuntimeError
        raise ModelError("the shapes of the model's outputs cannot be inferred", got=error) from None


def _is_ranked(value: Any) -> bool:
    tensor = value.type.tensor_type
    is_tensor = value.type.WhichOneof("value") in {"tensor_type", None}
    return not is_tensor or (bool(tensor.HasField("shape")) and tensor.elem_type != 0)


def _check_names(role: str, values: list[Any]) -> None:
    names = [value.name for value in values]
    twice = next((name for name in names if names.count(name) > 1 or not name), None)
    if twice is not None:
        raise ModelError(
            f"the model has two {role}s named '{twice}'" if twice else f"an {role} has no name",
            hint="export the model with distinct names",
        )


def _spec(role: str, value: Any, named: set[str]) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        got = (kind or "no type").removesuffix("_type").replace("_", " ")
        raise ModelError(
            f"the model's {role} '{value.name}' is not a tensor",
            got=got,
            expected="a tensor",
            hint="export the model with plain tensors going in and out",
        )
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(
            f"the rank of the {role} '{value.name}' is not known",
            expected=f"dims of every {role}",
            hint=f"export the model with a shape for '{value.name}'; single dims may be dynamic",
        )
    dims = tuple(_dim(dim, f"{value.name}_{axis}", named) for axis, dim in enumerate(tensor.shape.dim))
    return TensorSpec(value.name, DType.from_onnx(tensor.elem_type), dims)


def _dim(dim: Any, fallback: str, named: set[str]) -> Dim:
    if dim.dim_value > 0:
        return int(dim.dim_value)
    if dim.dim_param.strip() not in _NO_NAME:
        return str(dim.dim_param)
    while fallback in named:
        fallback += "_"
    return fallback
