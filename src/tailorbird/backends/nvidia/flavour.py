"""The flavours of TensorRT: where they differ, as data, and how the vendor's module is found."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from typing import Any

import msgspec

from tailorbird.domain.errors import BackendUnavailable


class Flavour(msgspec.Struct, frozen=True):
    """One of NVIDIA's builders with its runtime."""

    name: str
    """The backend's."""
    title: str
    """As NVIDIA writes it."""
    modules: tuple[str, ...]
    """Where the API may be found: the first that is installed."""
    distributions: tuple[str, ...]
    """Packages that may bring it, whose version is the runtime's."""
    install: str
    magic: bytes
    """The first four bytes of every plan."""
    options: frozenset[str]
    """Candidate options that it has, of :data:`tailorbird.backends.nvidia.options.SETTINGS`."""
    ahead_of_time: bool
    """Whether it builds without a device, for a compute capability that is named."""
    architectures: tuple[str, ...] = ()
    """Those it has kernels for, where not all of them."""


def vendor(flavour: Flavour) -> Any:
    """The module with the flavour's API.

    Raises:
        BackendUnavailable: none of its packages is installed.
    """
    for name in flavour.modules:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # it is there, and lacks something: say what
                raise
    raise BackendUnavailable(f"{flavour.title} is not installed", hint=flavour.install)


@cache
def version(flavour: Flavour) -> str:
    """The runtime's version, from the package's own record where there is one: the libraries are large to load.

    Raises:
        BackendUnavailable: none of its packages is installed.
    """
    for name in flavour.distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return str(vendor(flavour).__version__)
