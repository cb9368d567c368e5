"""The ends of an image network: pictures read as they come, pooling, and the mean over pixels."""
# mypy: ignore-errors
# ruff: noqa: N803, PLR0913, PLR0917

import triton
import triton.language as tl

from tailorbird.backends.inductor.kernels.device.products import activate


@triton.jit
def interleave(x_ptr, out_ptr, total, HW, C: tl.constexpr, BP: tl.constexpr, PDL: tl.constexpr):
    """[batch, C, pixels] of any float type to [batch, pixels, 4], the rest zero; total is batch * pixels."""
    r = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    m = r < total
    c = tl.arange(0, 4)
    at = x_ptr + ((r // HW) * C)[:, None] * HW + c[None, :] * HW + (r % HW)[:, None]
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    v = tl.load(at, mask=m[:, None] & (c < C)[None, :], other=0.0)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    tl.store(out_ptr + r[:, None] * 4 + c[None, :], v.to(out_ptr.dtype.element_ty), mask=m[:, None])


@triton.jit
def convolve_first(x_ptr, w_ptr, bias_ptr, out_ptr, M, H, W, OH, OW, N: tl.constexpr, KH: tl.constexpr,
                   STRIDE: tl.constexpr, PAD: tl.constexpr, BM: tl.constexpr, ACT: tl.constexpr,
                   PDL: tl.constexpr):  # fmt: skip
    """``act(conv(x, w) + bias)`` of [batch, H, W, 4] with w [N, KH, 8, 4]: a row of taps is one step of 32.

    Weights of taps beyond the kernel's width, and of channels beyond the picture's, are zero.
    """
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.arange(0, N)
    rk = tl.arange(0, 32)
    mm = rm < M
    pixel = tl.where(mm, rm, 0)
    rest = pixel // OW
    ih0 = (rest % OH) * STRIDE - PAD
    iw0 = (pixel % OW) * STRIDE - PAD
    column = iw0[:, None] + (rk // 4)[None, :]
    inside = mm[:, None] & (column >= 0) & (column < W)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BM, N), dtype=tl.float32)
    for kh in range(KH):
        ih = ih0 + kh
        at = x_ptr + (((rest // OH) * H + ih) * W + iw0)[:, None] * 4 + rk[None, :]
        a = tl.load(at, mask=inside & ((ih >= 0) & (ih < H))[:, None], other=0.0)
        w = tl.load(w_ptr + rn[:, None] * (KH * 32) + kh * 32 + rk[None, :])
        acc = tl.dot(a, w.T, acc)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    acc = activate(acc + tl.load(bias_ptr + rn)[None, :].to(tl.float32), ACT)
    tl.store(out_ptr + rm[:, None] * N + rn[None, :], acc.to(out_ptr.dtype.element_ty), mask=mm[:, None])


@triton.jit
def pool(x_ptr, out_ptr, total, H, W, OH, OW, C: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
         PAD: tl.constexpr, BP: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    """Largest value of each K x K window of a channels-last tensor; total is batch * OH * OW."""
    r = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.arange(0, C)
    m = r < total
    rest = r // OW
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    best = tl.full((BP, C), float("-inf"), tl.float32)
    for kh in tl.static_range(K):
        for kw in tl.static_range(K):
            ih = (rest % OH) * STRIDE - PAD + kh
            iw = (r % OW) * STRIDE - PAD + kw
            ok = m & (ih >= 0) & (ih < H) & (iw >= 0) & (iw < W)
            at = x_ptr + (((rest // OH) * H + ih) * W + iw)[:, None] * C + c[None, :]
            best = tl.maximum(best, tl.load(at, mask=ok[:, None], other=float("-inf")).to(tl.float32),
                              propagate_nan=tl.PropagateNan.ALL)  # fmt: skip
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    tl.store(out_ptr + r[:, None] * C + c[None, :], best.to(out_ptr.dtype.element_ty), mask=m[:, None])


@triton.jit
def mean(x_ptr, out_ptr, S, C, SP: tl.constexpr, BC: tl.constexpr, PDL: tl.constexpr):
    """The mean over S pixels of each channel of [batch, S, C]."""
    b = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    s = tl.arange(0, SP)
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    v = tl.load(x_ptr + b * S * C + s[:, None] * C + c[None, :], mask=(s < S)[:, None] & (c < C)[None, :], other=0.0)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    tl.store(out_ptr + b * C + c, (tl.sum(v.to(tl.float32), 0) / S).to(out_ptr.dtype.element_ty), mask=c < C)
