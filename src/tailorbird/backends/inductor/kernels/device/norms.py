"""Layer norm of sums: of a product's parts, its bias and a residual; or of embeddings. One row a program."""
# mypy: ignore-errors
# ruff: noqa: N803, PLR0913, PLR0917

import triton
import triton.language as tl


@triton.jit
def normed(x, m, g, b, eps, N: tl.constexpr):
    """One row normalised, scaled and shifted, in FP32; ``m`` says which of its elements there are."""
    x = tl.where(m, x, 0.0)
    d = tl.where(m, x - tl.sum(x, 0) / N, 0.0)
    return d * tl.rsqrt(tl.sum(d * d, 0) / N + eps) * g + b


@triton.jit
def sum_norm(part_ptr, bias_ptr, residual_ptr, g_ptr, b_ptr, out_ptr, sum_ptr, part_stride, eps, N: tl.constexpr,
             NP: tl.constexpr, PARTS: tl.constexpr, KEEP: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    """Layer norm of (parts + bias + residual); ``PARTS`` 0 means one part in half precision that holds the bias.

    ``KEEP`` 1 writes the sum, too, and 2 the norm once more, in the type of ``sum_ptr``.
    """
    r = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, NP)
    m = c < N
    bias = tl.load(bias_ptr + c, mask=m, other=0.0).to(tl.float32)
    g = tl.load(g_ptr + c, mask=m, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + c, mask=m, other=0.0).to(tl.float32)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    if PARTS == 0:
        x = tl.load(part_ptr + r * N + c, mask=m, other=0.0).to(tl.float32)
    else:
        x = bias
        for s in tl.static_range(PARTS):
            x += tl.load(part_ptr + s * part_stride + r * N + c, mask=m, other=0.0)
    x += tl.load(residual_ptr + r * N + c, mask=m, other=0.0).to(tl.float32)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    if KEEP == 1:
        tl.store(sum_ptr + r * N + c, x.to(sum_ptr.dtype.element_ty), mask=m)
    y = normed(x, m, g, b, eps, N)
    if KEEP == 2:
        tl.store(sum_ptr + r * N + c, y.to(sum_ptr.dtype.element_ty), mask=m)
    tl.store(out_ptr + r * N + c, y.to(out_ptr.dtype.element_ty), mask=m)


@triton.jit
def embed_norm(ids_ptr, table_ptr, added_ptr, g_ptr, b_ptr, out_ptr, eps, S, ROWS, N: tl.constexpr, NP: tl.constexpr,
               PDL: tl.constexpr):  # fmt: skip
    """Layer norm of (table[id] + added[position]); an id outside the table's ROWS is a fault of the device."""
    r = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, NP)
    m = c < N
    g = tl.load(g_ptr + c, mask=m, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + c, mask=m, other=0.0).to(tl.float32)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    i = tl.load(ids_ptr + r).to(tl.int64)
    tl.device_assert((i >= 0) & (i < ROWS))
    x = tl.load(table_ptr + i * N + c, mask=m & (i >= 0) & (i < ROWS), other=float("nan")).to(tl.float32)
    x += tl.load(added_ptr + (r % S) * N + c, mask=m, other=0.0).to(tl.float32)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    tl.store(out_ptr + r * N + c, normed(x, m, g, b, eps, N).to(out_ptr.dtype.element_ty), mask=m)
