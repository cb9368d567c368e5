"""Convolutions as matrix products over channels-last tensors, with bias, residual and ReLU in the same kernel.

A program makes ``BM`` output pixels of ``BN`` channels; its product runs over taps and input channels ("implicit
GEMM"). With ``SPLIT``, several programs share a tile's product: each leaves its part, and the last to finish adds them.
"""
# mypy: ignore-errors
# ruff: noqa: C901, N803, PLR0912, PLR0913, PLR0915, PLR0917, SIM108

import triton
import triton.language as tl

from tailorbird.backends.inductor.kernels.device.products import activate, prefetch


@triton.jit
def _finish(acc, bias_ptr, residual_ptr, out_ptr, off, rn, N, inside, ACT: tl.constexpr, RESIDUAL: tl.constexpr):
    acc += tl.load(bias_ptr + rn, mask=rn < N, other=0.0)[None, :].to(tl.float32)
    if RESIDUAL:
        acc += tl.load(residual_ptr + off, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + off, activate(acc, ACT).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def convolve(x_ptr, w_ptr, bias_ptr, residual_ptr, out_ptr, parts_ptr, seen_ptr, M, N, H, W, OH, OW, CIN, STEPS,
             KH: tl.constexpr, KW: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr, CB: tl.constexpr,
             BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, EVEN: tl.constexpr,
             ACT: tl.constexpr, RESIDUAL: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    """One tile of ``act(conv(x, w) + bias + residual)``; ``CB`` is CIN / BK, known where there are several taps.

    Args:
        x_ptr: [batch, H, W, CIN].
        w_ptr: [N, KH, KW, CIN].
        out_ptr: [batch, OH, OW, N], as is the residual; M is batch * OH * OW.
        parts_ptr: FP32 [splits, M, N], and ``seen_ptr`` a zeroed counter for each tile, which is zero again after.
    """
    pm = tl.program_id(0)
    pn = tl.program_id(1)
    pk = tl.program_id(2)
    rm = pm * BM + tl.arange(0, BM)
    rn = pn * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    mm = rm < M
    pixel = tl.where(mm, rm, 0)
    rest = pixel // OW
    ih0 = (rest % OH) * STRIDE - PAD
    iw0 = (pixel % OW) * STRIDE - PAD
    base = ((rest // OH) * H + ih0) * W + iw0
    weights = w_ptr + rn[:, None] * (KH * KW * CIN) + rk[None, :]
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL == 2:
        prefetch(w_ptr, pn * BN, BN, N, KH * KW * CIN, pk * STEPS * BK, STEPS * BK)
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(STEPS):
        s = pk * STEPS + i
        if KH * KW == 1:
            at = x_ptr + base[:, None] * CIN + (s * BK + rk)[None, :]
            ok = mm
        else:
            tap = s // CB
            kh = tap // KW
            kw = tap % KW
            at = x_ptr + (base + kh * W + kw)[:, None] * CIN + ((s % CB) * BK + rk)[None, :]
            ok = mm & (ih0 + kh >= 0) & (ih0 + kh < H) & (iw0 + kw >= 0) & (iw0 + kw < W)
        a = tl.load(at, mask=ok[:, None], other=0.0)
        if EVEN:
            w = tl.load(weights + s * BK)
        else:
            w = tl.load(weights + s * BK, mask=(rn < N)[:, None], other=0.0)
        acc = tl.dot(a, w.T, acc)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    off = rm[:, None] * N + rn[None, :]
    inside = mm[:, None] & (rn[None, :] < N)
    if SPLIT:
        tl.store(parts_ptr + pk * M * N + off, acc, mask=inside)
        tl.debug_barrier()
        splits = tl.num_programs(2)
        tile = pm * tl.num_programs(1) + pn
        seen = tl.atomic_add(seen_ptr + tile, 1, sem="acq_rel")
        if seen == splits - 1:
            acc = tl.zeros((BM, BN), dtype=tl.float32)
            for part in range(splits):
                acc += tl.load(parts_ptr + part * M * N + off, mask=inside, other=0.0, cache_modifier=".cg")
            tl.store(seen_ptr + tile, 0)
            _finish(acc, bias_ptr, residual_ptr, out_ptr, off, rn, N, inside, ACT, RESIDUAL)
    else:
        _finish(acc, bias_ptr, residual_ptr, out_ptr, off, rn, N, inside, ACT, RESIDUAL)


@triton.jit
def convolve_pair(y_ptr, w_ptr, x_ptr, v_ptr, bias_ptr, out_ptr, M, N, H, W, OH, OW, C1, C2, STRIDE: tl.constexpr,
                  BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr, ACT: tl.constexpr,
                  PDL: tl.constexpr):  # fmt: skip
    """``act(y @ w.T + x[every STRIDE-th pixel] @ v.T + bias)``: a block's last 1x1 and its shortcut in one sum."""
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    mm = rm < M
    pixel = tl.where(mm, rm, 0)
    rest = pixel // OW
    base = ((rest // OH) * H + (rest % OH) * STRIDE) * W + (pixel % OW) * STRIDE
    even_n = (rn < N)[:, None]
    if PDL == 3:
        tl.extra.cuda.gdc_launch_dependents()
    if PDL == 2:
        prefetch(w_ptr, tl.program_id(1) * BN, BN, N, C1, 0, C1)
        prefetch(v_ptr, tl.program_id(1) * BN, BN, N, C2, 0, C2)
    if PDL > 0:
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    ys = y_ptr + pixel[:, None] * C1 + rk[None, :]
    ws = w_ptr + rn[:, None] * C1 + rk[None, :]
    for i in range(C1 // BK):
        w = tl.load(ws + i * BK) if EVEN else tl.load(ws + i * BK, mask=even_n, other=0.0)
        acc = tl.dot(tl.load(ys + i * BK), w.T, acc)
    xs = x_ptr + base[:, None] * C2 + rk[None, :]
    vs = v_ptr + rn[:, None] * C2 + rk[None, :]
    for i in range(C2 // BK):
        v = tl.load(vs + i * BK) if EVEN else tl.load(vs + i * BK, mask=even_n, other=0.0)
        acc = tl.dot(tl.load(xs + i * BK), v.T, acc)
    if PDL % 3 != 0:
        tl.extra.cuda.gdc_launch_dependents()
    off = rm[:, None] * N + rn[None, :]
    _finish(acc, bias_ptr, out_ptr, out_ptr, off, rn, N, mm[:, None] & (rn[None, :] < N), ACT, False)
