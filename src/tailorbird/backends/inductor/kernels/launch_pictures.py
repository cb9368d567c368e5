"""Launching the ends of an image network: the first convolution, pooling, the mean over pixels."""
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

from itertools import product
from typing import Any

from tailorbird.backends.inductor.kernels.launching import OFFSETS, Config, Kernel, cdiv, device_module, is_half, power
from tailorbird.backends.inductor.restructure.editing import torch


class ConvFirst(Kernel):
    """``act(conv2d(pictures) + bias)``: pictures laid out four channels a pixel, then a row of taps a step."""

    operator = "conv_first"

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        x, weight, bias = args[:3]
        outputs = x.shape[0] * x.shape[2] * x.shape[3] * len(weight)  # as many, at a stride of one, and no more
        fits = (
            is_half(weight, bias)
            and outputs < OFFSETS
            and power(len(weight)) == len(weight)
            and 16 <= len(weight) <= 256
        )
        return [("rows", *each) for each in product((64, 128, 256), (2, 3, 4), (4, 8))] if fits else []

    def _launch(self, x: Any, weight: Any, bias: Any, width: int, stride: int, padding: int, activation: str) -> Any:
        block, stages, warps = (int(number) for number in self.config[1:])
        rows, channels, height, wide = x.shape
        out, tall = weight.shape[:2]
        size = [(edge + 2 * padding - kernel) // stride + 1 for edge, kernel in ((height, tall), (wide, width))]
        pictures = device_module("pictures")
        laid = torch().empty((rows, height, wide, 4), dtype=weight.dtype, device=x.device)
        pictures.interleave[(cdiv(rows * height * wide, 1024),)](
            x.contiguous(), laid, rows * height * wide, height * wide, C=channels, BP=1024, num_warps=4,
            **self._flags())  # fmt: skip
        made = torch().empty((rows, out, *size), dtype=weight.dtype, device=x.device,
                             memory_format=torch().channels_last)  # fmt: skip
        pixels = rows * size[0] * size[1]
        pictures.convolve_first[(cdiv(pixels, block),)](
            laid, weight, bias, made, pixels, height, wide, *size, N=out, KH=tall, STRIDE=stride, PAD=padding, BM=block,
            ACT=activation, num_stages=stages, num_warps=warps, **self._flags())  # fmt: skip
        return made


class MaxPool(Kernel):
    """The largest value of each window, channels last."""

    operator = "max_pool"

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        x, kernel, _, _ = args
        fits = is_half(x) and power(x.shape[1]) == x.shape[1] and x.shape[1] <= 1024 and kernel <= 3
        fits = fits and x.numel() < OFFSETS
        return [("rows", *each) for each in product((4, 8, 16, 32, 64), (2, 4, 8))] if fits else []

    def _launch(self, x: Any, kernel: int, stride: int, padding: int) -> Any:
        block, warps = int(self.config[1]), int(self.config[2])
        rows, channels, height, width = x.shape
        size = [(edge + 2 * padding - kernel) // stride + 1 for edge in (height, width)]
        made = torch().empty((rows, channels, *size), dtype=x.dtype, device=x.device,
                             memory_format=torch().channels_last)  # fmt: skip
        total = rows * size[0] * size[1]
        device_module("pictures").pool[(cdiv(total, block),)](
            x.contiguous(memory_format=torch().channels_last), made, total, height, width, *size, C=channels, K=kernel,
            STRIDE=stride, PAD=padding, BP=block, num_warps=warps, **self._flags())  # fmt: skip
        return made


class MeanPool(Kernel):
    """The mean over pixels, channels last."""

    operator = "mean_pool"

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        x = args[0]
        fits = is_half(x) and x.shape[2] * x.shape[3] <= 256 and x.numel() < OFFSETS
        return [("rows", block, warps) for block, warps in product((32, 64, 128), (2, 4))] if fits else []

    def _launch(self, x: Any) -> Any:
        block, warps = int(self.config[1]), int(self.config[2])
        rows, channels, height, width = x.shape
        made = x.new_empty((rows, channels))
        device_module("pictures").mean[(rows, cdiv(channels, block))](
            x.contiguous(memory_format=torch().channels_last), made, height * width, channels,
            SP=power(height * width), BC=block, num_warps=warps, **self._flags())  # fmt: skip
        return made
