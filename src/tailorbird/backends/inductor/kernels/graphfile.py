"""Graphs as JSON and weights as safetensors: nothing in either is code, and operators are looked up by name.

A graph is a list of nodes. An argument is a number, a string, null, a list, or an object that names a node, a type, a
device, a layout or a memory format.
"""

from __future__ import annotations

import operator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.inductor.kernels.operators import OPERATORS
from tailorbird.backends.inductor.restructure.editing import torch
from tailorbird.domain.errors import BackendError

GRAPH = "graph.json"
WEIGHTS = "weights.safetensors"


def save(graph_module: Any, folder: Path) -> None:
    """Write a graph whose nodes are inputs, weights, ATen operators and fused operators.

    Raises:
        BackendError: it holds anything else.
    """
    nodes, weights = [], {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            weights[node.name] = operator.attrgetter(node.target)(graph_module).detach().contiguous().cpu()
        nodes.append([node.op, node.name, _target(node), _plain(node.args), _plain(dict(node.kwargs))])
    (folder / GRAPH).write_bytes(msgspec.json.encode(nodes))
    weights = {name: value.clone() for name, value in weights.items()}  # two names must not share memory
    import_module("safetensors.torch").save_file(weights, str(folder / WEIGHTS))


def load(folder: Path, device: str) -> Any:
    """Read a graph back as a ``GraphModule`` with its weights on a device."""
    weights = import_module("safetensors.torch").load_file(str(folder / WEIGHTS), device=device)
    fx = torch().fx
    graph, known = fx.Graph(), {}
    root = torch().nn.Module()
    for op, name, target, args, kwargs in msgspec.json.decode((folder / GRAPH).read_bytes()):
        if op == "get_attr":
            root.register_buffer(name, weights[name])
            known[name] = graph.get_attr(name)
            continue
        given = _built(args, known, device), _built(kwargs, known, device)
        known[name] = graph.create_node(op, _function(target) if op == "call_function" else target, *given, name)
    return fx.GraphModule(root, graph)


def _target(node: Any) -> str:
    if node.op in {"placeholder", "output", "get_attr"}:
        return str(node.target)
    name = getattr(node.target, "__name__", "")
    if OPERATORS.get(name) is node.target:
        return f"tailorbird::{name}"
    if node.target is operator.getitem:
        return "operator::getitem"
    if node.op == "call_function" and callable(getattr(node.target, "name", None)):
        return f"{node.target.name().partition('.')[0]}.{node.target._overloadname}"
    raise BackendError("the graph holds what cannot be written", got=f"{node.op} {node.target}",
                       expected="inputs, weights and operators")  # fmt: skip


def _function(target: str) -> Any:
    space, _, name = target.partition("::")
    if space == "tailorbird":
        return OPERATORS[name]
    if space == "operator":
        return operator.getitem
    if space != "aten":
        raise BackendError("the graph names an operator that is not PyTorch's", got=target)
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch().ops.aten, packet), overload)


_WORDS = ("dtype", "layout", "memory_format")


def _plain(value: Any) -> Any:
    if isinstance(value, torch().fx.Node):
        return {"node": value.name}
    if isinstance(value, torch().device):
        return {"device": value.type}
    for word in _WORDS:
        if isinstance(value, getattr(torch(), word)):
            return {word: str(value).removeprefix("torch.")}
    if isinstance(value, dict):
        return {"items": {key: _plain(one) for key, one in value.items()}}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {"float": str(value)} if isinstance(value, float) else value


def _built(value: Any, known: dict[str, Any], device: str) -> Any:
    if isinstance(value, list):
        return tuple(_built(one, known, device) for one in value)
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "items":
        return {key: _built(one, known, device) for key, one in inner.items()}
    simple: dict[str, Any] = {"node": known.get, "device": lambda _: torch().device(device), "float": float}
    return simple[kind](inner) if kind in simple else getattr(torch(), inner)
