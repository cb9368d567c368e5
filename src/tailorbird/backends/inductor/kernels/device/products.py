"""Matrix products with what follows them in one kernel: bias and activation, or partial sums for a norm to add up.

Operands arrive through the tensor memory accelerator (``TensorDescriptor``), which pads with zeros beyond their edges.
Where ``PDL`` is set, a kernel starts while the one before it still runs (programmatic dependent launch) and waits for
it in ``gdc_wait``, after what does not depend on it.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803, PLR0913, PLR0917

import triton
import triton.language as tl


@triton.jit
def gelu(x, FAST: tl.constexpr):
    """GELU: x * (1 + erf(x / sqrt 2)) / 2.

    erf by Abramowitz and Stegun 7.1.26, |error| <= 1.5e-7; or, where ``FAST``, as tanh of an odd polynomial fitted to
    it (|error| <= 4e-5), with the hardware's own tanh, whose relative error is 2^-11.
    """
    z = x * 0.7071067811865476
    if FAST:
        s = tl.minimum(z * z, 12.0)
        inner = z * (1.12814338 + s * (0.10408119 + s * -0.00178647))
        return 0.5 * x * (1.0 + _tanh(inner))
    a = tl.abs(z)
    t = 1.0 / (1.0 + 0.3275911 * a)
    poly = (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592
    return 0.5 * (x + tl.abs(x) * (1.0 - poly * t * tl.exp2(-a * a * 1.4426950408889634)))


@triton.jit
def _tanh(x):
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def activate(x, ACT: tl.constexpr, FAST: tl.constexpr):
    """The activation of that name, in FP32."""
    if ACT == "gelu":
        x = gelu(x, FAST)
    elif ACT == "gelu_tanh":
        x = x / (1.0 + tl.exp2(-2.302208198 * (x + 0.044715 * x * x * x)))
    elif ACT == "relu":
        x = tl.maximum(x, 0.0)
    elif ACT == "tanh":
        x = 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.885390081777927))
    return x


@triton.jit
def tile_product(a_desc, w_desc, c_ptr, bias_ptr, M, N, K, part_stride, BM: tl.constexpr, BN: tl.constexpr,
                 BK: tl.constexpr, SPLIT: tl.constexpr, ACT: tl.constexpr, FAST: tl.constexpr,
                 PDL: tl.constexpr):  # fmt: skip
    """``act(a @ w.T + bias)``, one tile a program; with ``SPLIT``, partial sums of slices of K in FP32, no bias."""
    om = tl.program_id(0) * BM
    on = tl.program_id(1) * BN
    pk = tl.program_id(2)
    steps = tl.cdiv(K, BK * tl.num_programs(2))
    k0 = pk * steps * BK
    if PDL:
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(steps):
        a = a_desc.load([om, k0 + i * BK])
        w = w_desc.load([on, k0 + i * BK])
        acc = tl.dot(a, w.T, acc)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    rm = om + tl.arange(0, BM)
    rn = on + tl.arange(0, BN)
    inside = (rm[:, None] < M) & (rn[None, :] < N)
    at = c_ptr + rm[:, None].to(tl.int64) * N + rn[None, :]
    if SPLIT:
        tl.store(at + pk.to(tl.int64) * part_stride, acc, mask=inside)
    else:
        acc += tl.load(bias_ptr + rn, mask=rn < N, other=0.0).to(tl.float32)[None, :]
        tl.store(at, activate(acc, ACT, FAST).to(c_ptr.dtype.element_ty), mask=inside)


@triton.jit
def persistent_product(a_desc, w_desc, c_desc, bias_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr,
                       BK: tl.constexpr, HALVES: tl.constexpr, PROGRAMS: tl.constexpr, ACT: tl.constexpr,
                       FAST: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    """``act(a @ w.T + bias)`` where each program takes every ``PROGRAMS``-th tile, so that one tile's stores overlap
    the next one's loads. ``HALVES`` stores a tile in two halves, which needs half the shared memory."""  # noqa: D205, D209
    rows = tl.cdiv(M, BM)
    steps = tl.cdiv(K, BK)
    if PDL:
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
            c_desc.store([om, on], activate(left, ACT, FAST).to(c_desc.dtype))
            c_desc.store([om, on + BN // 2], activate(right, ACT, FAST).to(c_desc.dtype))
        else:
            c_desc.store([om, on], activate(acc, ACT, FAST).to(c_desc.dtype))
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
