"""Graphs as JSON and weights as safetensors: nothing in either is code, and operators are looked up by name.

A graph is a list of nodes. An argument is a number, a string, null, a list, or an object that names a node, a type, a
device, a layout or a memory format. Names become variables of the Python that FX makes of a graph and executes, so all
of them must be identifiers.
"""

from __future__ import annotations

import operator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.graphtext import is_operator
from tailorbird.backends.inductor.kernels.operators import OPERATORS
from tailorbird.backends.inductor.restructure.editing import torch
from tailorbird.domain.errors import BackendError

GRAPH = "graph.json"
WEIGHTS = "weights.safetensors"

_OWN = "tailorbird::"

_Node = tuple[str, str, str, Any, Any]
"""What it does, its name, what it calls or reads, its arguments, and those with names."""


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
    """Read a graph back as a ``GraphModule`` with its weights on a device.

    Raises:
        BackendError: it holds what :func:`save` does not write.
    """
    weights = import_module("safetensors.torch").load_file(str(folder / WEIGHTS), device=device)
    fx = torch().fx
    graph, known = fx.Graph(), {}
    root = torch().nn.Module()
    for op, name, target, args, kwargs in _nodes(folder, weights):
        if op == "get_attr":
            root.register_buffer(name, weights[name])
            known[name] = graph.get_attr(name)
            continue
        given = _built(args, known, device), _built(kwargs, known, device)
        if target.startswith(_OWN):
            _check_activations((*given[0], *given[1].values()))
        known[name] = graph.create_node(op, _function(target) if op == "call_function" else target, *given, name)
    return fx.GraphModule(root, graph)


_ACTIVATIONS = ("", "gelu", "gelu_fast", "gelu_tanh", "relu", "tanh")
"""See :mod:`~tailorbird.backends.inductor.kernels.operators`, which looks them up in ``torch``."""


def _check_activations(given: tuple[Any, ...]) -> None:
    if strange := [one for one in given if isinstance(one, str) and one not in _ACTIVATIONS]:
        raise BackendError("the graph names an activation that is none", got=ascii(strange[0][:80]),
                           expected=", ".join(_ACTIVATIONS[1:]))  # fmt: skip


_OPS = ("placeholder", "get_attr", "call_function", "output")


def _nodes(folder: Path, weights: dict[str, Any]) -> list[_Node]:
    try:
        nodes = msgspec.json.decode((folder / GRAPH).read_bytes(), type=list[_Node])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackendError("the graph cannot be read", got=error) from None
    for op, name, target, *_ in nodes:
        if op not in _OPS or (op == "get_attr" and name not in weights):
            raise BackendError("the graph holds what is never written", got=ascii(f"{op} {name}"[:80]),
                               expected="inputs, weights and operators")  # fmt: skip
        _identifier(name)
        if op == "placeholder":
            _identifier(target)
    return nodes


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise BackendError("the graph holds a name that is none", got=ascii(name[:80]), expected="an identifier")
    return name


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
    if space == "tailorbird" and name in OPERATORS:
        return OPERATORS[name]
    if space == "operator":
        return operator.getitem
    packet, _, overload = name.partition(".")
    if space != "aten" or not is_operator(space, packet, overload):
        raise BackendError("the graph names an operator that is not PyTorch's", got=target)
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
        return {_identifier(key): _built(one, known, device) for key, one in inner.items()}
    simple: dict[str, Any] = {"node": known.get, "device": lambda _: torch().device(device), "float": float}
    return simple[kind](inner) if kind in simple else _word(kind, inner)


def _word(kind: str, name: str) -> Any:
    """``torch.float32`` and the like: of all that the package holds, only what is of that kind."""
    found = getattr(torch(), name, None) if kind in _WORDS else None
    if found is None or not isinstance(found, getattr(torch(), kind)):
        raise BackendError("the graph holds what is never written", got=ascii(f"{kind} {name}"[:80]),
                           expected=", ".join(_WORDS))  # fmt: skip
    return found
