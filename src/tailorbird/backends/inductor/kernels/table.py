"""Which kernel runs which fused operator."""

from __future__ import annotations

from tailorbird.backends.inductor.kernels.launch_attention import Attention, Attention8
from tailorbird.backends.inductor.kernels.launch_convolutions import Conv, ConvPair
from tailorbird.backends.inductor.kernels.launch_eight import Linear8, LinearNorm8, Rows8
from tailorbird.backends.inductor.kernels.launch_pictures import ConvFirst, MaxPool, MeanPool
from tailorbird.backends.inductor.kernels.launch_products import (
    EmbedNorm,
    Linear,
    LinearNorm,
    LinearNormWide,
    LinearSumNorm,
    LinearWide,
)
from tailorbird.backends.inductor.kernels.launching import Kernel

KERNELS: dict[str, type[Kernel]] = {
    kind.operator: kind
    for kind in (Linear, LinearWide, LinearNorm, LinearNormWide, LinearSumNorm, EmbedNorm, Attention, Conv, ConvPair,
                 ConvFirst, MaxPool, MeanPool, Rows8, Linear8, LinearNorm8, Attention8)
}  # fmt: skip
"""Every fused operator's kernel."""
