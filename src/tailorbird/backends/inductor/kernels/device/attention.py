"""Attention of short sequences: all keys of a row at once, queries, keys and values read out of one packed tensor."""
# mypy: ignore-errors
# ruff: noqa: N803, PLR0913, PLR0915, PLR0917

import triton
import triton.language as tl


@triton.jit
def attend(packed_ptr, keys_ptr, out_ptr, q_at, k_at, v_at, scale, S, W, H: tl.constexpr, SP: tl.constexpr,
           D: tl.constexpr, BM: tl.constexpr, MASK: tl.constexpr, EIGHT: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    """softmax(q k^T * scale, masked) v for one block of queries of one head of one row.

    ``MASK``: 0 none; 1 a key counts where ``keys`` is not zero; 2 ``keys`` is added. A query without keys gives
    zeros. ``EIGHT``: the result times 4 in E4M3.
    """
    h = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    base = packed_ptr + b * S * W + h * D
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rs = tl.arange(0, SP)
    rd = tl.arange(0, D)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    q = tl.load(base + q_at + rm[:, None] * W + rd[None, :], mask=(rm < S)[:, None], other=0.0)
    k = tl.load(base + k_at + rs[:, None] * W + rd[None, :], mask=(rs < S)[:, None], other=0.0)
    v = tl.load(base + v_at + rs[:, None] * W + rd[None, :], mask=(rs < S)[:, None], other=0.0)
    s = tl.dot(q, k.T) * (scale * 1.4426950408889634)
    counts = rs < S
    if MASK == 1:
        counts = counts & (tl.load(keys_ptr + b * S + rs, mask=rs < S, other=0) != 0)
    if MASK == 2:
        added = tl.load(keys_ptr + b * S + rs, mask=rs < S, other=0.0).to(tl.float32)
        s += (added * 1.4426950408889634)[None, :]
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    s = tl.where(counts[None, :], s, float("-inf"))
    top = tl.max(s, 1)
    top = tl.where(top == float("-inf"), 0.0, top)
    p = tl.exp2(s - top[:, None])
    total = tl.sum(p, 1)
    o = tl.dot(p.to(packed_ptr.dtype.element_ty), v) / tl.where(total == 0.0, 1.0, total)[:, None]
    if EIGHT:
        o = tl.minimum(tl.maximum(o * 4.0, -448.0), 448.0)
    at = out_ptr + (b * S + rm[:, None]) * (H * D) + h * D + rd[None, :]
    tl.store(at, o.to(out_ptr.dtype.element_ty), mask=(rm < S)[:, None])
