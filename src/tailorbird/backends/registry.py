"""Which backends there are: a table of name to class path, loaded on first use, and entry points of others."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from tailorbird.backends.base import Availability, Backend, vendor_border
from tailorbird.domain.errors import BackendError, UsageError, nearest

BUILT_IN = {
    "inductor": "tailorbird.backends.inductor.backend:InductorBackend",
    "inductor_cuda": "tailorbird.backends.inductor.backend:InductorCudaBackend",
    "onnxruntime": "tailorbird.backends.onnxruntime:OnnxRuntimeBackend",
    "openvino": "tailorbird.backends.openvino:OpenVinoBackend",
    "reference": "tailorbird.backends.reference:ReferenceBackend",
    "tensorrt": "tailorbird.backends.tensorrt:TensorRtBackend",
    "tensorrt_rtx": "tailorbird.backends.tensorrt_rtx:TensorRtRtxBackend",
}
ENTRY_POINTS = "tailorbird.backends"


def names() -> tuple[str, ...]:
    """Every known backend, built in or installed, in alphabetical order."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))}))


@cache
def backend(name: str) -> Backend:
    """The backend of that name; raises :class:`UsageError` naming the nearest one."""
    if name not in names():
        close = nearest(name, names())
        hint = f"did you mean '{close}'?" if close else None
        raise UsageError(f"unknown backend '{name}'", expected=", ".join(names()), hint=hint)
    if name in BUILT_IN:
        return _load(BUILT_IN[name])()
    with vendor_border(name, "load its plug-in"):
        return _installed(name)()


def report() -> dict[str, Availability]:
    """Availability of every known backend."""
    return {name: _probe(name) for name in names()}


def available() -> tuple[Backend, ...]:
    """The backends that can be used on this machine."""
    return tuple(backend(name) for name, found in report().items() if found.available)


def _probe(name: str) -> Availability:
    try:
        return backend(name).probe()
    except BackendError as error:  # somebody else's plug-in must not take the built-in backends away
        return Availability(available=False, reason=error.message)


def _load(path: str) -> type[Backend]:
    module, _, attribute = path.partition(":")
    kind: type[Backend] = getattr(importlib.import_module(module), attribute)
    return kind


def _installed(name: str) -> type[Backend]:
    kind: type[Backend] = entry_points(group=ENTRY_POINTS)[name].load()
    return kind
