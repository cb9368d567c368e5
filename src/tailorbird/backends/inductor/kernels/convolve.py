"""Launching the convolution kernel, which linear layers of few rows use, too: its programs can share K."""
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.kernels.launching import Config, cdiv, device_module
from tailorbird.backends.inductor.restructure.editing import torch

Layout = tuple[int, int, int, int, int, int]
"""Rows, height, width and channels of the input; height and width of the output."""


def convolve(x: Any, weight: Any, bias: Any, residual: Any, out: Any, layout: Layout, window: tuple[int, int],
             activation: str, config: Config, flags: dict[str, Any], seen: Any) -> Any:  # fmt: skip
    """Launch the convolution kernel.

    Args:
        x: channels last.
        weight: [out, height, width, in].
        bias: [out].
        residual: as the output, or None.
        out: what is written, channels last.
        layout: of input and output.
        window: stride and padding.
        activation: by name.
        config: pixels, channels and K of a tile, splits of K, stages, warps.
        flags: for the launch.
        seen: counters of this call from before, all zero; None makes them.

    Returns:
        The counters: calls that run side by side must not share them.
    """
    rows, height, width, channels, out_height, out_width = layout
    bm, bn, bk, splits, stages, warps = (int(number) for number in config)
    pixels, columns, taps = rows * out_height * out_width, len(weight), weight.shape[1] * weight.shape[2]
    grid = (cdiv(pixels, bm), cdiv(columns, bn), splits)
    if splits > 1 and seen is None:
        seen = torch().zeros(grid[0] * grid[1], dtype=torch().int32, device=out.device)
    parts = out.new_empty((splits, pixels, columns), dtype=torch().float32) if splits > 1 else out
    device_module("convolutions").convolve[grid](
        x, weight, bias, out if residual is None else residual, out, parts, out if seen is None else seen, pixels,
        columns, height, width, out_height, out_width, channels, taps * channels // bk // splits, KH=weight.shape[1],
        KW=weight.shape[2], STRIDE=window[0], PAD=window[1], CB=channels // bk if taps > 1 else 1, BM=bm, BN=bn, BK=bk,
        SPLIT=splits > 1, EVEN=columns % bn == 0, ACT=activation, RESIDUAL=residual is not None, num_stages=stages,
        num_warps=warps, **flags)  # fmt: skip
    return seen
