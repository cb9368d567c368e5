"""The models of ``tests.contract.models`` as PyTorch programs: what backends that compile programs are held to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends.program import Names, save_program
from tests.contract import models
from tests.contract.models import Case

torch = pytest.importorskip("torch")


class Function(torch.nn.Module):  # type: ignore[misc]
    """A function with its weights, which become the program's."""

    def __init__(self, function: Callable[..., tuple[Any, ...]], **weights: Any) -> None:
        super().__init__()
        self._function = function
        for name, weight in weights.items():
            self.register_buffer(name, torch.from_numpy(weight))

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        return self._function(*inputs, **dict(self.named_buffers()))


def _block(image: Any, one: Any, two: Any, product: Any) -> tuple[Any, ...]:
    first = torch.relu(torch.conv2d(image, one, padding=1))
    second = torch.relu(torch.conv2d(first, two, padding=1) + first)
    return (second.mean((2, 3)) @ product,)


def module_of(case: Case) -> Any:
    """The case as a module on positional tensors; weights are those of its ONNX model."""
    functions: dict[str, Callable[..., tuple[Any, ...]]] = {
        "dense": lambda x, w: (torch.relu(x @ w),),
        "embedding": lambda ids, table: (torch.nn.functional.embedding(ids, table),),
        "whole_numbers": lambda i, k: (i + k,),
        "convolution": lambda image, k: (torch.conv2d(image, k),),
        "choice": lambda which, a, scale: (torch.where(which, a * scale, a), ~which, a * scale),
        "twins": lambda x: (-x, -x, x),
        "block": _block,
    }
    weights = {one.name: models.numpy_helper.to_array(one).copy() for one in case.model.graph.initializer}
    return Function(functions.get(case.name, lambda x: (x,)), **weights).eval()


def write(case: Case, folder: Path) -> Path:
    """The case as a backend is given a program: ``case.write`` for programs."""
    profile = case.profile
    shapes, examples = [], []
    for spec in case.signature.inputs:
        ranges = list(zip(profile.min[spec.name], profile.max[spec.name], strict=True))
        shapes.append({at: torch.export.Dim.AUTO for at, (low, high) in enumerate(ranges) if low != high})
        sizes = [max(size, 2) if low != high else size
                 for size, (low, high) in zip(profile.opt[spec.name], ranges, strict=True)]  # fmt: skip
        examples.append(torch.zeros(sizes, dtype=getattr(torch, str(spec.dtype.numpy))))
    program = torch.export.export(module_of(case), tuple(examples), dynamic_shapes={"inputs": tuple(shapes)})
    names = Names(tuple(spec.name for spec in case.signature.inputs), tuple(o.name for o in case.signature.outputs))
    path = folder / f"{case.name}.pt2"
    save_program(program, names, path)
    return path
