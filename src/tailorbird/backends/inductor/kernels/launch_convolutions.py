"""Launching convolutions over channels-last feature maps, pooling and means."""
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

from itertools import product
from typing import Any

from tailorbird.backends.inductor.kernels.convolve import convolve
from tailorbird.backends.inductor.kernels.launch_products import launch_tile, tiles
from tailorbird.backends.inductor.kernels.launching import (
    LIBRARY,
    MULTIPROCESSORS,
    OFFSETS,
    Config,
    Kernel,
    cdiv,
    device_module,
    is_half,
)
from tailorbird.backends.inductor.kernels.operators import activated
from tailorbird.backends.inductor.restructure.editing import torch

TRIED = 40
"""Configurations of a convolution that the first round tries: some of up to 250 that make sense."""
PARTS = 24_000_000
"""Elements of the largest set of partial sums."""


class Conv(Kernel):
    """``act(conv2d(x, weight) + bias + residual)``."""

    operator = "conv"
    weights = (1,)
    tried = TRIED

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        x, weight, bias, _, stride, padding, _ = args
        out, height, width, channels = weight.shape
        if not is_half(x, weight, bias) or channels % 32 or out % 32 or not _addressable(x):
            return []
        pixels = x.shape[0] * _size(x.shape[2], height, stride, padding) * _size(x.shape[3], width, stride, padding)
        if pixels * out >= OFFSETS:
            return []
        found: list[Config] = [("tile", *config) for config in _tiles(pixels, out, channels, height * width)]
        if (height, width, stride, padding) == (1, 1, 1, 0):
            found += [("product", *config, 1) for config in tiles(pixels, out, channels)]
        return found

    def __call__(self, x: Any, weight: Any, bias: Any, residual: Any, stride: int, padding: int,
                 activation: str) -> Any:  # fmt: skip
        """Run the operator."""
        run = self._cudnn if self.config == LIBRARY else self._launch
        return run(x, weight, bias, residual, stride, padding, activation)

    def _launch(self, x: Any, weight: Any, bias: Any, residual: Any, stride: int, padding: int, activation: str) -> Any:
        rows, channels, height, width = x.shape
        out, tall, wide, _ = weight.shape
        size = (_size(height, tall, stride, padding), _size(width, wide, stride, padding))
        made = _feature_map(x, rows, out, *size)
        given: list[Any] = [None if one is None else _last(one) for one in (x, residual)]
        if self.config[0] == "product":
            flat: list[Any] = [None if one is None else _pixels(one) for one in (*given, made)]
            flags = {"ACT": activation, **self._flags_for(len(flat[0]))}
            launch_tile(flat[0], weight.view(out, channels), bias, flat[2], self.config[1:], flags, flat[1])
            return made
        self._seen = convolve(given[0], weight, bias, given[1], made, (rows, height, width, channels, *size),
                              (stride, padding), activation, self.config[1:], self._flags_for(rows * size[0] * size[1]),
                              getattr(self, "_seen", None))  # fmt: skip
        return made

    def _cudnn(self, x: Any, weight: Any, bias: Any, residual: Any, stride: int, padding: int, activation: str) -> Any:
        """The fused kernels of cuDNN where it has them."""
        kernel, window = weight.permute(0, 3, 1, 2), ([stride] * 2, [padding] * 2, [1, 1], 1)
        aten = torch().ops.aten
        if not x.is_cuda or activation != "relu":
            return self._library(x, weight, bias, residual, stride, padding, activation)
        if residual is None:
            return aten.cudnn_convolution_relu(x, kernel, bias, *window)
        return aten.cudnn_convolution_add_relu(x, kernel, residual, 1.0, bias, *window)


class ConvPair(Kernel):
    """``act(conv2d(y, weight) + conv2d(x, shortcut, stride) + bias)``, all kernels 1x1."""

    operator = "conv_pair"
    weights = (1, 3)
    tried = TRIED

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        y, weight, x, shortcut, bias, _, _ = args
        narrow = any(kernel.shape[1] % 64 for kernel in (weight, shortcut))
        if not is_half(y, weight, x, shortcut, bias) or narrow or not _addressable(x):
            return []
        pixels, out = y.numel() // y.shape[1], len(weight)
        if pixels * out >= OFFSETS:
            return []
        found: list[Config] = []
        for bm, bn, bk, stages, warps in product((32, 64, 128), (32, 64, 128, 256), (64, 128), (2, 3, 4), (4, 8)):
            divides = weight.shape[1] % bk == 0 and shortcut.shape[1] % bk == 0 and out % bn == 0
            if divides and _makes_sense(pixels, out, bm, bn, bk, stages, warps):
                found.append(("tile", bm, bn, bk, stages, warps))
        return found

    def _library(self, *args: Any) -> Any:
        y, weight, x, shortcut, bias, stride, activation = args
        conv2d = torch().nn.functional.conv2d
        found = conv2d(y, weight[:, :, None, None], bias)
        return activated(found.add_(conv2d(x, shortcut[:, :, None, None], None, stride)), activation)

    def _launch(self, y: Any, weight: Any, x: Any, shortcut: Any, bias: Any, stride: int, activation: str) -> Any:
        bm, bn, bk, stages, warps = (int(number) for number in self.config[1:])
        (rows, first, tall, wide), out = y.shape, len(weight)
        made = _feature_map(y, rows, out, tall, wide)
        pixels = rows * tall * wide
        device_module("convolutions").convolve_pair[(cdiv(pixels, bm), cdiv(out, bn))](
            _last(y), weight, _last(x), shortcut, bias, made, pixels, out, x.shape[2], x.shape[3], tall, wide, first,
            x.shape[1], STRIDE=stride, BM=bm, BN=bn, BK=bk, EVEN=out % bn == 0, ACT=activation, num_stages=stages,
            num_warps=warps, **self._flags_for(pixels))  # fmt: skip
        return made


def _tiles(pixels: int, out: int, channels: int, taps: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for bm, bn, bk, stages, warps in product((32, 64, 128), (32, 64, 128, 256), (32, 64, 128), (2, 3, 4, 5), (4, 8)):
        if channels % bk or out % bn or (bk == 32 and channels > 64):
            continue
        if (bm == 32 and pixels > 256) or not _makes_sense(pixels, out, bm, bn, bk, stages, warps):
            continue
        steps = taps * channels // bk
        programs = cdiv(pixels, bm) * (out // bn)
        for splits in (1, 2, 3, 4, 6, 8, 9):
            found += [(bm, bn, bk, splits, stages, warps)] if _may_split(splits, steps, programs, pixels * out) else []
    return found


def _makes_sense(pixels: int, out: int, bm: int, bn: int, bk: int, stages: int, warps: int) -> bool:
    """Whether a tile fits shared memory and registers, and is neither too small nor too large for the output."""
    area = bm * bn
    if (bm + bn) * bk * 2 * stages > 200_000 or (area >= 128 * 128 and warps == 4) or (area <= 64 * 64 and warps == 8):
        return False
    if (pixels > 3000 and min(bm, bn) < 64) or (pixels > 20000 and (area < 128 * 64 or stages in {2, 5})):
        return False
    return area <= 64 * 64 or cdiv(pixels, bm) * cdiv(out, bn) >= 24


def _may_split(splits: int, steps: int, programs: int, elements: int) -> bool:
    if splits == 1:
        return programs >= 24 or steps < 8 or programs >= 8
    return steps % splits == 0 and steps // splits >= 2 and programs * splits <= 2 * MULTIPROCESSORS and (
        splits * elements <= PARTS)  # fmt: skip


def _addressable(x: Any) -> bool:
    """Whether 32-bit offsets reach every element of the input, and of an output sixteen times as large."""
    return bool(x.numel() < 1 << 27)


def _size(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _last(tensor: Any) -> Any:
    return tensor.contiguous(memory_format=torch().channels_last)


def _pixels(tensor: Any) -> Any:
    """A channels-last tensor as [pixels, channels], in the same memory."""
    return tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1])


def _feature_map(like: Any, *shape: int) -> Any:
    return torch().empty(shape, dtype=like.dtype, device=like.device, memory_format=torch().channels_last)
