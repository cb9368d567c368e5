"""Products of E4M3 operands with FP32 sums, and norms that give out E4M3 beside what they gave out before."""
# mypy: ignore-errors
# ruff: noqa: N803, PLR0913, PLR0917

import triton
import triton.language as tl

from tailorbird.backends.inductor.kernels.device.norms import normed
from tailorbird.backends.inductor.kernels.device.products import activate


@triton.jit
def product8(a_desc, w_desc, c_ptr, bias_ptr, rows_ptr, columns_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr,
             BK: tl.constexpr, ROWS: tl.constexpr, KEEP: tl.constexpr, ACT: tl.constexpr,
             PDL: tl.constexpr):  # fmt: skip
    """``act((a @ w.T) * columns * rows + bias)``, one tile a program; ``KEEP`` stores it times 4 in E4M3."""
    om = tl.program_id(0) * BM
    on = tl.program_id(1) * BN
    rm = om + tl.arange(0, BM)
    rn = on + tl.arange(0, BN)
    columns = tl.load(columns_ptr + rn, mask=rn < N, other=0.0)
    bias = tl.load(bias_ptr + rn, mask=rn < N, other=0.0).to(tl.float32)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(tl.cdiv(K, BK)):
        a = a_desc.load([om, i * BK])
        w = w_desc.load([on, i * BK])
        acc = tl.dot(a, w.T, acc)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    acc = acc * columns[None, :]
    if ROWS:
        acc = acc * tl.load(rows_ptr + rm, mask=rm < M, other=0.0)[:, None]
    acc = activate(acc + bias[None, :], ACT)
    if KEEP:
        acc = tl.minimum(tl.maximum(acc * 4.0, -448.0), 448.0)
    inside = (rm[:, None] < M) & (rn[None, :] < N)
    tl.store(c_ptr + rm[:, None].to(tl.int64) * N + rn[None, :], acc.to(c_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _store8(y, m, out8_ptr, scale_ptr, r, c, N: tl.constexpr):
    top = tl.maximum(tl.max(tl.abs(tl.where(m, y, 0.0)), 0), 448e-12)
    tl.store(scale_ptr + r, top / 448.0)
    tl.store(out8_ptr + r * N + c, (y * (448.0 / top)).to(tl.float8e4nv), mask=m)


@triton.jit
def sum_norm8(x_ptr, residual_ptr, g_ptr, b_ptr, out_ptr, out8_ptr, scale_ptr, eps, N: tl.constexpr,
              NP: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    """Layer norm of (x + residual): as it is, and in E4M3 with a scale for each row."""
    r = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, NP)
    m = c < N
    g = tl.load(g_ptr + c, mask=m, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + c, mask=m, other=0.0).to(tl.float32)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    x = tl.load(x_ptr + r * N + c, mask=m, other=0.0).to(tl.float32)
    x += tl.load(residual_ptr + r * N + c, mask=m, other=0.0).to(tl.float32)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    y = normed(x, m, g, b, eps, N)
    tl.store(out_ptr + r * N + c, y.to(out_ptr.dtype.element_ty), mask=m)
    _store8(y, m, out8_ptr, scale_ptr, r, c, N)


@triton.jit
def scale_rows(x_ptr, out8_ptr, scale_ptr, N: tl.constexpr, NP: tl.constexpr, PDL: tl.constexpr):
    """Rows in E4M3, each with a scale of its own."""
    r = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, NP)
    m = c < N
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    y = tl.load(x_ptr + r * N + c, mask=m, other=0.0).to(tl.float32)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    _store8(y, m, out8_ptr, scale_ptr, r, c, N)
