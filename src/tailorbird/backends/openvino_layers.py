"""OpenVINO's layers: what the runtime model tells of each, and which nodes of the engine's graph it stands for.

The runtime model names what was fused at last, and leaves out what graph rewrites swallowed before: the product under
a bias, the inside of a GELU. What is computed for one layer alone, and by no other that says so, is part of that layer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Facts = dict[str, str]
"""All that is said of a layer, with its ``name``."""

COMPUTING = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNCell", "RNNSeq"})
"""Layers that multiply. Any other one of bytes only moves them: a picture's, say."""

_NOT_LAYERS = frozenset({"Input", "Output", "Const", "Parameter", "Result", "Constant"})
_MULTIPLYING = frozenset({"Convolution", "ConvolutionBackpropData", "GroupConvolution", "MatMul"})
"""Operators that no nameless layer stands for."""

_PART = re.compile(r"/(WithoutBiases|transpose_[ab]|Dequantization\w+)$")
"""What the ONNX reader and the plugin put behind a node's name for the parts that they make of it."""
_SMOOTHED = re.compile(r"_\d+_\d+/nncf_smooth_quant$")
"""What NNCF puts behind the name of a node whose output it scales: the scaling may be fused into that node."""
_FAKE = re.compile(r"/fq_\w+$")
"""NNCF's quantisers: no part of any node."""


def executed_layers(compiled: Any) -> list[Facts]:
    """The runtime model's layers in execution order."""
    found = []
    for node in compiled.get_runtime_model().get_ops():
        facts = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        if facts["layerType"] not in _NOT_LAYERS:
            found.append({**facts, "name": node.get_friendly_name()})
    return sorted(found, key=lambda facts: int(facts["execOrder"]))


def stands_for(layers: Sequence[Facts], graph: Any) -> list[tuple[str, ...]]:
    """Of each layer, the names of the graph's nodes that it stands for.

    Args:
        layers: those that ran, in execution order.
        graph: the model that was compiled.
    """
    parts = [dict.fromkeys(_said(facts)) for facts in layers]
    _add_swallowed(parts, layers, graph)
    return [tuple(dict.fromkeys(_node(name, facts) for name in part if not _FAKE.search(name)))
            for part, facts in zip(parts, layers, strict=True)]  # fmt: skip


def _said(facts: Facts) -> list[str]:
    return [name for name in facts["originalLayersNames"].split(",") if name]


def _node(name: str, facts: Facts) -> str:
    """What the reader and the optimisers made of a node counts as that node."""
    plain = _PART.sub("", name)
    return _SMOOTHED.sub("", plain) if facts["layerType"] in COMPUTING else plain


def _add_swallowed(parts: Sequence[dict[str, None]], layers: Sequence[Facts], graph: Any) -> None:
    """Give nodes that no layer names to the one layer that all their readers belong to."""
    owners = {name: number for number, part in enumerate(parts) for name in part}
    known = Counter(op.get_friendly_name() for op in graph.get_ops())
    for op in reversed(graph.get_ordered_ops()):
        name = op.get_friendly_name()
        if name in owners or known[name] > 1 or op.get_type_name() in _NOT_LAYERS:
            continue
        readers = {owners.get(reader, -1) for reader in _readers(op)}
        number = readers.pop() if len(readers) == 1 else -1
        if number >= 0 and (op.get_type_name() in _MULTIPLYING or not _follows_unknown(number, layers, known)):
            owners[name] = number
            parts[number][name] = None


def _readers(op: Any) -> Iterable[str]:
    return (place.get_node().get_friendly_name() for port in op.outputs() for place in port.get_target_inputs())


def _follows_unknown(number: int, layers: Sequence[Facts], known: Counter[str]) -> bool:
    """Whether the layer before says that it stands for something, but nothing of this graph: maybe for this node."""
    before = _said(layers[number - 1]) if number else []
    return bool(before) and not any(name in known for name in before)
