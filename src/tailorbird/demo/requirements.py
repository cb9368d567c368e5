"""What the demo needs beyond the runtimes."""

from __future__ import annotations

from importlib.util import find_spec

from tailorbird.domain.errors import UsageError

NEEDED = {
    "PIL": "pillow",
    "geventhttpclient": "tritonclient[http]",
    "tritonclient": "tritonclient[http]",
    "onnx": "onnx",
}
"""Packages by the name they are imported under."""


def check_requirements() -> None:
    """Say what is missing before anything is begun.

    Raises:
        UsageError: a package is not installed; the hint is the command that installs all.
    """
    missing = dict.fromkeys(package for module, package in NEEDED.items() if find_spec(module) is None)
    if missing:
        raise UsageError("the demo lacks packages", got=f"no {', '.join(missing)}",
                         hint="pip install 'tailorbird[cpu,demo]'")  # fmt: skip
