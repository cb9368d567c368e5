"""What the engine inspector and the profiler tell, as layers.

The inspector's JSON differs from version to version: types stand in ``Datatype`` (11, RTX) or inside the words of
``Format/Datatype`` (10); nodes of the ONNX graph stand in ``Metadata`` as ``[ONNX Layer: name]``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from tailorbird.domain.errors import BackendError
from tailorbird.domain.layers import Layer
from tailorbird.domain.precision import Precision

_TYPES = (
    (re.compile(r"\b(bf16|bfloat16)", re.I), "bf16"),
    (re.compile(r"\b(fp16|half|float16)", re.I), "fp16"),
    (re.compile(r"\b(fp8|float8|e4m3)", re.I), "fp8"),
    (re.compile(r"\b(fp32|float32|float)\b", re.I), "fp32"),
    (re.compile(r"\b(uint8)\b", re.I), "uint8"),
    (re.compile(r"\b(int8)", re.I), "int8"),
    (re.compile(r"\b(int32)\b", re.I), "int32"),
    (re.compile(r"\b(int64)\b", re.I), "int64"),
    (re.compile(r"\b(bool)\b", re.I), "bool"),
)
_COMPUTED = tuple(Precision)
_NARROW = frozenset({"fp8", "int8"})
_FLOATS = frozenset(_COMPUTED) - _NARROW
_BYTES = "uint8"
_PRODUCTS = re.compile(r"conv(?!ert)|correlation|gemm|matrix|matmul|fully|mha|attention", re.I)
"""Kinds of layers that multiply matrices; TensorRT-RTX 1.7 calls its convolutions correlations."""
_GENERATED = "kgen"
_GENERATED_PRODUCTS = re.compile(r"gemm|mha|attention", re.I)
"""Names of generated code that does: otherwise it is for operators by element."""
_SHAPES = "int64"
"""What a layer without tensors works in: it works out the shapes of others."""

_NODE = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]*)\]")
"""Notes on one layer are parted by the separators of records and units."""


def layers_of(information: str) -> tuple[Layer, ...]:
    """Layers without times, in execution order, from the inspector's JSON.

    Raises:
        BackendError: it is no such JSON, or was built without details.
    """
    try:
        told = list(json.loads(information)["Layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError("the engine inspector's answer cannot be read", got=error) from None
    if not all(isinstance(one, dict) for one in told):
        raise BackendError("the engine tells only the names of its layers", hint="build it again with Tailorbird")
    return tuple(
        Layer(one["Name"], one.get("LayerType", "unknown"), _precision(one) or _SHAPES, 0.0, _nodes(one))
        for one in told
    )


def planned(text: str) -> dict[str, int]:
    """Layers by the precision that the builder planned them in, from the list it logs when a plan is done.

    So much can be known where there is no device to ask an engine: FP16 asked for and FP32 built shows here.
    """
    found = (_precision(_logged(line)) for line in text.splitlines() if line.startswith(("Name: ", "Layer(")))
    return dict(Counter(precision for precision in found if precision))


def timed(layers: Iterable[Layer], times: Mapping[str, list[float]]) -> tuple[Layer, ...]:
    """The layers that ran, each with the median of its times in milliseconds, in the order they first ran."""
    about = {layer.name: layer for layer in layers}
    return tuple(
        Layer(name, known.kind, known.precision, round(median(spent), 6), known.nodes)
        for name, spent in times.items()
        for known in (about.get(name, Layer(name, "unknown", "", 0.0)),)
    )


def _precision(layer: Mapping[str, Any]) -> str:
    """What a layer computes in, by the types of what it reads; its sums are of another type as a rule.

    Eight bits are computed in where something multiplies and its first input has them: weights alone may be stored so,
    to be widened on their way, and additions and moves that take 8-bit values in compute nothing in them. What only
    moves them is told as ``uint8``: they are bytes to it. Where no float and no 8-bit value is read, the first type
    counts.
    """
    inputs, constants, outputs = (_types(layer, part) for part in (("Inputs",), ("Constants", "Weights"), ("Outputs",)))
    if _multiplies(layer) and inputs[:1] and inputs[0] in _NARROW:
        return inputs[0]
    read = [*inputs, *constants]
    floats = [kind for kind in read if kind in _FLOATS]
    if not floats and set(read) & _NARROW:
        floats = [kind for kind in outputs if kind in _FLOATS] or [_BYTES]
    return max(floats, key=_boldness) if floats else next(iter([*read, *outputs]), "")


def _multiplies(layer: Mapping[str, Any]) -> bool:
    kind = str(layer.get("LayerType", ""))
    if kind == _GENERATED:
        return bool(_GENERATED_PRODUCTS.search(str(layer.get("Name", ""))))
    return bool(_PRODUCTS.search(kind))


def _boldness(kind: str) -> int:
    return _COMPUTED.index(Precision(kind)) if kind in _COMPUTED else -1


def _types(layer: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    found = (layer.get(part) or () for part in parts)
    tensors = (tensor for one in found for tensor in ([one] if isinstance(one, dict) else one))
    return [kind for kind in map(_type, tensors) if kind]


def _type(tensor: Any) -> str:
    words = " ".join(str(tensor.get(key, "")) for key in ("Datatype", "Format/Datatype", "Type")) if tensor else ""
    return next((name for pattern, name in _TYPES if pattern.search(words)), "")


def _logged(line: str) -> dict[str, Any]:
    """One line of the list: ``Name: a, LayerType: gemm, Inputs: [ { ... } ], ...``."""
    about = re.match(r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>[^,]*)", line)
    return {part: _words(line, part) for part in ("Inputs", "Constants", "Outputs")} | (
        about.groupdict() if about else {}
    )


def _words(line: str, part: str) -> list[dict[str, str]]:
    """The types that one part of a logged layer names: ``Inputs: [ { Name: x, Datatype: Half, ... }]``."""
    _, _, rest = line.partition(f"{part}: [")
    inside = re.split(r"\], (?:Constants|Outputs|TacticName|StreamId)", rest, maxsplit=1)[0]
    return [{"Datatype": word} for word in re.findall(r"(?:Datatype|Format/Datatype): ([^,}]+)", inside)]


def _nodes(layer: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_NODE.findall(str(layer.get("Metadata", "")))))
