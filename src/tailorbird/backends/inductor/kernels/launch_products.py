"""Launching linear layers, and the norms that follow them."""
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

from importlib import import_module
from itertools import product
from typing import Any

from tailorbird.backends.inductor.kernels.convolve import convolve
from tailorbird.backends.inductor.kernels.launching import (
    MULTIPROCESSORS,
    SHARED_BYTES,
    Config,
    Kernel,
    cdiv,
    device_module,
    is_half,
    power,
)
from tailorbird.backends.inductor.restructure.editing import torch

FEW_ROWS = 256
MANY_ROWS = 4096
WIDEST = 8192
"""The widest row that one program normalises."""


class Linear(Kernel):
    """``act(x @ weight.T + bias)``: by tiles, by persistent programs, or by tiles that share K."""

    operator = "linear"
    weights = (1,)
    wide = False

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        x, weight, bias, _ = args
        rows, (out, width) = x.numel() // x.shape[-1], weight.shape
        if not is_half(x, weight, bias) or width % 8 or out % 8:
            return []
        found: list[Config] = [("tile", *config, 1) for config in tiles(rows, out, width)]
        if args[3] in {"gelu_fast", "gelu_tanh"} and rows > FEW_ROWS:
            found.append(("cublas_gelu",))
        if rows >= FEW_ROWS * 4:
            found += [("persistent", *config) for config in persistent(rows)]
        if rows <= FEW_ROWS // 4 and width % 64 == 0:
            found += [("shared", *config) for config in shared(rows, out, width)]
        return found

    def _launch(self, x: Any, weight: Any, bias: Any, activation: str) -> Any:
        flat = x.reshape(-1, x.shape[-1])
        out = x.new_empty((*x.shape[:-1], len(weight)), dtype=torch().float32 if self.wide else x.dtype)
        given = {"ACT": activation, **self._flags_for(len(flat))}
        if self.config[0] == "cublas_gelu":  # its GELU is the tanh form: at most 5e-4 from the other
            return torch()._addmm_activation(bias, flat, weight.t(), use_gelu=True).view_as(out).to(out.dtype)
        if self.config[0] == "tile":
            launch_tile(flat, weight, bias, out.view(-1, len(weight)), self.config[1:], given)
        elif self.config[0] == "persistent":
            launch_persistent(flat, weight, bias, out.view(-1, len(weight)), self.config[1:], given)
        else:
            self._launch_shared(flat.contiguous(), weight, bias, out, activation)
        return out

    def _launch_shared(self, x: Any, weight: Any, bias: Any, out: Any, activation: str) -> None:
        """The product as a convolution of single pixels, whose kernel can share K among programs."""
        rows, width = x.shape
        layout = (rows, 1, 1, width, 1, 1)
        self._seen = convolve(x, weight.view(len(weight), 1, 1, width), bias, None, out, layout, (1, 0), activation,
                              self.config[1:], self._flags_for(rows), getattr(self, "_seen", None))  # fmt: skip


class LinearWide(Linear):
    """The same, written in FP32."""

    operator = "linear_wide"
    wide = True


class LinearNorm(Kernel):
    """Layer norm of ``x @ weight.T + bias + residual``: a product, in parts where rows are few, then rows."""

    operator = "linear_norm"
    weights = (1,)
    keeps = 0
    """1: the sum; 2: the norm in FP32."""

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        x, weight, bias, residual, gamma, beta, _ = args
        rows, (out, width) = x.numel() // x.shape[-1], weight.shape
        if not is_half(x, weight, bias, residual, gamma, beta) or width % 8 or out % 8 or out > WIDEST:
            return []
        splits = (1, 2, 3, 4, 6, 8) if rows <= FEW_ROWS else (1, 2, 4) if rows <= FEW_ROWS * 4 else (1,)
        found: list[Config] = [("cublas",)]
        for config, parts in product(tiles(rows, out, width), splits):
            programs = cdiv(rows, config[0]) * cdiv(out, config[1]) * parts
            if cdiv(width, config[2]) % parts == 0 and (parts == 1 or programs <= MULTIPROCESSORS * 4):
                found.append(("tile", *config, parts))
        if rows >= FEW_ROWS * 4:
            found += [("persistent", *config) for config in persistent(rows)]
        return found

    def _launch(self, x: Any, weight: Any, bias: Any, residual: Any, gamma: Any, beta: Any, eps: float) -> Any:
        residual = residual.contiguous()  # what is given out has its strides, and rows are written one after another
        flat, out = x.reshape(-1, x.shape[-1]), len(weight)
        parts = int(self.config[-1]) if self.config[0] == "tile" else 1
        made = self._product(flat, weight, bias, parts)
        normed = torch().empty_like(residual)
        more = (
            torch().empty_like(residual, dtype=torch().float32 if self.keeps == 2 else None) if self.keeps else normed
        )
        device_module("norms").sum_norm[(len(flat),)](
            made, bias, residual, gamma, beta, normed, more, len(flat) * out, eps, N=out, NP=power(out),
            PARTS=parts if parts > 1 else 0, KEEP=self.keeps, num_warps=4 if out <= 1024 else 8,
            **self._flags())  # fmt: skip
        return (normed, (more, normed), (normed, more))[self.keeps]

    def _product(self, x: Any, weight: Any, bias: Any, parts: int) -> Any:
        given = {"ACT": "", **self._flags_for(len(x))}
        if self.config[0] == "cublas":
            return torch().addmm(bias, x, weight.t())
        if self.config[0] == "persistent":
            out = x.new_empty((len(x), len(weight)))
            launch_persistent(x, weight, bias, out, self.config[1:], given)
            return out
        shape = (len(x), len(weight)) if parts == 1 else (parts, len(x), len(weight))
        made = x.new_empty(shape, dtype=x.dtype if parts == 1 else torch().float32)
        launch_tile(x, weight, bias, made, self.config[1:], given)
        return made


class LinearSumNorm(LinearNorm):
    """The same, and the sum."""

    operator = "linear_sum_norm"
    keeps = 1


class LinearNormWide(LinearNorm):
    """The same, and the norm in FP32."""

    operator = "linear_norm_wide"
    keeps = 2


class EmbedNorm(Kernel):
    """Layer norm of a looked-up row and a row for the position."""

    operator = "embed_norm"

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        _, table, added, gamma, beta, _ = args
        fits = is_half(table, added, gamma, beta) and len(gamma) <= WIDEST
        return [("rows", warps) for warps in (2, 4, 8)] if fits else []

    def _launch(self, ids: Any, table: Any, added: Any, gamma: Any, beta: Any, eps: float) -> Any:
        width = len(gamma)
        out = table.new_empty((*ids.shape, width))
        device_module("norms").embed_norm[(ids.numel(),)](
            ids.contiguous(), table, added, gamma, beta, out, eps, ids.shape[-1], len(table), N=width, NP=power(width),
            num_warps=self.config[1], **self._flags())  # fmt: skip
        return out


def tiles(rows: int, out: int, width: int) -> list[tuple[int, int, int, int, int]]:
    """Tile shapes, pipeline stages and warps worth trying: (rows, columns, K, stages, warps)."""
    found = []
    for bm, bn, bk, stages, warps in product((64, 128), (32, 64, 128, 256), (64, 128), (3, 4, 5), (4, 8)):
        area = bm * bn
        fits = (bm + bn) * bk * 2 * stages <= 220_000 and bk <= width
        right_warps = (area >= 128 * 128) == (warps == 8) or area == 128 * 64
        programs = cdiv(rows, bm) * cdiv(out, bn)
        if fits and right_warps and _right_area(rows, bm, bn) and programs <= MULTIPROCESSORS * 16:
            found.append((bm, bn, bk, stages, warps))
    return found


def _right_area(rows: int, bm: int, bn: int) -> bool:
    """Small tiles where rows are few, so that there are programs for all multiprocessors; large ones where many."""
    if rows <= FEW_ROWS:
        return bm == 64 and bn <= 128
    if rows >= MANY_ROWS:
        return bm * bn >= 128 * 128
    return bn >= 64


def persistent(rows: int) -> list[tuple[int, int, int, int, int, int]]:
    """The same for persistent programs: (rows, columns, K, in halves, stages, warps)."""
    found = []
    for bm, bn, bk, halves, stages in product((64, 128), (128, 256), (64, 128), (0, 1), (3, 4)):
        held = (bm + bn) * bk * 2 * stages + bm * bn * 2 // (1 + halves)
        small = rows < MANY_ROWS or bm * bn >= 128 * 128
        if held <= SHARED_BYTES and small:
            found.append((bm, bn, bk, halves, stages, 8 if bm * bn >= 128 * 128 else 4))
    return found


def shared(rows: int, out: int, width: int) -> list[tuple[int, int, int, int, int, int]]:
    """The same for programs that share K: (rows, columns, K, splits, stages, warps)."""
    found = []
    for bn, bk, splits, stages in product((32, 64), (64, 128), (1, 2, 4, 8, 16), (3, 4)):
        if width % (bk * splits) == 0 and cdiv(out, bn) * splits <= MULTIPROCESSORS * 4:
            found.append((16 if rows <= 16 else 32, bn, bk, splits, stages, 4))
    return found


def launch_tile(x: Any, weight: Any, bias: Any, out: Any, config: Config, given: dict[str, Any],
                residual: Any = None) -> None:  # fmt: skip
    """One program a tile; ``out`` is [rows, columns] as is the residual, or FP32 [parts, rows, columns]."""
    bm, bn, bk, stages, warps, parts = (int(number) for number in config)
    (rows, width), columns = x.shape, len(weight)
    device_module("products").tile_product[(cdiv(rows, bm), cdiv(columns, bn), parts)](
        descriptor(x, bm, bk), descriptor(weight, bn, bk), weight, out, bias, out if residual is None else residual,
        rows, columns, width, rows * columns, BM=bm, BN=bn, BK=bk, SPLIT=parts > 1, RESIDUAL=residual is not None,
        num_stages=stages, num_warps=warps, **given)  # fmt: skip


def launch_persistent(x: Any, weight: Any, bias: Any, out: Any, config: Config, given: dict[str, Any]) -> None:
    """As many programs as multiprocessors, each with a share of the tiles; ``out`` is [rows, columns]."""
    bm, bn, bk, halves, stages, warps = (int(number) for number in config)
    (rows, width), columns = x.shape, len(weight)
    programs = min(MULTIPROCESSORS, cdiv(rows, bm) * cdiv(columns, bn))
    device_module("products").persistent_product[(programs,)](
        descriptor(x, bm, bk), descriptor(weight, bn, bk), descriptor(out, bm, bn // 2 if halves else bn), bias,
        rows, columns, width, BM=bm, BN=bn, BK=bk, HALVES=bool(halves), PROGRAMS=programs, num_stages=stages,
        num_warps=warps, **given)  # fmt: skip


def descriptor(tensor: Any, *block: int) -> Any:
    """How the tensor memory accelerator reads or writes blocks of a matrix."""
    tools = import_module("triton.tools.tensor_descriptor")
    return tools.TensorDescriptor.from_tensor(tensor, list(block))
