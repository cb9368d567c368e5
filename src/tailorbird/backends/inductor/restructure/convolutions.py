"""Batch norm that follows a convolution becomes part of the convolution's weights."""

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.restructure.editing import (
    add_constant,
    arguments,
    calls,
    constant,
    only_user,
    operator_of,
    replace,
    take_place,
    torch,
)
from tailorbird.backends.inductor.restructure.flatten import is_inference

_CONVOLUTIONS = ("aten::conv2d", "aten::conv1d", "aten::conv3d")


def fold_batch_norms(graph_module: Any) -> int:
    """Scale a convolution's weights by what its batch norm would have scaled its outputs by.

    With s = gamma / sqrt(variance + eps): weights w * s, bias (b - mean) * s + beta (Jacob et al. 2018, section 3.2);
    computed in FP64.

    Returns:
        How many were folded.
    """
    count = 0
    for node in calls(graph_module.graph, "aten::batch_norm"):
        convolution = node.args[0]
        if operator_of(convolution) in _CONVOLUTIONS and only_user(convolution) is node and is_inference(node):
            count += _fold(graph_module, convolution, node)
    return count


def _fold(graph_module: Any, convolution: Any, norm: Any) -> int:
    given, scaling = arguments(convolution), arguments(norm)
    weight, bias = constant(graph_module, given["weight"]), constant(graph_module, given["bias"])
    statistics = [constant(graph_module, scaling[name]) for name in ("weight", "bias", "running_mean", "running_var")]
    if weight is None or (bias is None) != (given["bias"] is None) or statistics[2] is None or statistics[3] is None:
        return 0
    new_weight, new_bias = _folded(weight, bias, statistics, scaling["eps"])
    weight_node = add_constant(graph_module, convolution, "folded_weight", new_weight)
    bias_node = add_constant(graph_module, convolution, "folded_bias", new_bias)
    rest = {name: value for name, value in given.items() if name not in {"input", "weight", "bias"}}
    new = replace(convolution, convolution.target, given["input"], weight_node, bias_node, *rest.values())
    take_place(norm, new)
    return 1


def _folded(weight: Any, bias: Any, statistics: list[Any], eps: float) -> tuple[Any, Any]:
    doubles: list[Any] = [None if one is None else one.double() for one in statistics]
    gamma, beta, mean, variance = doubles
    scale = torch().rsqrt(variance + eps)
    scale = scale if gamma is None else scale * gamma
    shift = -mean if bias is None else bias.double() - mean
    shift = shift * scale if beta is None else shift * scale + beta
    shape = (-1, *[1] * (weight.dim() - 1))
    return (weight.double() * scale.reshape(shape)).to(weight.dtype), shift.to(weight.dtype)


def weights_channels_last(graph_module: Any) -> int:
    """Lay out the weights of 2-D convolutions channels last: the layout that tensor cores read without a copy."""
    count = 0
    for node in calls(graph_module.graph, "aten::conv2d"):
        source = arguments(node)["weight"]
        weight = constant(graph_module, source)
        if weight is not None:
            new = add_constant(graph_module, node, "channels_last_weight", weight)
            last = weight.contiguous(memory_format=torch().channels_last)
            setattr(graph_module, new.target, last)
            node.replace_input_with(source, new)
            count += 1
    return count
