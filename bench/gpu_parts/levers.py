"""Levers: what each part of our way is worth, told by leaving it out."""

from __future__ import annotations

from bench.gpu_parts.ways import Way, compiled, eager, own, plain_graph
from tailorbird.backends.inductor.kernels.launching import Options
from tailorbird.domain.precision import Precision

FP16 = Precision.FP16

TABLE = (
    Way("eager FP32", Precision.FP32, False, eager(Precision.FP32, channels_last=False)),
    Way("eager FP16", FP16, False, eager(FP16)),
    Way("FP16 + CUDA graph", FP16, True, eager(FP16)),
    Way("torch.compile reduce-overhead", FP16, False, compiled("reduce-overhead", FP16)),
    Way("our passes + CUDA graph", FP16, True, plain_graph(FP16)),
    Way("our kernels FP16", FP16, True, own(FP16)),
    Way("our kernels BF16", Precision.BF16, True, own(Precision.BF16)),
)
"""Ways in the main table."""

EIGHT = Way("our kernels FP8", Precision.FP8, True, own(FP16, options=Options(eight_bits=True)))
"""For models of linear layers; they lie between 16-bit norms and attention."""

OVERLAPS = (0, 2, 3)
"""Ways of overlapping that the table does not have."""
MASKS = ("masks always true", "lookups made reshapes", "masks left to broadcast")
BERT = (
    Way("without joined Q, K, V", FP16, True, own(FP16, ("linear layers joined",))),
    Way("without our attention", FP16, True, own(FP16, ("attention fused",))),
    Way("mask expanded for every query", FP16, True, own(FP16, MASKS)),
    Way("without norms in the product's kernel", FP16, True, own(FP16, ("norms fused",))),
    Way("without activations in the product's kernel", FP16, True, own(FP16, ("linear layers fused",))),
    Way("exact GELU", FP16, True, own(FP16, (), Options(fast_gelu=False))),
)
RESNET = (
    Way("our passes, PyTorch's kernels", FP16, True, plain_graph(FP16)),
    Way("the same, batch norms not folded", FP16, True, plain_graph(FP16, ("batch norms folded",))),
    Way("the same, weights channels first", FP16, True, plain_graph(FP16, ("weights channels last",))),
    Way("eager FP16 in a CUDA graph, channels first", FP16, True, eager(FP16, channels_last=False)),
)
BOTH = (
    Way("kernels do not overlap", FP16, True, own(FP16, (), Options(overlap=0))),
    Way("weights asked for ahead", FP16, True, own(FP16, (), Options(overlap=2))),
    Way("kernels overlap early", FP16, True, own(FP16, (), Options(overlap=3))),
    Way("fused graph, PyTorch's kernels", FP16, True, own(FP16, library=True)),
    Way("without a CUDA graph", FP16, False, own(FP16)),
)
LEVERS = {"bert": (*BERT, *BOTH), "resnet": (*RESNET, *BOTH)}
"""Ways with one part left out, by model."""
