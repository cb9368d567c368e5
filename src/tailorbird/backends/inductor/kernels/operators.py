"""Fused operators as plain PyTorch: what the kernels must compute, and what runs where no kernel fits.

Activations are named ``""``, ``gelu``, ``gelu_fast`` (GELU that may be off by 5e-4), ``gelu_tanh``, ``relu`` and
``tanh``. Feature maps have the shape [batch, channels, height, width] and lie channels last. Everything else is as in
``torch.nn.functional``.
"""
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tailorbird.backends.inductor.restructure.editing import torch

Operator = Callable[..., Any]


def activated(x: Any, activation: str) -> Any:
    """The activation of that name."""
    functional = torch().nn.functional
    if activation.startswith("gelu"):
        return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    return getattr(torch(), activation)(x) if activation else x


def linear(x: Any, weight: Any, bias: Any, activation: str) -> Any:
    """``act(x @ weight.T + bias)``; x is [..., in], weight [out, in]."""
    return activated(torch().nn.functional.linear(x, weight, bias), activation)


def linear_wide(x: Any, weight: Any, bias: Any, activation: str) -> Any:
    """The same in FP32, whatever the type of the operands."""
    return linear(x, weight, bias, activation).float()


def linear_norm_wide(x: Any, weight: Any, bias: Any, residual: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """:func:`linear_norm` as it is, and in FP32."""
    normed = linear_norm(x, weight, bias, residual, gamma, beta, eps)
    return normed, normed.float()


def linear_norm(x: Any, weight: Any, bias: Any, residual: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Layer norm of ``x @ weight.T + bias + residual``."""
    return linear_sum_norm(x, weight, bias, residual, gamma, beta, eps)[1]


def linear_sum_norm(x: Any, weight: Any, bias: Any, residual: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """``x @ weight.T + bias + residual``, and its layer norm."""
    functional = torch().nn.functional
    total = functional.linear(x, weight, bias) + residual
    return total, functional.layer_norm(total, gamma.shape, gamma, beta, eps)


def embed_norm(ids: Any, table: Any, added: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Layer norm of ``table[ids] + added``; ids is [batch, length], added [1, length, width]."""
    functional = torch().nn.functional
    return functional.layer_norm(functional.embedding(ids, table) + added, gamma.shape, gamma, beta, eps)


def attention(packed: Any, keys: Any, heads: int, width: int, q_at: int, k_at: int, v_at: int, scale: float) -> Any:
    """Attention whose queries, keys and values lie side by side in the last dim of one tensor.

    Args:
        packed: [batch, length, …]; queries of all heads start at ``q_at``, and so on.
        keys: [batch, length] or None. A key counts where it is not zero (whole numbers, truth values); floats are added
            to the scores of the key instead.
        heads: how many.
        width: elements of one head.
        q_at: where queries start.
        k_at: where keys start.
        v_at: where values start.
        scale: what scores are multiplied by.

    Returns:
        [batch, length, heads * width]; zeros for a row none of whose keys counts.
    """
    batch, length = packed.shape[:2]
    parts = (packed[..., at : at + heads * width] for at in (q_at, k_at, v_at))
    q, k, v = (part.reshape(batch, length, heads, width).transpose(1, 2) for part in parts)
    mask = None
    if keys is not None:
        mask = (keys.to(packed.dtype) if keys.is_floating_point() else keys != 0)[:, None, None, :]
    found = torch().nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    return found.transpose(1, 2).reshape(batch, length, heads * width)


def conv(x: Any, weight: Any, bias: Any, residual: Any, stride: int, padding: int, activation: str) -> Any:
    """``act(conv2d(x, weight) + bias + residual)``; weight is [out, height, width, in], residual may be None."""
    found = torch().nn.functional.conv2d(x, weight.permute(0, 3, 1, 2), bias, stride, padding)
    return activated(found if residual is None else found + residual, activation)


def conv_pair(y: Any, weight: Any, x: Any, shortcut: Any, bias: Any, stride: int, activation: str) -> Any:
    """``act(conv2d(y, weight) + conv2d(x, shortcut, stride) + bias)``; both kernels are 1x1: [out, in]."""
    conv2d = torch().nn.functional.conv2d
    return activated(conv2d(y, weight[:, :, None, None], bias) + conv2d(x, shortcut[:, :, None, None], None, stride),
                     activation)  # fmt: skip


def conv_first(x: Any, weight: Any, bias: Any, width: int, stride: int, padding: int, activation: str) -> Any:
    """``act(conv2d(x, weight) + bias)`` of pictures of at most four channels, of any float type.

    Args:
        x: [batch, channels, height, width].
        weight: [out, kernel height, 8, 4]: taps along the width, zero from ``width`` on, and channels.
        bias: [out].
        width: of the kernel, at most 8.
        stride: of both dims.
        padding: of both dims.
        activation: by name.
    """
    kernel = weight[:, :, :width, : x.shape[1]].permute(0, 3, 1, 2)
    return activated(torch().nn.functional.conv2d(x.to(weight.dtype), kernel, bias, stride, padding), activation)


def max_pool(x: Any, kernel: int, stride: int, padding: int) -> Any:
    """The largest value of each window."""
    return torch().nn.functional.max_pool2d(x, kernel, stride, padding)


def mean_pool(x: Any) -> Any:
    """The mean over pixels: [batch, channels, height, width] to [batch, channels]."""
    return x.mean((2, 3))


# --- products in eight bits (FP8 E4M3) ---

LARGEST = 448.0
"""The largest E4M3 value (Micikevicius et al. 2022, table 1)."""
FIXED = 4.0
"""What values are multiplied by where no scale is found for them: E4M3 then keeps its three bits of fraction from 2^-8
to 112, and what is beyond saturates."""


def rows8(x: Any) -> tuple[Any, Any]:
    """Rows of the last dim in E4M3, each scaled so that its largest element is 448, and the FP32 scales [rows]."""
    flat = x.float().reshape(-1, x.shape[-1])
    scales = flat.abs().amax(1).clamp(min=1e-12) / LARGEST
    return (flat / scales[:, None]).to(torch().float8_e4m3fn).reshape(x.shape), scales


def fixed8(x: Any) -> Any:
    """The values times ``FIXED`` in E4M3; what is beyond saturates."""
    return (x.float() * FIXED).clamp(-LARGEST, LARGEST).to(torch().float8_e4m3fn)


def linear8(x: Any, scales: Any, weight: Any, columns: Any, bias: Any, activation: str, keep: bool) -> Any:
    """A linear layer on E4M3 operands with FP32 sums.

    Args:
        x: [..., in] in E4M3.
        scales: of the rows of x, [rows]; None where ``columns`` holds all.
        weight: [out, in] in E4M3.
        columns: FP32 scales of the weight's rows, [out].
        bias: [out], whose type the result has.
        activation: by name.
        keep: whether the result stays in E4M3, times ``FIXED``.
    """
    total = x.float().reshape(-1, x.shape[-1]) @ weight.float().t() * columns
    total = total if scales is None else total * scales[:, None]
    found = activated(total + bias.float(), activation).reshape(*x.shape[:-1], len(weight))
    return fixed8(found) if keep else found.to(bias.dtype)


def linear_norm8(x: Any, scales: Any, weight: Any, columns: Any, bias: Any, residual: Any, gamma: Any, beta: Any,
                 eps: float) -> Any:  # fmt: skip
    """:func:`linear_norm` on E4M3 operands: the norm, and the norm by :func:`rows8`."""
    total = linear8(x, scales, weight, columns, bias, "", False) + residual
    normed = torch().nn.functional.layer_norm(total, gamma.shape, gamma, beta, eps)
    return (normed, *rows8(normed))


def attention8(*args: Any) -> Any:
    """:func:`attention`, its result by :func:`fixed8`."""
    return fixed8(attention(*args))


OPERATORS: dict[str, Operator] = {
    each.__name__: each
    for each in (linear, linear_wide, linear_norm, linear_norm_wide, linear_sum_norm, embed_norm, attention, conv,
                 conv_pair, conv_first, max_pool, mean_pool, rows8, linear8, linear_norm8, attention8)
}  # fmt: skip
"""Every fused operator by its name."""
