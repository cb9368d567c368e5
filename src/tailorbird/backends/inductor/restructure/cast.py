"""A graph in half precision on a device: weights and inner values, never the types that the caller sees."""

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.restructure.editing import dtype_of, tidy, torch

_FLOATS = ("float32", "float64")


def cast(graph_module: Any, precision: str, device: str) -> Any:
    """Compute in another type, on another device; inputs and outputs keep their types.

    Args:
        graph_module: a flat graph whose nodes know their types; it is changed.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        device: ``cpu`` or ``cuda``.

    Returns:
        The same module, its weights on the device.
    """
    half = {"fp16": torch().float16, "bf16": torch().bfloat16}.get(precision)
    borders = set()
    if half is not None:
        _cast_weights(graph_module, half)
        borders = _cast_borders(graph_module, half)
    for node in graph_module.graph.nodes:
        kept = None if node in borders else half
        node.args, node.kwargs = _retyped((node.args, dict(node.kwargs)), kept, torch().device(device))
    return tidy(graph_module).to(device)


def _cast_weights(graph_module: Any, half: Any) -> None:
    for node in graph_module.graph.nodes:
        if node.op != "get_attr":
            continue
        owner, _, name = node.target.rpartition(".")
        module = graph_module.get_submodule(owner)
        value = getattr(module, name)
        if isinstance(value, torch().Tensor) and value.is_floating_point() and value.dtype != half:
            module._parameters.pop(name, None)
            module._buffers[name] = _in_range(value.detach(), half)


def _in_range(value: Any, half: Any) -> Any:
    """Numbers beyond the type's range become its ends: a row of a mask that is -inf everywhere would be NaN."""
    most = torch().finfo(half).max
    return torch().where(value.isinf(), value, value.clamp(-most, most)).to(half)


def _cast_borders(graph_module: Any, half: Any) -> set[Any]:
    """Casts behind inputs and before outputs; returns them."""
    made = set()
    graph, to = graph_module.graph, torch().ops.aten.to.dtype
    given = [node for node in graph.nodes if node.op == "placeholder"]
    for node in given:
        if _is_float(node) and node.users:
            with graph.inserting_after(given[-1]):
                new = graph.call_function(to, (node, half))
            node.replace_all_uses_with(new, delete_user_cb=lambda user, new=new: user is not new)
            made.add(new)
    output = next(node for node in graph.nodes if node.op == "output")
    for node in {node for node in output.all_input_nodes if _is_float(node)}:
        with graph.inserting_before(output):
            new = graph.call_function(to, (node, dtype_of(node)))
        output.replace_input_with(node, new)
        made.add(new)
    return made


def _is_float(node: Any) -> bool:
    return str(dtype_of(node)).removeprefix("torch.") in _FLOATS


def _retyped(tree: Any, half: Any, device: Any) -> Any:
    """Types and devices that the program named, as they are now; numbers beyond the type's range become its ends."""

    def changed(value: Any) -> Any:
        if isinstance(value, torch().device):
            return device
        if half is None:
            return value
        if isinstance(value, torch().dtype) and str(value).removeprefix("torch.") in _FLOATS:
            return half
        if isinstance(value, float) and abs(value) > torch().finfo(half).max and abs(value) != float("inf"):
            return torch().finfo(half).max * (1 if value > 0 else -1)
        return value

    return torch().utils._pytree.tree_map(changed, tree)
