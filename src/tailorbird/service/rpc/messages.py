"""The protocol's messages: bytes to :class:`InferRequest`, :class:`InferResponse` to bytes. Pure; no sockets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from tailorbird.domain.dtype import Array, DType
from tailorbird.service import tensors
from tailorbird.service.faults import Refused, WireError
from tailorbird.service.limits import NAME_LENGTH, Limits
from tailorbird.service.rpc import schema
from tailorbird.service.rpc.contents import from_contents
from tailorbird.service.rpc.scan import split, varint
from tailorbird.service.tensor_parameters import classes_of, slice_of
from tailorbird.serving.dataplane import InferRequest, InferResponse, Parameter
from tailorbird.serving.descriptions import ModelMetadata, TensorMetadata
from tailorbird.serving.shared_memory import Regions
from tailorbird.serving.slices import Slice

SMALL_MESSAGE = 64 << 10
"""Bytes of a message that is no inference request."""

ASKS_FOR_FINAL = "triton_enable_empty_final_response"
"""A parameter of requests in a stream: the client wants to be told which answer is its last."""
FINAL_RESPONSE = "triton_final_response"
"""The parameter of the answer that says so. A model here has one answer to each request."""

_MODEL_LENGTH = 128
_VERSION = re.compile(r"[0-9]{1,18}")
_DTYPES = {str(dtype): dtype for dtype in DType}
_RAW_OUTPUT = b"\x32"
"""The tag of ``ModelInferResponse.raw_output_contents``: field 6, length-delimited."""
_INFER_RESPONSE = b"\x12"
"""The tag of ``ModelStreamInferResponse.infer_response``: field 2, length-delimited."""


def parse(kind: Any, message: bytes) -> Any:
    """A message of that class; raises :class:`WireError` for bytes that are none, or too many."""
    if len(message) > SMALL_MESSAGE:
        raise WireError("the message is too large", got=f"{len(message)} bytes",
                        expected=f"at most {SMALL_MESSAGE} bytes")  # fmt: skip
    return _parse(kind, message)


def model_and_version(name: str, version: str) -> tuple[str, int | None]:
    """What a request says it is about; an empty version means that the server chooses.

    Raises:
        WireError: there is no name, or the version is no number.
    """
    if not 0 < len(name) <= _MODEL_LENGTH:
        raise WireError("the request names no model", got=f"{len(name)} characters",
                        expected=f"1 to {_MODEL_LENGTH}")  # fmt: skip
    if version and not _VERSION.fullmatch(version):
        raise WireError("the model's version is no version", got=repr(version[:40]), expected="digits, or nothing")
    return name, int(version) if version else None


def decode_infer(message: bytes, limits: Limits, regions: Regions | Refused | None = None) -> InferRequest:
    """Read a ``ModelInferRequest``; as :func:`split` and :func:`decode_parts` do, one after the other."""
    return decode_parts(*split(message, limits), limits, regions)


def decode_parts(
    header: bytes,
    blobs: list[memoryview],
    limits: Limits,
    regions: Regions | Refused | None = None,
    admit: Callable[[str], None] | None = None,
) -> InferRequest:
    """Read a ``ModelInferRequest`` whose raw tensors are set apart.

    Args:
        header: the message without them.
        blobs: they, which become arrays where their alignment allows.
        limits: what the request may be.
        regions: clients' shared memory; without it requests that name some are refused, with that error if it is one.
        admit: is told the model's name before a tensor is read, and raises if the request ends there.

    Raises:
        WireError: the message is no request, contradicts itself, or is over a limit.
        Overloaded: too much is copied out of shared memory already.
        Refused: it names shared memory, which its caller may not use.
    """
    request = _parse(schema.ModelInferRequest, header)
    _check_length("the request's id", request.id)
    model, version = model_and_version(request.model_name, request.model_version)
    if admit is not None:
        admit(model)
    inputs, dtypes = _read_inputs(request.inputs, blobs, limits, regions)
    asked = _Asked(limits, regions)
    return InferRequest(
        model=model,
        version=version,
        id=request.id,
        parameters=_parameters("the request", request.parameters, limits),
        inputs=inputs,
        dtypes=dtypes,
        outputs=tuple(asked.add(output) for output in request.outputs),
        classes=asked.classes,
        shared=asked.shared,
    )


def encode_infer(response: InferResponse) -> bytes:
    """Write a ``ModelInferResponse`` with raw contents, each copied once."""
    return b"".join(_infer_parts(response))


def encode_stream(response: InferResponse, *, final: bool = False) -> bytes:
    """Write a ``ModelStreamInferResponse`` that holds an answer, and says that it is the only one if asked to."""
    parts = _infer_parts(response, final=final)
    return b"".join([_INFER_RESPONSE, varint(sum(map(len, parts))), *parts])


def encode_stream_error(words: str, request_id: str = "") -> bytes:
    """Write a ``ModelStreamInferResponse`` that holds an error, and the id of the request it answers."""
    about = schema.ModelInferResponse(id=request_id) if request_id else None
    return bytes(schema.ModelStreamInferResponse(error_message=words, infer_response=about).SerializeToString())


def request_id(message: bytes, limits: Limits) -> str:
    """The id of a request that was refused, if that much of it can be read."""
    try:
        found = str(_parse(schema.ModelInferRequest, split(message, limits)[0]).id)
    except WireError:
        return ""
    return found if len(found) <= NAME_LENGTH else ""


def metadata(found: ModelMetadata) -> Any:
    """A ``ModelMetadataResponse``."""
    return schema.ModelMetadataResponse(
        name=found.name,
        versions=found.versions,
        platform=found.platform,
        inputs=map(_tensor_metadata, found.inputs),
        outputs=map(_tensor_metadata, found.outputs),
    )


def _tensor_metadata(found: TensorMetadata) -> dict[str, Any]:
    return {"name": found.name, "datatype": found.datatype, "shape": found.shape}


def _parse(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise WireError("the message is not valid protobuf", got=error) from None


def _read_inputs(
    inputs: Any, blobs: list[memoryview], limits: Limits, regions: Regions | Refused | None
) -> tuple[dict[str, Array], dict[str, DType]]:
    reader = regions.reader() if isinstance(regions, Regions) else None
    slices = [_slice(tensor, limits, regions) for tensor in inputs]
    if blobs and len(blobs) != slices.count(None):
        raise WireError("the request's raw_input_contents do not match its inputs", got=len(blobs),
                        expected=f"{slices.count(None)}, one for each input in order")  # fmt: skip
    raw = iter(blobs)
    left = limits.bytes_elements
    arrays: dict[str, Array] = {}
    dtypes: dict[str, DType] = {}
    for tensor, where in zip(inputs, slices, strict=True):
        name = tensor.name
        _check_input(tensor, arrays)
        dtype = dtypes[name] = _dtype(tensor)
        shape, count = _shape(name, tensor.shape, limits)
        if dtype is DType.BYTES:
            tensors.check_bytes(name, count, left, limits)
            left -= count
        if where is None and not blobs:
            arrays[name] = from_contents(name, dtype, shape, tensor.contents)
            continue
        _check_without_contents(tensor, shared=where is not None)
        blob = next(raw) if where is None or reader is None else reader.read(where)
        arrays[name] = tensors.from_binary(name, dtype, shape, blob)
    return arrays, dtypes


def _check_without_contents(tensor: Any, *, shared: bool) -> None:
    if not tensor.HasField("contents"):
        return
    if shared:
        raise WireError(f"input '{tensor.name}' has data both here and in shared memory")
    raise WireError(f"input '{tensor.name}' has contents in a request with raw_input_contents",
                    hint="send all inputs the one way or all the other")  # fmt: skip


def _slice(tensor: Any, limits: Limits, regions: Regions | Refused | None) -> Slice | None:
    """Where in shared memory the input's data is."""
    if not tensor.parameters:
        return None
    whose = f"input '{tensor.name[:NAME_LENGTH]}'"
    return slice_of(whose, _parameters(whose, tensor.parameters, limits), regions)


def _check_input(tensor: Any, known: dict[str, Array]) -> None:
    _check_length("an input's name", tensor.name)
    if not tensor.name:
        raise WireError("an input has no name")
    if tensor.name in known:
        raise WireError(f"input '{tensor.name}' is given twice")


def _dtype(tensor: Any) -> DType:
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None:
        raise WireError(f"input '{tensor.name}' has an unknown datatype", got=repr(tensor.datatype[:40]),
                        expected=", ".join(_DTYPES))  # fmt: skip
    return dtype


def _shape(name: str, dims: Any, limits: Limits) -> tuple[tuple[int, ...], int]:
    """A shape and its elements."""
    shape = tuple(dims)
    if shape and min(shape) < 0:
        raise WireError(f"input '{name}' has a negative dim", got=min(shape))
    return shape, tensors.element_count(name, shape, limits)


class _Asked:
    """What the parameters of the outputs ask for, by the outputs' names."""

    def __init__(self, limits: Limits, regions: Regions | Refused | None) -> None:
        self._limits = limits
        self._regions = regions
        self.classes: dict[str, int] | None = None
        self.shared: dict[str, Slice] | None = None

    def add(self, output: Any) -> str:
        """One output; returns its name."""
        _check_length("an output's name", output.name)
        name = str(output.name)
        if not output.parameters:
            return name
        whose = f"output '{name}'"
        parameters = _parameters(whose, output.parameters, self._limits)
        if where := slice_of(whose, parameters, self._regions):
            self.shared = {**(self.shared or {}), name: where}
        if classes := classes_of(whose, parameters):
            self.classes = {**(self.classes or {}), name: classes}
        return name


def _parameters(whose: str, given: Any, limits: Limits) -> dict[str, Parameter]:
    if len(given) > limits.parameters:
        raise WireError(f"{whose} has too many parameters", got=len(given), expected=f"at most {limits.parameters}")
    parameters: dict[str, Parameter] = {}
    for name, parameter in given.items():
        _check_length(f"the name of a parameter of {whose}", name)
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise WireError(f"{whose} has a parameter without a value", got=repr(name))
        parameters[name] = getattr(parameter, choice)
    return parameters


def _check_length(what: str, text: str) -> None:
    if len(text) > NAME_LENGTH:
        raise WireError(f"{what} is too long", got=f"{len(text)} characters", expected=f"at most {NAME_LENGTH}")


def _infer_parts(response: InferResponse, *, final: bool = False) -> list[bytes | memoryview]:
    """The message in parts to be joined: protobuf's own call would copy each tensor three times."""
    message = schema.ModelInferResponse(model_name=response.model, model_version=str(response.version), id=response.id)
    if final:
        message.parameters[FINAL_RESPONSE].bool_param = True
    parts: list[bytes | memoryview] = [b""]
    for name, array in response.outputs.items():
        dtype = response.dtypes[name]
        message.outputs.add(name=name, datatype=dtype, shape=array.shape)
        blob = b"" if name in response.placed else tensors.to_binary(dtype, array)
        parts += [_RAW_OUTPUT, varint(len(blob)), blob]
    parts[0] = message.SerializeToString()
    return parts
