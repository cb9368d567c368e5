"""What each operator of a compiled graph computes in, by the types of what it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_WORDS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}
_MOVES = frozenset(
    f"aten::{name}"
    for name in (
        *("view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "slice", "select"),
        *("clone", "contiguous", "detach", "alias", "to", "_to_copy", "flatten", "_unsafe_view"),
    )
)
"""Operators that only move, shape or convert: they compute nothing."""


def layers_of(program: Any) -> dict[str, str]:
    """Words for the operators of an exported program, from the types that tracing recorded.

    PyTorch's types are strict: what an operator takes is what its kernel multiplies; sums are in FP32 or INT32.
    """
    return _named((node, _recorded(node)) for node in program.graph.nodes)


def layers_run(graph_module: Any, inputs: Sequence[Any]) -> dict[str, str]:
    """The same for a graph module, found out by running it once: its recorded types may be older than its casts."""
    import torch

    taken: list[tuple[Any, list[Any]]] = []

    class Watched(torch.fx.Interpreter):
        """Runs a graph node by node."""

        def run_node(self, node: Any) -> Any:
            given, named = self.fetch_args_kwargs_from_env(node)
            tensors = (one for one in (*given, *named.values()) if isinstance(one, torch.Tensor))
            taken.append((node, [one.dtype for one in tensors]))
            return super().run_node(node)

    with torch.no_grad():
        Watched(graph_module).run(*inputs)
    return _named(taken)


def _recorded(node: Any) -> list[Any]:
    return [one.meta["val"].dtype for one in node.all_input_nodes if hasattr(one.meta.get("val"), "dtype")]


def _named(taken: Iterable[tuple[Any, list[Any]]]) -> dict[str, str]:
    return {node.name: _word(node, dtypes) for node, dtypes in taken if dtypes and _computes(node)}


def _computes(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and (schema is None or schema.name not in _MOVES)


def _word(node: Any, dtypes: Sequence[Any]) -> str:
    """Products of 8-bit matrices take their scales in FP32 besides; elsewhere the widest float decides."""
    schema = getattr(node.target, "_schema", None)
    if any("float8" in str(dtype) for dtype in dtypes):
        return "fp8"
    if schema is not None and schema.name == "aten::_int_mm":
        return "int8"
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    name = str(max(floats, key=lambda dtype: dtype.itemsize, default=dtypes[0])).removeprefix("torch.")
    return _WORDS.get(name, name)
