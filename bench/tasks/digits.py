"""Handwritten digits: a small convolutional network, trained here on scikit-learn's ``load_digits``.

The 8 x 8 pictures of the UCI test set (1797 of them) are enlarged to 32 x 32, so that convolution dominates as it
does in larger networks. Training takes under a minute on two cores, is seeded, and happens once: the model is kept
beside the zoo's. It has seen none of the pictures of the three splits.

``python -m bench.tasks.digits FILE`` trains and writes the ONNX file.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bench.tasks import LABELS, Array, Sample, in_batches

metric = "top1"
BATCH = 8
SIDE = 32
shapes = f"pixels:{BATCH}x1x{SIDE}x{SIDE}"

COUNTS = {"train": 837, "calibration": 64, "gate": 360, "test": 536}
EPOCHS = 6
LEAST = 98.0
"""Percent right on the test split, or training has gone wrong."""


def model() -> Path:
    """The trained network as ONNX, batch dim dynamic; trained first, in a process of its own, if it is absent."""
    from bench import zoo
    from tailorbird.demo.wheel import whole

    folder = zoo.root() / "digits-cnn"
    if not folder.exists():
        with whole(folder) as unfinished:
            _train_apart(unfinished / "digits-cnn.onnx")
    return folder / "digits-cnn.onnx"


def _train_apart(target: Path) -> None:
    """In a process of its own, so that torch's threads and memory never sit beside a measurement."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.tasks.digits", str(target.resolve())]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the network of the digits could not be made:\n{done.stderr[-2000:]}")


def samples(split: str, seed: int = 0) -> list[Sample]:
    """Pictures with their digits, eight to a sample: ``pixels`` float32 of 0 to 1, ``labels`` int64."""
    pixels, labels = _split(split)
    order = np.random.default_rng(seed).permutation(len(labels))
    return in_batches({"pixels": pixels[order], LABELS: labels[order]}, BATCH)


def data() -> Iterator[Sample]:
    """What a build is given."""
    return chain(samples("calibration"), samples("gate"))


def enlarged(pictures: Array) -> Array:
    """Pictures at four times their side, each pixel in between weighed from its neighbours (bilinear).

    Args:
        pictures: float32, count x 8 x 8.

    Returns:
        float32, count x 1 x 32 x 32.
    """
    old = pictures.shape[1]
    at = np.clip((np.arange(SIDE) + 0.5) * old / SIDE - 0.5, 0, old - 1)
    low = np.minimum(at.astype(int), old - 2)
    weights = np.zeros((SIDE, old), np.float32)
    weights[np.arange(SIDE), low] = 1 - (at - low)
    weights[np.arange(SIDE), low + 1] = at - low
    return np.ascontiguousarray((weights @ pictures @ weights.T)[:, None], np.float32)


@cache
def _all() -> tuple[Array, Array]:
    found = import_module("sklearn.datasets").load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return enlarged(found.images[order].astype(np.float32) / 16), found.target[order].astype(np.int64)


def _split(split: str) -> tuple[Array, Array]:
    pixels, labels = _all()
    ends = dict(zip(COUNTS, np.cumsum(list(COUNTS.values())).tolist(), strict=True))
    part = slice(ends[split] - COUNTS[split], ends[split])
    return pixels[part], labels[part]


def train(target: Path) -> float:
    """Train, write as ONNX; the percent right on the test split.

    Raises:
        RuntimeError: fewer than 98 % of the test split are right.
    """
    import torch

    torch.manual_seed(0)
    network = _network()
    _fit(network, *(torch.from_numpy(array) for array in _split("train")))
    network.eval()
    pixels, labels = _split("test")
    with torch.inference_mode():
        right = 100 * float((network(torch.from_numpy(pixels)).argmax(1).numpy() == labels).mean())
    if right < LEAST:
        raise RuntimeError(f"the network reads {right:.1f} % of the test split, expected at least {LEAST:g} %")
    settings: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["scores"], "dynamo": True}
    torch.onnx.export(network, (torch.from_numpy(pixels[:2]),), str(target), dynamic_shapes=({0: "batch"},),
                      opset_version=18, external_data=False, verbose=False, **settings)  # fmt: skip
    return right


def _network() -> Any:
    from torch import nn

    def block(narrow: int, wide: int) -> list[Any]:
        sizes = ((narrow, wide, 2), (wide, wide, 1))
        return [layer for few, many, stride in sizes for layer in (
            nn.Conv2d(few, many, 3, stride, padding=1, bias=False), nn.BatchNorm2d(many), nn.ReLU())]  # fmt: skip

    layers = [*block(1, 24), *block(24, 48), *block(48, 96), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(96, 10))


def _fit(network: Any, pixels: Any, labels: Any) -> None:
    """One cycle of the learning rate over shifted pictures."""
    import torch

    steps = EPOCHS * (len(labels) // 32)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    order = torch.cat([torch.randperm(len(labels)) for _ in range(EPOCHS + 1)])[: steps * 32]
    for rows in order.split(32):
        down, right = torch.randint(-3, 4, (2,)).tolist()
        loss = torch.nn.functional.cross_entropy(network(pixels[rows].roll((down, right), (2, 3))), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pace.step()


if __name__ == "__main__":
    print(f"{train(Path(sys.argv[1])):.2f} % of the test split")
