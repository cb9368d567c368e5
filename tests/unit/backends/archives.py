"""A small program's archive, and the same one altered."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends.program import Names, save_program

torch = pytest.importorskip("torch")

NAMES = Names(("x",), ("y",))


class Scaled(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.register_buffer("mask", torch.tensor([1.0, 0.0]), persistent=False)

    def forward(self, x: Any) -> Any:
        return (self.layer(x) * self.mask + torch.tensor([1.0, 2.0]),)


def exported() -> Any:
    return torch.export.export(Scaled().eval(), (torch.ones(2, 3),))


def rewritten(path: Path, edit: Callable[[dict[str, Any]], None], **more: bytes) -> None:
    """The same archive with another graph, and files more."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (graph,) = (name for name in content if name.endswith("models/model.json"))
    record = json.loads(content[graph])
    edit(record)
    content[graph] = json.dumps(record).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | more).items():
            archive.writestr(name, data)


def saved(folder: Path) -> Path:
    """The program as Tailorbird writes it."""
    save_program(exported(), NAMES, folder / "p.pt2")
    return folder / "p.pt2"


def members(path: Path) -> dict[str, bytes]:
    """All of an archive's members by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
