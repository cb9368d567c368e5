"""The two models: where they come from, the shape each is built for, and real inputs for the build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tailorbird.builder.cases.data import save_set
from tailorbird.demo.pages import HEIGHT, WIDTH, pages
from tailorbird.demo.strips import STRIP_HEIGHT, STRIP_WIDTH, cut, normalised, strip
from tailorbird.demo.wheel import Wheel
from tailorbird.domain.dtype import Array

RAPIDOCR = Wheel("rapidocr", "3.10.0", "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050")
INPUT = "x"
"""The one input of both models."""


def detector_inputs() -> Iterator[Array]:
    """The pages as other cameras would have seen them."""
    for seed in (1, 2):
        yield from (normalised(page.pixels) for page in pages(seed))


def recogniser_inputs() -> Iterator[Array]:
    """Every line of the pages, set afresh in dark on light."""
    for page in pages():
        for line in page.lines:
            yield from (strip(piece) for piece in cut(_set(line)))


def _set(text: str) -> Array:
    font = ImageFont.load_default(34)
    image = Image.new("RGB", (round(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(text, font)) + 12, 48), "ivory")
    ImageDraw.Draw(image).text((6, 4), text, "#22201f", font)
    return np.asarray(image)


@dataclass(frozen=True)
class Model:
    """One trained model of the demo."""

    name: str
    """In the repository."""
    does: str
    member: str
    """Its file in the wheel."""
    shape: tuple[int, ...]
    inputs: Callable[[], Iterator[Array]]

    @property
    def shapes(self) -> str:
        """The shape it is built for, in trtexec's grammar."""
        return f"{INPUT}:{'x'.join(map(str, self.shape))}"

    def fetch(self, folder: Path) -> Path:
        """Its ONNX file, written into a folder; raises as :meth:`Wheel.file`."""
        target = folder / f"{self.name}.onnx"
        RAPIDOCR.extract(f"rapidocr/models/{self.member}", target)
        return target

    def write_inputs(self, folder: Path) -> Path:
        """Real inputs as a folder of ``.npz`` files, which a build takes as ``data``."""
        samples = folder / f"{self.name}-data"
        samples.mkdir()
        for number, array in enumerate(self.inputs()):
            save_set(samples / f"{number:03}.npz", {INPUT: array})
        return samples


DETECTOR = Model("ocr-detect", "finds the lines of text on a page", "PP-OCRv6_det_small.onnx",
                 (1, 3, HEIGHT, WIDTH), detector_inputs)  # fmt: skip
RECOGNISER = Model("ocr-read", "reads one line of text", "PP-OCRv6_rec_small.onnx",
                   (1, 3, STRIP_HEIGHT, STRIP_WIDTH), recogniser_inputs)  # fmt: skip
