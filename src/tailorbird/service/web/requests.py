"""The JSON of an inference request, read so that no list in it is longer than a request may have. Pure functions.

msgspec's bound on a list's length is applied when the whole list has been made, and two bytes make an object of fifty.
A structure written as an array has its number of fields, and the first item too many ends the decoding: so long JSON is
read into such ones. They cost a little more, which in short JSON, whose lists cannot be long, would be for nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from tailorbird.service.faults import WireError
from tailorbird.service.limits import NAME_LENGTH, RANK, Limits
from tailorbird.serving.dataplane import Parameter

T = TypeVar("T")

LONG = 64 << 10
"""Bytes of JSON from which on its lists are bounded while they are read."""

Parameters = dict[Annotated[str, msgspec.Meta(max_length=NAME_LENGTH)], Parameter]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH)]
_Id = Annotated[str, msgspec.Meta(max_length=NAME_LENGTH)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Input(msgspec.Struct):
    """A tensor; its data is read once its shape is known."""

    name: _Name
    shape: list[_Size]
    datatype: str
    parameters: Parameters | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class AskedOutput(msgspec.Struct):
    """An output that is asked for."""

    name: _Name
    parameters: Parameters | None = None


class Request(msgspec.Struct):
    """The whole of it."""

    inputs: list[Input]
    id: _Id = ""
    parameters: Parameters | None = None
    outputs: list[AskedOutput] | None = None


def _at_most(length: int, kind: Any) -> Any:
    """The type of a list of up to so many items; what it lacks of them is UNSET."""
    fields = [(f"item{index}", kind | msgspec.UnsetType, msgspec.UNSET) for index in range(length)]
    return msgspec.defstruct("AtMost", fields, array_like=True, forbid_unknown_fields=True)


_Dims: Any = _at_most(RANK + 1, _Size)
"""One more than there may be: that too many is what is wrong with them is said elsewhere."""


class _LongInput(msgspec.Struct):
    name: _Name
    shape: _Dims
    datatype: str
    parameters: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _LongOutput(msgspec.Struct):
    name: _Name
    parameters: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_short: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_parameters: msgspec.json.Decoder[Parameters | None] = msgspec.json.Decoder(Parameters | None)


@lru_cache(maxsize=4)
def _long(tensors: int) -> msgspec.json.Decoder[Any]:
    fields: list[Any] = [
        ("inputs", _at_most(tensors, _LongInput)),
        ("id", _Id, ""),
        ("parameters", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET),
        ("outputs", _at_most(tensors, _LongOutput) | None, None),
    ]
    return msgspec.json.Decoder(msgspec.defstruct("LongRequest", fields))


def read(text: bytes | memoryview, limits: Limits) -> Request:
    """A request's JSON; inputs, outputs and parameters of the request are counted.

    Raises:
        WireError: it is no JSON, no request, nested too deeply, or has too much of something.
    """
    request = decoded(_short, text) if len(text) < LONG else _read_long(text, limits)
    _check_counts(request, limits)
    return request


def decoded(decoder: msgspec.json.Decoder[T], text: bytes | memoryview) -> T:
    """What a client's JSON says; raises :class:`WireError` for what is no JSON, no such record, or too deep."""
    try:
        return decoder.decode(text)
    except RecursionError:
        raise WireError("the request is nested too deeply") from None
    except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
        raise WireError("the request's JSON is not valid", got=error) from None


def _read_long(text: bytes | memoryview, limits: Limits) -> Request:
    found = decoded(_long(limits.tensors), text)
    inputs = [_input(tensor, limits) for tensor in _items(found.inputs)]
    outputs = None
    if found.outputs is not None:
        outputs = [
            AskedOutput(output.name, _given(f"output '{output.name}'", output.parameters, limits))
            for output in _items(found.outputs)
        ]
    return Request(inputs, found.id, _given("the request", found.parameters, limits), outputs)


def _input(tensor: _LongInput, limits: Limits) -> Input:
    parameters = _given(f"input '{tensor.name}'", tensor.parameters, limits)
    return Input(tensor.name, _items(tensor.shape), tensor.datatype, parameters, tensor.data)


def _items(listed: Any) -> list[Any]:
    return [item for item in msgspec.structs.astuple(listed) if item is not msgspec.UNSET]


def _given(whose: str, text: msgspec.Raw | msgspec.UnsetType, limits: Limits) -> Parameters | None:
    """Parameters, unless their quotes say that they are too many: a name and a text have two each."""
    if isinstance(text, msgspec.UnsetType):
        return None
    raw = bytes(text)
    quotes = raw.count(b'"') - raw.count(b'\\"')
    if quotes > 4 * limits.parameters:
        raise WireError(f"{whose} has too many parameters", got=f"at least {(quotes + 3) // 4}",
                        expected=f"at most {limits.parameters}")  # fmt: skip
    return decoded(_parameters, raw)


def _check_counts(request: Request, limits: Limits) -> None:
    for what, count, limit in (
        ("inputs", len(request.inputs), limits.tensors),
        ("outputs", len(request.outputs or ()), limits.tensors),
        ("parameters", len(request.parameters or ()), limits.parameters),
    ):
        if count > limit:
            raise WireError(f"the request has too many {what}", got=count, expected=f"at most {limit}")
