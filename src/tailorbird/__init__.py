"""Tailorbird: from a trained model to the fastest engine that is still right, served.

The names below are the whole public interface; each is loaded on first use, so that importing the
package costs nothing and touches no vendor package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailorbird.api import (
        Result,
        bill_of_materials,
        build,
        compare,
        doctor,
        inspect,
        make_kit,
        open,
        publish,
        qualify,
        rebuild,
        serve,
    )
    from tailorbird.domain.config import BuildConfig
    from tailorbird.domain.errors import TailorbirdError
    from tailorbird.domain.signature import Tensors

__version__ = "0.1.0"
__all__ = [
    "BuildConfig",
    "Result",
    "TailorbirdError",
    "Tensors",
    "bill_of_materials",
    "build",
    "compare",
    "doctor",
    "inspect",
    "make_kit",
    "open",
    "publish",
    "qualify",
    "rebuild",
    "serve",
]

_HOMES = {
    "BuildConfig": "tailorbird.domain.config",
    "TailorbirdError": "tailorbird.domain.errors",
    "Tensors": "tailorbird.domain.signature",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tailorbird' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "tailorbird.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
