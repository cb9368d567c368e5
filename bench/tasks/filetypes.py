"""File types: magika on the files of this machine, labelled by their extensions.

Files come from places that every Linux machine with Python has: the standard library, the installed packages,
``/usr/share``, ``/usr/include`` and ``/usr/lib``. Only extensions that mean one thing take part; a type with too few
files is left out, so the score is this machine's and is held against FP32's on the same files. To which split a file
belongs is decided by its content, so that copies never sit on both sides.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from bench.tasks import LABELS, SPLITS, Array, Sample, in_batches

metric = "top1"
BATCH = 8
shapes = f"bytes:{BATCH}x2048"

COUNTS = {"calibration": 4, "gate": 8, "test": 16}
"""Files of each type."""
PORTIONS = {"calibration": 2, "gate": 4, "test": 8}
"""How the pools of the splits are to one another in size."""
CANDIDATES = 200
"""Files of a type that are looked into, at most."""
LEAST_BYTES, BLOCK = 64, 4096

TYPES = {
    "awk": ".awk", "batch": ".bat", "bzip": ".bz2", "c": ".c", "cmake": ".cmake", "cpp": ".cpp .hpp", "css": ".css",
    "csv": ".csv", "diff": ".diff .patch", "elf": ".so", "fortran": ".f90", "gif": ".gif", "go": ".go", "gzip": ".gz",
    "html": ".html", "jar": ".jar", "java": ".java", "javabytecode": ".class", "javascript": ".js",
    "jpeg": ".jpg .jpeg", "json": ".json", "latex": ".tex", "lua": ".lua", "m4": ".m4", "markdown": ".md",
    "npy": ".npy", "npz": ".npz", "onnx": ".onnx", "otf": ".otf", "parquet": ".parquet", "pdf": ".pdf",
    "pebin": ".exe .dll", "pem": ".pem", "perl": ".pl .pm", "php": ".php", "png": ".png", "po": ".po",
    "powershell": ".ps1", "proto": ".proto", "python": ".py", "pythonbytecode": ".pyc", "rst": ".rst", "ruby": ".rb",
    "rust": ".rs", "scss": ".scss", "shell": ".sh", "sql": ".sql", "svg": ".svg", "tcl": ".tcl", "toml": ".toml",
    "ttf": ".ttf", "wav": ".wav", "wasm": ".wasm", "webp": ".webp", "woff2": ".woff2", "xml": ".xml",
    "xz": ".xz", "yaml": ".yaml .yml", "zip": ".zip .whl",
}  # fmt: skip
"""Magika's label and the extensions that mean it. Not ``.h`` (C or C++), ``.ts`` (TypeScript or Qt), ``.txt``."""

_LABEL_OF = {extension: label for label, extensions in TYPES.items() for extension in extensions.split()}


def model() -> Path:
    """The zoo's magika."""
    from bench import zoo

    return zoo.path("magika")


def samples(split: str, seed: int = 0) -> list[Sample]:
    """As many files of each type, eight to a sample: ``bytes`` int32 as magika takes them, ``labels`` int64."""
    numbers = {label: number for number, label in enumerate(_labels())}
    picked = [(found, label) for label, splits in _pools().items() for found in _drawn(splits[split], split, seed)]
    random.Random(f"{split} {seed}").shuffle(picked)
    rows = {
        "bytes": np.stack([features for features, _ in picked]),
        LABELS: np.array([numbers[label] for _, label in picked], np.int64),
    }
    return in_batches(rows, BATCH)


def data() -> Iterator[Sample]:
    """What a build is given."""
    return chain(samples("calibration"), samples("gate"))


def types() -> list[str]:
    """Magika's labels of the types that this machine has enough files of."""
    return sorted(_pools())


def split_of(content: bytes) -> str:
    """The split that a file belongs to, by the digest of its features."""
    drawn = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % sum(PORTIONS.values())
    slots = [split for split in SPLITS for _ in range(PORTIONS[split])]
    return slots[drawn]


def _drawn(pool: list[Array], split: str, seed: int) -> list[Array]:
    return random.Random(f"{split} {seed}").sample(pool, COUNTS[split])


def _labels() -> list[str]:
    """The model's classes, in order, from the configuration in its own wheel."""
    from bench import zoo

    config = json.loads(zoo.MAGIKA.member(zoo.BYTES.replace("model.onnx", "config.min.json")))
    return list(config["target_labels_space"])


@cache
def _pools() -> dict[str, dict[str, list[Array]]]:
    """Features of files by label and split, where every split has enough."""
    known = set(_labels())
    pools = {label: _by_split(files) for label, files in sorted(_files().items()) if label in known}
    return {
        label: splits for label, splits in pools.items() if all(len(splits[name]) >= COUNTS[name] for name in SPLITS)
    }


def _by_split(files: Iterable[Path]) -> dict[str, list[Array]]:
    """Features of some of the files, without repetitions."""
    some = sorted(files, key=lambda path: hashlib.sha256(os.fsencode(path)).digest())[:CANDIDATES]
    found = {features.tobytes(): features for features in map(_read, some) if features is not None}
    pools: dict[str, list[Array]] = {split: [] for split in SPLITS}
    for content, features in found.items():
        pools[split_of(content)].append(features)
    return pools


def _read(path: Path) -> Array | None:
    """Magika's features of a file; None where it cannot be read or is too small to say anything."""
    from bench import zoo

    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < LEAST_BYTES:
                return None
            head = file.read(BLOCK)
            file.seek(max(0, size - BLOCK))
            tail = file.read(BLOCK)
    except OSError:
        return None
    return zoo._features(head + tail if size > BLOCK else head)


def _files() -> dict[str, list[Path]]:
    """Every regular file of a known extension below the roots, by label."""
    found: dict[str, list[Path]] = {}
    for root in _roots():
        for folder, _, names in os.walk(root):
            for name in names:
                label = _LABEL_OF.get(Path(name).suffix)
                if label and not (path := Path(folder, name)).is_symlink():
                    found.setdefault(label, []).append(path)
    return found


def _roots() -> list[str]:
    python = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return sorted({*python, "/usr/share", "/usr/include", "/usr/lib"})
