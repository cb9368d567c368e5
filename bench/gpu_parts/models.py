"""The two models of the GPU benchmark, as Hugging Face has them, and fresh inputs for each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.zoo import bert_base, resnet50

Tensors = dict[str, Any]
SETS = 4
"""Sets of inputs that runs go through in turn."""


@dataclass
class Model:
    """A model, its FP32 program, and inputs by batch."""

    name: str
    module: Any
    program: Any
    inputs: Callable[[int, int], Tensors]
    outputs: tuple[str, ...]

    def sets(self, batch: int) -> list[Tensors]:
        """As many sets of inputs as runs go through."""
        return [self.inputs(batch, seed) for seed in range(SETS)]

    def reference(self, given: Tensors) -> Tensors:
        """The answers of the eager FP32 module, which lies on the GPU."""
        with torch.no_grad():
            found = self.module(**{name: one.cuda() for name, one in given.items()})
        return dict(zip(self.outputs, found.values(), strict=True))


def bert() -> Model:
    """BERT-base at 128 tokens: token ids and mask in, hidden states and pooled output out."""
    module, example = bert_base()
    return _model("BERT-base s128", module, example, _tokens, ("hidden", "pooled"))


def resnet() -> Model:
    """ResNet-50 at 224 x 224: logits of a thousand classes."""
    module, example = resnet50()
    return _model("ResNet-50", module, example, _pictures, ("logits",))


MODELS = {"bert": bert, "resnet": resnet}


def _model(name: str, module: Any, example: Tensors, inputs: Callable[[int, int], Tensors],
           outputs: tuple[str, ...]) -> Model:  # fmt: skip
    shapes = {key: {0: torch.export.Dim.AUTO} for key in example}
    with torch.no_grad():
        program = torch.export.export(module, (), example, dynamic_shapes=shapes, strict=False)
    return Model(name, copy.deepcopy(module).cuda(), program, inputs, outputs)  # the program shares its weights


def _tokens(batch: int, seed: int) -> Tensors:
    """Random tokens; of two rows one is full, the other ends anywhere and is padded."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(8, 129, batch)
    ends[seed % 2 :: 2] = 128
    mask = np.arange(128) < ends[:, None]
    ids = np.where(mask, rng.integers(1000, 30000, (batch, 128)), 0)
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def _pictures(batch: int, seed: int) -> Tensors:
    from bench.zoo import _images

    return {"pixel_values": torch.from_numpy(_images({"pixel_values": (batch, 3, 224, 224)}, seed)["pixel_values"])}


def pooled_bert() -> tuple[Any, Tensors]:
    """BERT-base whose one output is the pooled one: what is served, for hidden states are megabytes a request."""
    module, example = bert_base()

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask).pooler_output

    return Pooled().eval(), example
