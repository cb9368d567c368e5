"""Requests whose every number is theirs alone, in each form that the protocol knows, and what their answers must be."""

import json
import random
from typing import Any

import msgspec
import numpy as np

from tailorbird.service.rpc import schema
from tests.stress.models import COLUMNS, FACTOR

ROWS = (1, 1, 1, 2, 3, 5, 8, 13, 16, 17, 40)
"""How many rows requests have: now and then more than one run takes."""


class Mixed(AssertionError):
    """An answer that is not this request's. What all of this is about."""


class Asked(msgspec.Struct, frozen=True):
    """One request."""

    serial: int
    model: str
    version: int | None
    values: Any
    """INT64, rows × columns; no other request of the run has any of them."""
    parameters: dict[str, int]


class Marks:
    """Deals out requests.

    Args:
        seed: of what is dealt, and a range of numbers of its own.
        models: names to choose from.
        timeouts: some requests name a deadline that may be too short.
    """

    def __init__(self, seed: int, models: tuple[str, ...], *, timeouts: bool = True) -> None:
        self._chance = random.Random(seed)
        self._models = models
        self._timeouts = timeouts
        self._serial = 0
        self._next = seed << 40

    def deal(self) -> Asked:
        """The next request."""
        chance = self._chance
        self._serial += 1
        rows = chance.choice(ROWS)
        first, self._next = self._next, self._next + rows * COLUMNS
        values = np.arange(first, self._next, dtype=np.int64).reshape(rows, COLUMNS)
        return Asked(self._serial, chance.choice(self._models), None, values, self._parameters())

    def _parameters(self) -> dict[str, int]:
        chance, found = self._chance, {}
        if chance.random() < 0.3:
            found["priority"] = chance.randrange(4)
        if self._timeouts and chance.random() < 0.1:
            found["timeout"] = int(10 ** chance.uniform(2, 6))  # from hopeless to generous
        return found


def check(asked: Asked, model: str, version: str, request_id: str, outputs: Any) -> str:
    """The version that answered; raises :class:`Mixed` unless the answer is this request's, by that version."""
    wanted = asked.values * FACTOR + int(version)
    if request_id != str(asked.serial) or model != asked.model:
        raise Mixed(f"request {asked.serial} to {asked.model} got the answer to {request_id} by {model}")
    if outputs.shape != wanted.shape or not (outputs == wanted).all():
        raise Mixed(f"request {asked.serial} to {asked.model} version {version}: sent {asked.values.tolist()}, "
                    f"got {outputs.tolist()}")  # fmt: skip
    return f"{model}/{version}"


# --- HTTP ---


def http_json(asked: Asked) -> bytes:
    """Everything as JSON."""
    return _http(asked, json.dumps(_stated(asked) | {"inputs": [_tensor(asked) | {"data": _flat(asked)}]}).encode())


def http_binary(asked: Asked) -> bytes:
    """Inputs and outputs as binary data."""
    blob = asked.values.tobytes()
    stated = _stated(asked) | {"inputs": [_tensor(asked) | {"parameters": {"binary_data_size": len(blob)}}]}
    stated["parameters"] = {**asked.parameters, "binary_data_output": True}
    text = json.dumps(stated).encode()
    return _http(asked, text + blob, b"inference-header-content-length: %d\r\n" % len(text))


def check_http(asked: Asked, body: bytes, json_bytes: int | None) -> str:
    """Hold the answer to either against what it must be."""
    found = json.loads(body if json_bytes is None else body[:json_bytes])
    (output,) = found["outputs"]
    flat = output["data"] if json_bytes is None else np.frombuffer(body[json_bytes:], np.int64)
    values = np.array(flat, np.int64).reshape(output["shape"])
    return check(asked, found["model_name"], found["model_version"], found["id"], values)


def _http(asked: Asked, body: bytes, more: bytes = b"") -> bytes:
    at = f"/versions/{asked.version}" if asked.version else ""
    head = f"POST /v2/models/{asked.model}{at}/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + more + b"\r\n" + body


def _stated(asked: Asked) -> dict[str, Any]:
    return {"id": str(asked.serial), "parameters": asked.parameters}


def _tensor(asked: Asked) -> dict[str, Any]:
    return {"name": "x", "shape": list(asked.values.shape), "datatype": "INT64"}


def _flat(asked: Asked) -> list[int]:
    return asked.values.ravel().tolist()  # type: ignore[no-any-return]


# --- gRPC ---


def rpc(asked: Asked, *, raw: bool) -> bytes:
    """A ``ModelInferRequest`` with raw or with typed contents."""
    message = schema.ModelInferRequest(model_name=asked.model, id=str(asked.serial))
    message.model_version = str(asked.version or "")
    for name, value in asked.parameters.items():
        message.parameters[name].int64_param = value
    tensor = message.inputs.add(name="x", datatype="INT64", shape=asked.values.shape)
    if raw:
        message.raw_input_contents.append(asked.values.tobytes())
    else:
        tensor.contents.int64_contents.extend(_flat(asked))
    return bytes(message.SerializeToString())


def check_rpc(asked: Asked, message: bytes) -> str:
    """Hold a ``ModelInferResponse`` against what it must be."""
    return check_answer(asked, schema.ModelInferResponse.FromString(message))


def check_answer(asked: Asked, found: Any) -> str:
    """The same, parsed."""
    values = np.frombuffer(found.raw_output_contents[0], np.int64).reshape(found.outputs[0].shape)
    return check(asked, found.model_name, found.model_version, found.id, values)
