"""Programs that look like a pattern and are none: each computes afterwards what it computed before."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tailorbird.backends.inductor.kernels import operators
from tailorbird.backends.inductor.kernels.fuse import fused
from tailorbird.backends.inductor.products import quantise_linears
from tailorbird.backends.inductor.restructure import restructured
from tailorbird.domain.precision import Precision


class Says(nn.Module):
    """A module made of one function."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*self.layers, *inputs)


def exported(module: nn.Module, *inputs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module.eval(), inputs, strict=False)


def same(module: nn.Module, inputs: tuple[Any, ...], precision: Precision = Precision.FP32) -> Any:
    """The restructured and fused graph, once its answers are the program's."""
    graph = fused(restructured(exported(module, *inputs), "cpu", precision, list(inputs)))
    with torch.no_grad():
        wanted, got = module(*inputs), graph(*inputs)
    got = got[0] if isinstance(got, (tuple, list)) else got
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    torch.testing.assert_close(got, wanted, atol=1e-2 if precision is Precision.FP16 else 1e-4, rtol=1e-2)
    return graph


def conv(inner: int = 32, outer: int = 32) -> nn.Module:
    return nn.Conv2d(inner, outer, 1)


def pooled(x: Any) -> Any:
    return functional.adaptive_avg_pool2d(x, 1)


def test_a_sum_that_broadcasts_is_no_pair_of_convolutions() -> None:
    module = Says(lambda a, b, x: torch.relu(a(x) + b(pooled(x))), conv(), conv())
    graph = same(module, (torch.randn(2, 32, 6, 6),))
    assert not [node for node in graph.graph.nodes if node.target is operators.conv_pair]


def test_a_convolution_smaller_than_what_is_added_keeps_its_sum() -> None:
    same(Says(lambda a, x: torch.relu(a(pooled(x)) + x), conv()), (torch.randn(2, 32, 6, 6),))


def test_truth_and_a_number_is_no_number() -> None:
    def count(x: Any) -> Any:
        return torch.logical_and(x, torch.ones_like(x, dtype=torch.bool)).sum()

    same(Says(count), (torch.tensor([[3, 0, 7]]),))


def test_a_view_in_another_type_stays() -> None:
    same(Says(lambda x: x.view(torch.int32) + 1), (torch.randn(2, 4),))


def test_a_cast_that_may_return_its_input_is_not_written_to_apart() -> None:
    def twice(x: Any, z: Any) -> Any:
        x = x * 1.5
        y = x.type_as(z)
        y.add_(1.0)
        return x + y

    same(Says(twice), (torch.randn(3), torch.randn(3)))


def test_a_mask_beyond_fp16_masks_and_makes_no_nan() -> None:
    """A row that may look at nothing: with -inf its softmax would be NaN."""
    mask = torch.full((4, 4), torch.finfo(torch.float32).min)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, x: Any) -> Any:
            return torch.softmax(x + self.mask, -1)

    same(Masked(), (torch.randn(2, 4, 4),), Precision.FP16)


def test_an_input_that_the_program_casts_meets_weights_of_its_type() -> None:
    module = Says(lambda layer, x: layer(x.float() / 255), nn.Linear(8, 8))
    same(module, (torch.randint(0, 255, (2, 8), dtype=torch.uint8),), Precision.FP16)


def test_a_slice_from_the_end_is_where_it_was() -> None:
    def attention(layer: Any, x: Any) -> Any:
        heads = [part.unflatten(-1, (2, 16)).transpose(1, 2) for part in (layer(x)[..., :32], layer(x)[..., 32:64])]
        values = layer(x)[..., -32:].unflatten(-1, (2, 16)).transpose(1, 2)
        return functional.scaled_dot_product_attention(*heads, values).transpose(1, 2).flatten(2)

    same(Says(attention, nn.Linear(32, 96)), (torch.randn(2, 5, 32),))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_linear_layer_whose_bias_is_computed_stays(precision: Precision) -> None:
    layer = nn.Linear(256, 256)
    module = Says(lambda one, x: functional.linear(x, one.weight, one.bias * 0.5), layer)
    graph = exported(module, torch.randn(2, 256)).module()
    assert quantise_linears(graph, precision) == 0
