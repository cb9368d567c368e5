"""Does a backend take a model as it is? Tried for real, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.backends import registry
from tailorbird.backends.base import Backend, Capabilities
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Shape, Signature


class TrialArgs(msgspec.Struct, frozen=True):
    """A backend, a model with its weights inside or beside it, a directory to make, and the input shapes if known."""

    backend: str
    model: str
    folder: str
    signature: Signature
    shapes: dict[str, Shape] | None


class Trial(msgspec.Struct, frozen=True):
    """What stood in the way, in the backend's words; nothing when it took the model."""

    obstacles: tuple[str, ...] = ()


def try_backend(args: TrialArgs) -> Trial:
    """Compile the model and open the engine, with FP32 and one thread; never raises on purpose."""
    backend = registry.backend(args.backend)
    found = backend.probe()
    if not found.available:
        return Trial((f"not available here: {found.reason}; {found.install}",))
    try:
        return _attempt(backend, backend.capabilities(), args)
    except TailorbirdError as error:
        return Trial((error.message.replace("\n", "; "),))


def _attempt(backend: Backend, able: Capabilities, args: TrialArgs) -> Trial:
    if able.form is Form.PROGRAM:
        return Trial(("compiles PyTorch programs, not ONNX: what became of one, a build says",))
    dynamic = bool(args.signature.dynamic_dims)
    if args.shapes is None and dynamic and not able.dynamic_shapes:
        return Trial(("takes fixed shapes only: give --shapes",))
    mode = ShapeMode.DYNAMIC if dynamic and able.dynamic_shapes else ShapeMode.STATIC
    profile = Profile.static(args.shapes or _ones(args.signature))
    options = able.variants[0] if able.variants else {}
    candidate = Candidate(able.target, able.precisions[0], profile, mode, 1, options)
    folder = Path(args.folder)
    folder.mkdir()
    backend.compile(Path(args.model), candidate, folder)
    backend.open(folder, candidate, args.signature).close()
    return Trial()


def _ones(signature: Signature) -> dict[str, Shape]:
    """Shapes to name where none are known; an engine with dynamic dims is not compiled for them."""
    return {spec.name: tuple(dim if isinstance(dim, int) else 1 for dim in spec.dims) for spec in signature.inputs}
