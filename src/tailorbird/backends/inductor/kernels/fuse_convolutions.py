"""Convolutions with bias, residual and ReLU; a block's last 1x1 with its shortcut; pictures in, means out."""

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.kernels import operators
from tailorbird.backends.inductor.restructure.editing import (
    add_constant,
    arguments,
    calls,
    constant,
    dtype_of,
    fixed_shape,
    only_user,
    operator_of,
    replace,
    torch,
)

Layer = dict[str, Any]


def fuse_convolutions(graph_module: Any) -> int:
    """Every plain convolution, with as much of what follows it as one kernel can do."""
    count = 0
    for node in calls(graph_module.graph, "aten::relu"):
        source = node.args[0]
        if only_user(source) is not node:
            continue
        if operator_of(source) == "aten::add":
            count += _fuse_sum(graph_module, node, source)
        elif (layer := _layer(graph_module, source)) is not None:
            count += _fuse(graph_module, node, layer, None, "relu")
    graph_module.graph.eliminate_dead_code()
    for node in calls(graph_module.graph, "aten::conv2d"):
        if (layer := _layer(graph_module, node)) is not None:
            count += _fuse(graph_module, node, layer, None, "")
    return count


def fuse_pictures(graph_module: Any) -> int:
    """Pooling over windows, and the mean over all pixels."""
    count = 0
    for node in calls(graph_module.graph, "aten::max_pool2d"):
        given = arguments(node)
        window = [set(given[name]) for name in ("kernel_size", "stride", "padding")]
        if all(len(one) == 1 for one in window) and set(given["dilation"]) == {1} and not given["ceil_mode"]:
            replace(node, operators.max_pool, given["self"], *(next(iter(one)) for one in window))
            count += 1
    for node in calls(graph_module.graph, "aten::flatten", "aten::reshape"):
        count += _fuse_mean(node)
    return count


def _fuse_mean(node: Any) -> int:
    pooled = node.args[0]
    shape = fixed_shape(pooled)
    if operator_of(pooled) != "aten::adaptive_avg_pool2d" or only_user(pooled) is not node or shape is None:
        return 0
    if shape[2:] != (1, 1) or fixed_shape(node) != shape[:2]:
        return 0
    replace(node, operators.mean_pool, pooled.args[0])
    return 1


def _fuse_sum(graph_module: Any, node: Any, total: Any) -> int:
    """ReLU of a sum: of two convolutions of one pixel each, or of a convolution and anything of its shape."""
    if len(total.args) != 2 or total.kwargs:
        return 0
    shapes = {fixed_shape(one) for one in (total, *total.args)}
    if len(shapes) != 1 or None in shapes:  # a kernel adds elements of one place, and broadcasts nothing
        return 0
    layers = [_layer(graph_module, one) if only_user(one) is total else None for one in total.args]
    if all(layers):
        by_stride = sorted((layer for layer in layers if layer), key=lambda layer: int(layer["stride"]))
        if _is_pair(by_stride):
            return _fuse_pair(graph_module, node, *by_stride)
    for layer, residual in zip(layers, total.args[::-1], strict=True):
        if layer is not None and layer["channels"] > 4:
            return _fuse(graph_module, node, layer, residual, "relu")
    return 0


def _is_pair(layers: list[Layer]) -> bool:
    plain = all(layer["kernel"] == (1, 1) and layer["padding"] == 0 for layer in layers)
    return plain and layers[0]["stride"] == 1


def _fuse_pair(graph_module: Any, node: Any, main: Layer, shortcut: Layer) -> int:
    def flat(layer: Layer, name: str) -> Any:
        return add_constant(graph_module, node, name, layer["weight"].flatten(1))

    weights = flat(main, "pair_weight"), flat(shortcut, "pair_shortcut")
    bias = add_constant(graph_module, node, "pair_bias", main["bias"] + shortcut["bias"])
    replace(node, operators.conv_pair, main["input"], weights[0], shortcut["input"], weights[1], bias,
            shortcut["stride"], "relu")  # fmt: skip
    return 1


def _fuse(graph_module: Any, node: Any, layer: Layer, residual: Any, activation: str) -> int:
    bias = add_constant(graph_module, node, "conv_bias", layer["bias"])
    window = (layer["stride"], layer["padding"], activation)
    if _is_first(layer) and residual is None:
        out, channels, height, width = layer["weight"].shape
        packed = layer["weight"].new_zeros((out, height, 8, 4))
        packed[:, :, :width, :channels] = layer["weight"].permute(0, 2, 3, 1)
        weight = add_constant(graph_module, node, "first_weight", packed)
        replace(node, operators.conv_first, _uncast(layer["input"]), weight, bias, width, *window)
        return 1
    channels_last = layer["weight"].permute(0, 2, 3, 1).contiguous()
    weight = add_constant(graph_module, node, "conv_weight", channels_last)
    replace(node, operators.conv, layer["input"], weight, bias, residual, *window)
    return 1


def _is_first(layer: Layer) -> bool:
    return bool(layer["channels"] <= 4 and layer["kernel"][1] <= 8)


def _uncast(node: Any) -> Any:
    """Pictures as they came: the kernel casts while it reads."""
    is_cast = operator_of(node) == "aten::to" and node.target._overloadname == "dtype"
    source = node.args[0] if is_cast else node
    floating = dtype_of(source) is not None and dtype_of(source).is_floating_point
    return source if floating else node


def _layer(graph_module: Any, node: Any) -> Layer | None:
    """What a convolution is made of, where it is one that kernels take; None elsewhere."""
    if operator_of(node) != "aten::conv2d":
        return None
    given = arguments(node)
    weight, bias = constant(graph_module, given["weight"]), constant(graph_module, given["bias"])
    if isinstance(given["padding"], str) or (bias is None) != (given["bias"] is None):
        return None
    window = [set(given[name]) for name in ("stride", "padding")]
    if weight is None or any(len(one) != 1 for one in window) or set(given["dilation"]) != {1} or given["groups"] != 1:
        return None
    if bias is None:
        bias = torch().zeros(len(weight), dtype=weight.dtype, device=weight.device)
    stride, padding = (next(iter(one)) for one in window)
    return {"input": given["input"], "weight": weight, "bias": bias, "stride": stride, "padding": padding,
            "kernel": tuple(weight.shape[2:]), "channels": weight.shape[1]}  # fmt: skip
