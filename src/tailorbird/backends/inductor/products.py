"""INT8 and FP8: linear layers as products of 8-bit matrices, scaled by row and by channel.

Weights are quantised symmetrically by output channel, once; activations by row, as they come, so that a row's answer
does not depend on its neighbours and nothing is calibrated (Dettmers et al. 2022, "vector-wise quantisation";
cuBLAS and oneDNN scale the same way). INT8 sums in INT32, FP8 (E4M3) in FP32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tailorbird.domain.precision import Precision

LEAST = 64
"""Input and output features below which a product in eight bits cannot pay for scaling its rows."""
_STEP = 16
"""Multiple that cuBLAS wants both sizes to be of (``torch._scaled_mm``, ``torch._int_mm``)."""


def quantise_linears(module: Any, precision: Precision) -> int:
    """Replace every linear layer with constant weights that is large enough, in place.

    Args:
        module: a ``torch.fx.GraphModule`` whose weights are its attributes, in the float of the rest.
        precision: INT8 or FP8.

    Returns:
        How many there were.
    """
    import torch

    kinds = {Precision.INT8: _int8_linear, Precision.FP8: _fp8_linear}
    count = 0
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.aten.linear.default:
            continue
        weight = _constant(module, node.args[1])
        if weight is None or not _worth_it(weight):
            continue
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        if bias is not None and _constant(module, bias) is None:  # computed: it cannot become part of the layer
            continue
        name = f"tailorbird_linear_{count}"
        module.add_submodule(name, kinds[precision]()(weight, _constant(module, bias)))
        with module.graph.inserting_before(node):
            new = module.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
        count += 1
    module.graph.eliminate_dead_code()
    module.recompile()
    return count


def _worth_it(weight: Any) -> bool:
    return weight.ndim == 2 and all(size >= LEAST and size % _STEP == 0 for size in weight.shape)


def _constant(module: Any, node: Any) -> Any:
    if node is None or getattr(node, "op", "") != "get_attr":
        return None
    path, _, last = node.target.rpartition(".")
    return getattr(module.get_submodule(path), last)


def _by_channel(weight: Any, most: float) -> tuple[Any, Any]:
    """A weight [out, in] scaled so that each row's largest is ``most``, and the scales [out], in FP32."""
    import torch

    exact = weight.detach().to(torch.float32)
    scale = exact.abs().amax(1).clamp_min(1e-12) / most
    return exact / scale[:, None], scale


@cache
def _int8_linear() -> Any:
    import torch

    class Int8Linear(torch.nn.Module):
        """``x @ weight.T + bias`` with both rounded to INT8."""

        def __init__(self, weight: Any, bias: Any) -> None:
            super().__init__()
            scaled, scale = _by_channel(weight, 127.0)
            self.register_buffer("weight", scaled.round().clamp(-127, 127).to(torch.int8).contiguous())
            self.register_buffer("scale", scale)
            self.register_buffer("bias", None if bias is None else bias.detach().clone())

        def forward(self, x: Any) -> Any:
            rows = x.reshape(-1, x.shape[-1])
            step = rows.abs().amax(1, keepdim=True).to(torch.float32).clamp_min(1e-12) / 127.0
            rounded = torch.round(rows / step).clamp(-127, 127).to(torch.int8)
            sums = torch._int_mm(rounded, self.weight.t())
            y = (sums.to(torch.float32) * step * self.scale).to(x.dtype)
            y = y if self.bias is None else y + self.bias
            return y.reshape(*x.shape[:-1], self.scale.shape[0])

    return Int8Linear


@cache
def _fp8_linear() -> Any:
    import torch

    kind = torch.float8_e4m3fn
    most = float(torch.finfo(kind).max)

    class Fp8Linear(torch.nn.Module):
        """``x @ weight.T + bias`` with both rounded to FP8 (E4M3); the product itself gives out BF16."""

        def __init__(self, weight: Any, bias: Any) -> None:
            super().__init__()
            scaled, scale = _by_channel(weight, most)
            self.register_buffer("weight", scaled.clamp(-most, most).to(kind).contiguous())
            self.register_buffer("scale", scale[None, :].contiguous())
            self.register_buffer("bias", None if bias is None else bias.detach().clone())

        def forward(self, x: Any) -> Any:
            rows = x.reshape(-1, x.shape[-1])
            step = rows.abs().amax(1, keepdim=True).to(torch.float32).clamp_min(1e-12) / most
            rounded = (rows.to(torch.float32) / step).clamp(-most, most).to(kind)
            y = torch._scaled_mm(rounded, self.weight.t(), scale_a=step, scale_b=self.scale, out_dtype=torch.bfloat16)
            y = y.to(x.dtype)
            y = y if self.bias is None else y + self.bias
            return y.reshape(*x.shape[:-1], self.scale.shape[1])

    return Fp8Linear
