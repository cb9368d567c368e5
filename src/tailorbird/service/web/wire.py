"""The protocol's bodies: bytes to :class:`InferRequest`, :class:`InferResponse` to bytes. Pure; no sockets.

A body is JSON, followed by the blobs of the tensors sent as binary data, in the order the JSON names them.
The JSON is decoded in one piece (:mod:`tailorbird.service.web.requests`); what it says of sizes is judged before arrays
are made.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.signature import Shape, Signature, TensorSpec
from tailorbird.service import tensors
from tailorbird.service.faults import Refused, WireError
from tailorbird.service.limits import Limits
from tailorbird.service.tensor_parameters import classes_of, slice_of
from tailorbird.service.web import requests
from tailorbird.serving.dataplane import InferRequest, InferResponse, Parameter
from tailorbird.serving.shared_memory import Reader, Regions
from tailorbird.serving.slices import Slice

_DTYPES = {str(dtype): dtype for dtype in DType}


class _Output(msgspec.Struct):
    name: str
    datatype: DType
    shape: tuple[int, ...]
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] | msgspec.UnsetType = msgspec.UNSET


class _Response(msgspec.Struct):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str | msgspec.UnsetType = msgspec.UNSET


class ReplyForm(msgspec.Struct, frozen=True):
    """Which outputs go back as binary data."""

    binary: bool = False
    """For outputs that are not named below."""
    outputs: dict[str, bool] = {}

    def is_binary(self, name: str) -> bool:
        """Whether this output goes back as binary data."""
        return self.outputs.get(name, self.binary)


class Body(msgspec.Struct, frozen=True):
    """An encoded response. ``json_bytes`` is its ``Inference-Header-Content-Length``; None when all of it is JSON."""

    data: bytes
    json_bytes: int | None = None


_PLAIN = ReplyForm()
_encoder = msgspec.json.Encoder()


def decode_infer(
    body: bytes,
    json_bytes: int | None,
    model: str,
    version: int | None,
    limits: Limits,
    regions: Regions | Refused | None = None,
) -> tuple[InferRequest, ReplyForm]:
    """Read an inference request.

    Args:
        body: the whole body, decompressed.
        json_bytes: how much of it is JSON; None means all of it, and there are no blobs.
        model: the model's name, from the path.
        version: its version, from the path, or None.
        limits: what the request may be.
        regions: clients' shared memory; without it requests that name some are refused, with that error if it is one.

    Raises:
        WireError: the body is no request, contradicts itself, or is over a limit.
        Overloaded: too much is copied out of shared memory already.
        Refused: it names shared memory, which its caller may not use.
    """
    request = requests.read(_json_part(body, json_bytes), limits)
    if json_bytes is None and len(request.inputs) == 1 and not (request.outputs or request.parameters):
        tensor = request.inputs[0]
        if tensor.parameters is None:  # most requests are of this kind, and this is all there is to them
            array, dtype = _from_json(tensor, limits, limits.bytes_elements)
            inputs, dtypes = {tensor.name: array}, {tensor.name: dtype}
            return InferRequest(model, inputs, version, request.id, dtypes=dtypes), _PLAIN
    outputs = request.outputs or []
    blobs = memoryview(body)[len(body) if json_bytes is None else json_bytes :]
    inputs, dtypes = _read_inputs(request.inputs, blobs, limits, regions)
    parameters = request.parameters or {}
    asked = _Asked(limits, regions)
    for output in outputs:
        asked.add(output)
    value = InferRequest(
        model=model,
        version=version,
        id=request.id,
        parameters=parameters,
        inputs=inputs,
        dtypes=dtypes,
        outputs=tuple(output.name for output in outputs),
        classes=asked.classes,
        shared=asked.shared,
    )
    return value, ReplyForm(bool(_flag("the request", parameters, "binary_data_output")), asked.binary)


def decode_raw(
    body: bytes, signature: Signature, model: str, version: int | None, limits: Limits
) -> tuple[InferRequest, ReplyForm]:
    """Read a request whose JSON has length 0: the body is the one input, as a batch of one; outputs go back binary.

    Raises:
        WireError: the model has several inputs, or the body's size does not settle its shape.
    """
    if len(signature.inputs) != 1:
        raise WireError("a body without JSON needs a model with one input", got=f"{len(signature.inputs)} inputs",
                        hint="set Inference-Header-Content-Length to the length of the JSON")  # fmt: skip
    spec = signature.inputs[0]
    if spec.dtype is DType.BYTES:
        array = tensors.from_binary(spec.name, spec.dtype, (1,), memoryview(len(body).to_bytes(4, "little") + body))
    else:
        shape = _raw_shape(spec, signature.batch_dim, len(body))
        tensors.element_count(spec.name, shape, limits)
        array = tensors.from_binary(spec.name, spec.dtype, shape, memoryview(body))
    request = InferRequest(model=model, version=version, inputs={spec.name: array}, dtypes={spec.name: spec.dtype})
    return request, ReplyForm(binary=True)


def encode_infer(response: InferResponse, form: ReplyForm) -> Body:
    """Write an inference response.

    Raises:
        InputError: an output asked for as JSON cannot be JSON (FP16, BF16, NaN, Infinity, bytes that
            are not UTF-8); the hint says to ask for binary data.
    """
    blobs: list[bytes | memoryview] = []
    outputs = [
        _Output(name, response.dtypes[name], array.shape)
        if name in response.placed
        else _output(name, response.dtypes[name], array, form.is_binary(name), blobs)
        for name, array in response.outputs.items()
    ]
    answer = _Response(response.model, str(response.version), outputs, response.id or msgspec.UNSET)
    data = _encoder.encode(answer)
    if b"null" in data:  # how msgspec writes NaN and Infinity; the word may also stand in a string
        _refuse_not_finite(response, form)
    return Body(b"".join([data, *blobs]), len(data)) if blobs else Body(data)


def encode_error(message: str) -> bytes:
    """The protocol's error body."""
    return _encoder.encode({"error": message})


def encode(value: Any) -> bytes:
    """A metadata record, or a plain mapping, as JSON."""
    return _encoder.encode(value)


def _json_part(body: bytes, json_bytes: int | None) -> bytes | memoryview:
    if json_bytes is None:
        return body
    if json_bytes > len(body):
        raise WireError("Inference-Header-Content-Length is out of range", got=json_bytes,
                        expected=f"0 to {len(body)}, the body's length")  # fmt: skip
    return memoryview(body)[:json_bytes]


def _read_inputs(
    inputs: list[requests.Input], blobs: memoryview, limits: Limits, regions: Regions | Refused | None
) -> tuple[dict[str, Array], dict[str, DType]]:
    arrays: dict[str, Array] = {}
    dtypes: dict[str, DType] = {}
    reader = regions.reader() if isinstance(regions, Regions) else regions
    left = limits.bytes_elements
    for tensor in inputs:
        if tensor.name in arrays:
            raise WireError(f"input '{tensor.name}' is given twice")
        array, dtype, blobs = _read_input(tensor, blobs, left, limits, reader)
        arrays[tensor.name], dtypes[tensor.name] = array, dtype
        if dtype is DType.BYTES:
            left -= array.size
    if blobs.nbytes:
        raise WireError("the body is longer than its tensors", got=f"{blobs.nbytes} bytes too many")
    return arrays, dtypes


def _read_input(
    tensor: requests.Input, blobs: memoryview, left: int, limits: Limits, reader: Reader | Refused | None
) -> tuple[Array, DType, memoryview]:
    """An input, and what is behind it; so many BYTES elements are left to its request."""
    if tensor.parameters is None:
        return *_from_json(tensor, limits, left), blobs
    dtype, shape = _declared(tensor, limits, left)
    size = _blob_size(tensor, limits)
    where = _slice(tensor, reader)
    if where is not None and isinstance(reader, Reader):
        blob = reader.read(where)
    elif size is None:
        return *_from_json(tensor, limits, left), blobs
    else:
        blob, blobs = _take(tensor.name, blobs, size)
    return tensors.from_binary(tensor.name, dtype, shape, blob), dtype, blobs


def _declared(tensor: requests.Input, limits: Limits, left: int) -> tuple[DType, Shape]:
    """What it says it is, judged before it is read."""
    dtype = _dtype(tensor)
    shape = tuple(tensor.shape)
    count = tensors.element_count(tensor.name, shape, limits)
    if dtype is DType.BYTES:
        tensors.check_bytes(tensor.name, count, left, limits)
    return dtype, shape


def _dtype(tensor: requests.Input) -> DType:
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None:
        raise WireError(f"input '{tensor.name}' has an unknown datatype", got=repr(tensor.datatype[:40]),
                        expected=", ".join(_DTYPES))  # fmt: skip
    return dtype


def _blob_size(tensor: requests.Input, limits: Limits) -> int | None:
    """Bytes of the input's blob, or None when its data is in the JSON."""
    if tensor.parameters is None:
        return None
    _check_parameters(f"input '{tensor.name}'", tensor.parameters, limits)
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise WireError(f"input '{tensor.name}' has a binary_data_size that is no size", got=repr(size)[:40])
    if tensor.data is not msgspec.UNSET:
        raise WireError(f"input '{tensor.name}' has both data and binary_data_size")
    return size


def _slice(tensor: requests.Input, reader: Reader | Refused | None) -> Slice | None:
    """Where in shared memory the input's data is."""
    if not tensor.parameters:
        return None
    where = slice_of(f"input '{tensor.name}'", tensor.parameters, reader)
    if where and ("binary_data_size" in tensor.parameters or tensor.data is not msgspec.UNSET):
        raise WireError(f"input '{tensor.name}' has data both here and in shared memory")
    return where


def _from_json(tensor: requests.Input, limits: Limits, left: int) -> tuple[Array, DType]:
    """An input whose data is JSON, in a request that may have so many BYTES elements more."""
    dtype, shape = _declared(tensor, limits, left)
    if isinstance(tensor.data, msgspec.UnsetType):
        raise WireError(f"input '{tensor.name}' has no data", expected="data, or the parameter binary_data_size")
    return tensors.from_json(tensor.name, dtype, shape, bytes(tensor.data), limits), dtype


def _take(name: str, blobs: memoryview, size: int) -> tuple[memoryview, memoryview]:
    if size > blobs.nbytes:
        raise WireError(f"input '{name}' runs past the end of the body", got=f"{blobs.nbytes} bytes",
                        expected=f"{size} bytes",
                        hint="is Inference-Header-Content-Length the length of the JSON?")  # fmt: skip
    return blobs[:size], blobs[size:]


def _check_parameters(whose: str, parameters: requests.Parameters, limits: Limits) -> None:
    if len(parameters) > limits.parameters:
        raise WireError(
            f"{whose} has too many parameters", got=len(parameters), expected=f"at most {limits.parameters}"
        )


class _Asked:
    """What the parameters of the outputs ask for, by the outputs' names."""

    def __init__(self, limits: Limits, regions: Regions | Refused | None) -> None:
        self._limits = limits
        self._regions = regions
        self.binary: dict[str, bool] = {}
        self.classes: dict[str, int] | None = None
        self.shared: dict[str, Slice] | None = None

    def add(self, output: requests.AskedOutput) -> None:
        """One output; the request's limits are checked here."""
        if not output.parameters:
            return
        whose = f"output '{output.name}'"
        _check_parameters(whose, output.parameters, self._limits)
        flag = _flag(whose, output.parameters, "binary_data")
        if flag is not None:
            self.binary[output.name] = flag
        if where := slice_of(whose, output.parameters, self._regions):
            self.shared = {**(self.shared or {}), output.name: where}
        if classes := classes_of(whose, output.parameters):
            self.classes = {**(self.classes or {}), output.name: classes}


def _flag(whose: str, parameters: requests.Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise WireError(f"{whose} has a {name} that is no boolean", got=repr(value)[:40])


def _raw_shape(spec: TensorSpec, batch_dim: str | None, size: int) -> tuple[int, ...]:
    """The shape a body of that size must have: one row, and at most one dim left open."""
    dims = [1 if dim == batch_dim else dim for dim in spec.dims]
    fixed = spec.dtype.itemsize
    for dim in dims:
        fixed *= dim if isinstance(dim, int) else 1
    unknown = sum(isinstance(dim, str) for dim in dims)
    if unknown > 1:
        raise WireError("a body without JSON leaves the shape open", got=f"{unknown} dynamic dims of {spec}",
                        expected="at most one besides the batch")  # fmt: skip
    return tuple(dim if isinstance(dim, int) else size // (fixed or 1) for dim in dims)


def _output(name: str, dtype: DType, array: Array, binary: bool, blobs: list[bytes | memoryview]) -> _Output:
    if not binary:
        return _Output(name, dtype, array.shape, data=tensors.to_json(name, dtype, array))
    blob = tensors.to_binary(dtype, array)
    blobs.append(blob)
    return _Output(name, dtype, array.shape, parameters={"binary_data_size": len(blob)})


def _refuse_not_finite(response: InferResponse, form: ReplyForm) -> None:
    for name, array in response.outputs.items():
        if name in response.placed:
            continue
        if response.dtypes[name].is_float and not form.is_binary(name) and not np.isfinite(array).all():
            raise tensors.binary_needed(name, "holds NaN or Infinity")
