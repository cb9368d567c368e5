"""The fingerprint: all that a build follows from, as named ingredients, found without importing a runtime.

A flat mapping from name to text, so that a key can be read, stored and compared by people. What is left out follows
from what is in it (the shapes follow from data and settings), or does not shape the result (the cache's place).
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

import msgspec

from tailorbird import __version__
from tailorbird.backends.host import device_facts, usable_cores
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.digest import digest_bytes, digest_file

PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "openvino", "nncf", "torch")
"""Whose versions shape what a build comes to."""

OPTIONAL = ("onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu12-bindings", "tensorrt-cu13",
            "tensorrt-cu13-bindings", "tensorrt-rtx", "tensorrt-rtx-cu12-bindings",
            "tensorrt-rtx-cu13-bindings", "triton")  # fmt: skip
"""The same, told only where they are installed: few machines have one of them."""

NAMED_FILES = ("TAILORBIRD_TUNED",)
"""Variables of the environment that name a file by which a backend goes."""

ENTRY_POINTS = ("tailorbird.backends", "tailorbird.quantisers")
"""Groups through which other distributions join a build."""

OURS = ("api", "backends", "builder", "domain", "repository")
"""The parts of this package that shape what a build comes to; servers and command lines do not."""

_ABSENT = "not installed"

_CONTENT = frozenset({"cache", "data"})
"""Settings that are no ingredients: where the cache is means nothing, and the data counts by its content."""

_NORMALISING = ("builder/cases", "builder/gate", "builder/graph", "builder/groundwork.py", "builder/prepare.py",
                "builder/sources", "domain")  # fmt: skip
"""What normalises, and what finds the index limits that are kept beside the graph."""
_REFERENCE = ("backends",)


def fingerprint(files: Mapping[str, str], config: BuildConfig, name: str, source: str) -> dict[str, str]:
    """The key of a whole build.

    Args:
        files: digests of source, external data and data, by ingredient.
        config: the settings.
        name: of the model.
        source: the source's own name, as the manifest has it.
    """
    return {
        **files,
        "source name": source,
        "name": name,
        **settings(config),
        "metric code": code_of(config.budget.metric or config.metric),
        "threads in use": str(max(config.threads, default=usable_cores())),
        "tailorbird": __version__,
        "tailorbird code": code_digest(OURS),
        **versions(),
        **named_files(),
        **{f"device {fact}": text for fact, text in device_facts().items()},
    }


def normalised_key(whole: Mapping[str, str], skip: tuple[str, ...]) -> dict[str, str]:
    """The key of a normalised graph: no data, no budget, no device.

    Args:
        whole: the build's fingerprint.
        skip: passes that are left out.
    """
    return {
        **_taken(whole, ("source", "external data ", "onnx ", "onnx-ir ", "torch ", "onnxscript ")),
        "left out": " ".join(skip),
        "tailorbird code": code_digest(_NORMALISING),
    }


def references_key(whole: Mapping[str, str], skip: tuple[str, ...]) -> dict[str, str]:
    """The key of inputs and reference outputs; arguments as of :func:`normalised_key`."""
    taken = ("data", "min_shapes", "opt_shapes", "max_shapes", "labels", "metric", "budget.metric", "seed", "limits.")
    tools = ("threads in use", "numpy ", "onnxruntime ", "openvino ", "plug-in ", "device isa", "device arch")
    return {
        **normalised_key(whole, skip),
        **_taken(whole, (*taken, *tools)),
        "tailorbird code": code_digest((*_NORMALISING, *_REFERENCE)),
    }


def settings(config: BuildConfig) -> dict[str, str]:
    """Every setting that shapes the result, by its name in ``tailorbird.toml``; limits and budgets among them."""
    found: dict[str, str] = {}
    for key, value in msgspec.to_builtins(config).items():
        if key in _CONTENT:
            continue
        parts = {f"{key}.{part}": inner for part, inner in value.items()} if isinstance(value, dict) else {key: value}
        found |= {part: _text(inner) for part, inner in parts.items()}
    return found


def versions() -> dict[str, str]:
    """Versions of runtimes, tools and plug-ins that are installed; nothing of them is imported."""
    found = {f"{package} version": version_of(package) for package in PACKAGES}
    found |= {f"{package} version": text for package in OPTIONAL if (text := version_of(package)) != _ABSENT}
    for group in ENTRY_POINTS:
        for point in sorted(importlib.metadata.entry_points(group=group)):
            made_by = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
            found[f"plug-in {point.name}"] = f"{point.value} of {made_by}"
    return found


def named_files() -> dict[str, str]:
    """Digests of the files that the environment names, where it does and they are there."""
    found = ((name, Path(os.environ.get(name, ""))) for name in NAMED_FILES)
    return {f"${name}": digest_file(path) for name, path in found if path.is_file()}


def version_of(package: str) -> str:
    """Of an installed distribution; ``not installed`` where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return _ABSENT


@cache
def code_digest(parts: tuple[str, ...] = OURS) -> str:
    """Digest of this package's own code: development trees change without their version changing.

    Args:
        parts: files and folders, relative to the package.
    """
    root = Path(__file__).parents[1]
    files = sorted({file for part in parts for file in _sources(root / part)})
    return digest_bytes("".join(f"{digest_file(file)} {file.relative_to(root)}\n" for file in files).encode())


def code_of(metric: str) -> str:
    """Digest of the file that holds a ``module:callable``, found without running it; empty for built-in names."""
    module, colon, _ = metric.partition(":")
    if not colon:
        return ""
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    for depth in range(module.count(".") + 1):
        found = PathFinder.find_spec(".".join(module.split(".")[: depth + 1]), places)
        if found is None:
            return "not found"
        places = list(found.submodule_search_locations or ())
        origin = found.origin
    return digest_file(Path(origin)) if origin and Path(origin).is_file() else "not found"


def _sources(path: Path) -> Iterator[Path]:
    return path.rglob("*.py") if path.is_dir() else iter([path])


def _taken(whole: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: text for name, text in whole.items() if name.startswith(prefixes) and name != "source name"}


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
