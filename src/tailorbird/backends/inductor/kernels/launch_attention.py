"""Launching attention over packed queries, keys and values."""
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

from itertools import product
from typing import Any

from tailorbird.backends.inductor.kernels.launching import Config, Kernel, cdiv, device_module, is_half, power
from tailorbird.backends.inductor.restructure.editing import torch

LONGEST = 512
"""The longest row whose keys one program holds at once."""


class Attention(Kernel):
    """All keys of a row at once, a block of queries a program."""

    operator = "attention"
    eight = False

    @classmethod
    def _configs(cls, *args: Any) -> list[Config]:
        packed, width, length = args[0], args[3], args[0].shape[1]
        if not is_half(packed) or width not in {16, 32, 64, 128} or length > LONGEST or not packed.is_contiguous():
            return []
        blocks = [block for block in (16, 32, 64, 128) if block <= power(length)]
        return [("rows", block, warps) for block, warps in product(blocks, (4, 8)) if block * power(length) <= 1 << 15]

    def _launch(self, packed: Any, keys: Any, heads: int, width: int, q_at: int, k_at: int, v_at: int,
                scale: float) -> Any:  # fmt: skip
        batch, length, whole = packed.shape
        block, warps = int(self.config[1]), int(self.config[2])
        kind = torch().float8_e4m3fn if self.eight else packed.dtype
        out = packed.new_empty((batch, length, heads * width), dtype=kind)
        mask = 0 if keys is None else 2 if keys.is_floating_point() else 1
        device_module("attention").attend[(cdiv(length, block), heads, batch)](
            packed, packed if keys is None else keys.contiguous(), out, q_at, k_at, v_at, scale, length, whole, H=heads,
            SP=power(max(length, 16)), D=width, BM=block, MASK=mask, EIGHT=self.eight, num_warps=warps,
            **self._flags())  # fmt: skip
        return out


class Attention8(Attention):
    """The same, its result in E4M3."""

    operator = "attention8"
    eight = True
