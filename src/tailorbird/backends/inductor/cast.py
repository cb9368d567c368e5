"""FP16 and BF16: a graph module's weights, constants and type arguments brought to another float, in place."""

from __future__ import annotations

from typing import Any


def cast_module(module: Any, dtype: Any) -> None:
    """Bring every FP32 tensor and type of a module from :func:`torch.export` to a lower float.

    Numbers beyond the type's range become its largest: transformers mask with the least FP32, which is -inf in FP16,
    and a row that is masked throughout would be NaN. Operators that PyTorch computes in FP32 inside (softmax, layer
    norm) still are; what else the lower float costs is the gate's business.

    Args:
        module: a ``torch.fx.GraphModule`` whose weights are its attributes.
        dtype: ``torch.float16`` or ``torch.bfloat16``.
    """
    import torch

    limit = float(torch.finfo(dtype).max)
    drop_type_checks(module)
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.args = _replaced(node.args, torch.float32, dtype, limit)
            node.kwargs = _replaced(node.kwargs, torch.float32, dtype, limit)
    for name in {node.target for node in module.graph.nodes if node.op == "get_attr"}:
        _cast_attribute(module, name, dtype, limit)
    module.recompile()


def drop_type_checks(module: Any) -> None:
    """Remove assertions that ``torch.export`` writes before conversions: types and devices change on purpose."""
    import torch

    check = torch.ops.aten._assert_tensor_metadata.default
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target is check:
            module.graph.erase_node(node)


def _replaced(value: Any, old: Any, new: Any, limit: float) -> Any:
    """Arguments, however nested, with one type for another and every float within the limit."""
    if isinstance(value, dict):
        return {key: _replaced(one, old, new, limit) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(one, old, new, limit) for one in value)
    if value is old:
        return new
    if isinstance(value, float) and limit < abs(value) < float("inf"):
        return limit if value > 0 else -limit
    return value


def _cast_attribute(module: Any, name: str, dtype: Any, limit: float) -> None:
    import torch

    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    tensor = getattr(owner, last)
    if not isinstance(tensor, torch.Tensor) or tensor.dtype is not torch.float32:
        return
    within = torch.where(tensor.isinf(), tensor, tensor.clamp(-limit, limit)).to(dtype)
    set_tensor(owner, last, within)


def set_tensor(owner: Any, name: str, tensor: Any) -> None:
    """Replace a tensor attribute, whatever it was: a parameter, a buffer, or a plain one."""
    import torch

    if name in owner._parameters:
        setattr(owner, name, torch.nn.Parameter(tensor, requires_grad=False))
    else:
        setattr(owner, name, tensor)
