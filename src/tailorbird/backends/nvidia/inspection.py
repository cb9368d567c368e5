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
    found = (_precision({part: _words(line, part) for part in ("Inputs", "Constants", "Outputs")})
             for line in text.splitlines() if line.startswith(("Name: ", "Layer(")))  # fmt: skip
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
    """The boldest of the types that it reads: what multiplies INT8 gives out sums of another type.

    Where it reads no float and no INT8, it is the first type of what it reads or writes.
    """
    read = [kind for part in ("Inputs", "Constants") for kind in map(_type, layer.get(part) or ()) if kind]
    computed = [Precision(kind) for kind in read if kind in _COMPUTED]
    if computed:
        return str(max(computed, key=_COMPUTED.index))
    return next(iter([*read, *filter(None, map(_type, layer.get("Outputs") or ()))]), "")


def _type(tensor: Any) -> str:
    words = " ".join(str(tensor.get(key, "")) for key in ("Datatype", "Format/Datatype")) if tensor else ""
    return next((name for pattern, name in _TYPES if pattern.search(words)), "")


def _words(line: str, part: str) -> list[dict[str, str]]:
    """The types that one part of a logged layer names: ``Inputs: [ { Name: x, Datatype: Half, ... }]``."""
    _, _, rest = line.partition(f"{part}: [")
    inside = re.split(r"\], (?:Constants|Outputs|TacticName|StreamId)", rest, maxsplit=1)[0]
    return [{"Datatype": word} for word in re.findall(r"(?:Datatype|Format/Datatype): ([^,}]+)", inside)]


def _nodes(layer: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_NODE.findall(str(layer.get("Metadata", "")))))
