"""Matrix products with what follows them in one kernel: bias and activation, or partial sums for a norm to add up.

Operands arrive through the tensor memory accelerator (``TensorDescriptor``), which pads with zeros beyond their edges.

``PDL`` says how a kernel meets the one before it and the one after (programmatic dependent launch). From 1 on it
starts while its predecessor still runs, and waits for it in ``gdc_wait`` after what does not depend on it. With 1 and 2
it lets its successor start once its sums are done, with 3 at once. With 2 it asks for its weights before it waits, so
that they are in the cache when it needs them.
"""
# mypy: ignore-errors
# ruff: noqa: N803, PLR0913, PLR0915, PLR0917

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    """GELU: x * (1 + erf(x / sqrt 2)) / 2, with erf by Abramowitz and Stegun 7.1.26, |error| <= 1.5e-7."""
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    poly = (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592
    return 0.5 * (x + tl.abs(x) * (1.0 - poly * t * tl.exp2(-z * z * 1.4426950408889634)))


@triton.jit
def gelu_fast(x):
    """The same with erf as tanh of an odd polynomial fitted to it (|error| <= 4e-5), by the hardware's own tanh."""
    z = x * 0.7071067811865476
    s = tl.minimum(z * z, 12.0)
    inner = z * (1.12814338 + s * (0.10408119 + s * -0.00178647))
    tanh = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=tl.float32, is_pure=True, pack=1)
    return 0.5 * x * (1.0 + tanh)


@triton.jit
def activate(x, ACT: tl.constexpr):
    """The activation of that name, in FP32."""
    if ACT == "gelu":
        x = gelu(x)
    elif ACT == "gelu_fast":
        x = gelu_fast(x)
    elif ACT == "gelu_tanh":
        x = x / (1.0 + tl.exp2(-2.302208198 * (x + 0.044715 * x * x * x)))
    elif ACT == "relu":
        x = tl.maximum(x, 0.0)
    elif ACT == "tanh":
        x = 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.885390081777927))
    return x


@triton.jit
def prefetch(ptr, row, ROWS: tl.constexpr, last, stride, start, length):
    """Ask for ``length`` 16-bit elements of each row, from ``start`` on: nothing waits for them."""
    at = ptr + tl.minimum(row + tl.arange(0, ROWS), last - 1).to(tl.int64) * stride + start
    for i in range(0, length, 64):
        tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [(at + i).to(tl.int64)],
                                  dtype=tl.int32, is_pure=False, pack=1)  # fmt: skip


@triton.jit
def tile_product(a_desc, w_desc, w_ptr, c_ptr, bias_ptr, residual_ptr, M, N, K, part_stride, BM: tl.constexpr,
                 BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr,
                 PDL: tl.constexpr):  # fmt: skip
    """``act(a @ w.T + bias + residual)``, one tile a program; with ``SPLIT``, FP32 parts of the sums over K alone."""
    om = tl.program_id(0) * BM
    on = tl.program_id(1) * BN
    pk = tl.program_id(2)
    steps = tl.cdiv(K, BK * tl.num_programs(2))
    k0 = pk * steps * BK
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL == 2:
        prefetch(w_ptr, on, BN, N, K, k0, tl.minimum(steps * BK, K - k0))
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(steps):
        a = a_desc.load([om, k0 + i * BK])
        w = w_desc.load([on, k0 + i * BK])
        acc = tl.dot(a, w.T, acc)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    rm = om + tl.arange(0, BM)
    rn = on + tl.arange(0, BN)
    inside = (rm[:, None] < M) & (rn[None, :] < N)
    at = c_ptr + rm[:, None].to(tl.int64) * N + rn[None, :]
    if SPLIT:
        tl.store(at + pk.to(tl.int64) * part_stride, acc, mask=inside)
    else:
        acc += tl.load(bias_ptr + rn, mask=rn < N, other=0.0).to(tl.float32)[None, :]
        if RESIDUAL:
            there = residual_ptr + rm[:, None].to(tl.int64) * N + rn[None, :]
            acc += tl.load(there, mask=inside, other=0.0).to(tl.float32)
        tl.store(at, activate(acc, ACT).to(c_ptr.dtype.element_ty), mask=inside)


@triton.jit
def persistent_product(a_desc, w_desc, c_desc, bias_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr,
                       BK: tl.constexpr, HALVES: tl.constexpr, PROGRAMS: tl.constexpr, ACT: tl.constexpr,
                       PDL: tl.constexpr):  # fmt: skip
    """``act(a @ w.T + bias)`` where each program takes every ``PROGRAMS``-th tile, so that one tile's stores overlap
    the next one's loads. ``HALVES`` stores a tile in two halves, which needs half the shared memory."""  # noqa: D205, D209
    rows = tl.cdiv(M, BM)
    steps = tl.cdiv(K, BK)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    for tile in tl.range(tl.program_id(0), rows * tl.cdiv(N, BN), PROGRAMS, flatten=True):
        om = (tile % rows) * BM
        on = (tile // rows) * BN
        acc = tl.zeros((BM, BN), dtype=tl.float32)
        for i in range(steps):
            a = a_desc.load([om, i * BK])
            w = w_desc.load([on, i * BK])
            acc = tl.dot(a, w.T, acc)
        rn = on + tl.arange(0, BN)
        acc += tl.load(bias_ptr + rn, mask=rn < N, other=0.0).to(tl.float32)[None, :]
        if HALVES:
            left, right = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
            c_desc.store([om, on], activate(left, ACT).to(c_desc.dtype))
            c_desc.store([om, on + BN // 2], activate(right, ACT).to(c_desc.dtype))
        else:
            c_desc.store([om, on], activate(acc, ACT).to(c_desc.dtype))
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
