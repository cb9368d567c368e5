"""Launching linear layers on E4M3 operands."""

from __future__ import annotations

from itertools import product
from typing import Any

from tailorbird.backends.inductor.kernels.launch_products import MANY_ROWS, WIDEST, descriptor
from tailorbird.backends.inductor.kernels.launching import (
    MULTIPROCESSORS,
    Config,
    Kernel,
    cdiv,
    device_module,
    is_half,
    power,
)
from tailorbird.backends.inductor.restructure.editing import torch


class Rows8(Kernel):
    """Rows brought to E4M3."""

    operator = "rows8"

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        return [("rows", 4)] if is_half(args[0]) and args[0].shape[-1] <= WIDEST else []

    def _launch(self, x: Any) -> Any:
        width = x.shape[-1]
        flat = x.reshape(-1, width).contiguous()
        out, scales = _eight_like(x)
        device_module("eight").scale_rows[(len(flat),)](flat, out, scales, N=width, NP=power(width), num_warps=4,
                                                        **self._flags())  # fmt: skip
        return out, scales


class Linear8(Kernel):
    """A linear layer on E4M3 operands."""

    operator = "linear8"
    weights = (2,)

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        return _tiles(args[0].shape[-1], args[0].numel() // args[0].shape[-1], len(args[2]))

    def _launch(self, *args: Any) -> Any:
        x, weight, bias, keep = args[0], args[2], args[4], args[6]
        out = x.new_empty((*x.shape[:-1], len(weight)), dtype=x.dtype if keep else bias.dtype)
        launch(args, out, self.config, self._flags())
        return out


class LinearNorm8(Kernel):
    """A linear layer on E4M3 operands, and the norm of its sum with a residual, in both types."""

    operator = "linear_norm8"
    weights = (2,)

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        return Linear8.configs(*args[:5], "", False)[1:] if len(args[2]) <= WIDEST else []

    def _launch(self, *args: Any) -> Any:
        x, weight, residual, gamma, beta, eps = args[0], args[2], *args[5:9]
        flat, width = x.reshape(-1, x.shape[-1]), len(weight)
        residual = residual.contiguous()  # what is given out has its strides, and rows are written one after another
        made = residual.new_empty((len(flat), width))
        launch((flat, *args[1:5], "", False), made, self.config, self._flags())
        normed = torch().empty_like(residual)
        eight, scales = _eight_like(residual)
        device_module("eight").sum_norm8[(len(flat),)](
            made, residual, gamma, beta, normed, eight, scales, eps, N=width, NP=power(width),
            num_warps=4 if width <= 1024 else 8, **self._flags())  # fmt: skip
        return normed, eight, scales


def launch(args: tuple[Any, ...], out: Any, config: Config, given: dict[str, Any]) -> None:
    """Launch the product of :func:`linear8`'s arguments; ``out`` is written."""
    x, scales, weight, columns, bias, activation, keep = args
    bm, bn, bk, stages, warps = (int(number) for number in config[1:])
    flat = x.reshape(-1, x.shape[-1])
    (rows, width), wide = flat.shape, len(weight)
    device_module("eight").product8[(cdiv(rows, bm), cdiv(wide, bn))](
        descriptor(flat, bm, bk), descriptor(weight, bn, bk), out, bias, columns if scales is None else scales, columns,
        rows, wide, width, BM=bm, BN=bn, BK=bk, ROWS=scales is not None, KEEP=keep, ACT=activation, num_stages=stages,
        num_warps=warps, **given)  # fmt: skip


def _tiles(width: int, rows: int, out: int) -> list[Config]:
    found: list[Config] = []
    if width % 16 or out % 16:
        return found
    for bm, bn, bk, stages, warps in product((64, 128), (64, 128, 256), (64, 128, 256), (3, 4), (4, 8)):
        fits = (bm + bn) * bk * stages <= 200_000 and bk <= width and (bm * bn >= 128 * 128) == (warps == 8)
        large = rows < MANY_ROWS or bm * bn >= 128 * 64
        if fits and large and cdiv(rows, bm) * cdiv(out, bn) * 2 >= min(MULTIPROCESSORS, cdiv(rows, 64)):
            found.append(("tile", bm, bn, bk, stages, warps))
    return found


def _eight_like(x: Any) -> tuple[Any, Any]:
    scales = torch().empty(x.numel() // x.shape[-1], dtype=torch().float32, device=x.device)
    return torch().empty(x.shape, dtype=torch().float8_e4m3fn, device=x.device), scales
