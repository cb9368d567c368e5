"""The oracle: what the source answers in FP32, which every engine is judged against.

For ONNX it is a backend that can compute the graph as written, without optimisation; a second, slower
one cross-checks it where that is feasible. For PyTorch it is the program itself, eager.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from tailorbird.backends import registry
from tailorbird.backends.base import Backend, Session
from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import ModelError, TailorbirdError
from tailorbird.domain.fidelity import CAP_DB, snr_db
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature

AGREE_DB = 60.0
"""Two FP32 computations of one graph differ by rounding alone, far above this signal-to-noise ratio."""


class OracleArgs(msgspec.Struct, frozen=True):
    """A model and the sets of inputs to answer; each answer is written beside its inputs' name."""

    model: str
    signature: Signature
    profile: Profile
    threads: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    backend: str = ""
    """Empty for the first backend that can; otherwise this one."""


class OracleReport(msgspec.Struct, frozen=True):
    """Which backend answered."""

    oracle: str


class CrossCheck(msgspec.Struct, frozen=True):
    """A second oracle's agreement with the first, as the least SNR in dB over all outputs."""

    snr_db: float


def answer(args: OracleArgs) -> OracleReport:
    """Write the source's outputs for every set of inputs; raises :class:`ModelError` when none can run it."""
    refusals = []
    for backend in oracles(args.backend):
        try:
            with as_written(backend, args) as session:
                for inputs, outputs in zip(args.inputs, args.outputs, strict=True):
                    save_set(Path(outputs), session.run(load_set(Path(inputs))))
            return OracleReport(f"{backend.name} {backend.probe().version}")
        except TailorbirdError as error:
            if isinstance(error.__cause__, OSError):  # a full disk says nothing about the model
                raise
            refusals.append(f"{backend.name}: {error.message}")
    raise ModelError("no reference runtime can run the model", got="; ".join(refusals) or "no such runtime here",
                     hint="tailorbird doctor says what is missing")  # fmt: skip


def cross_check(args: OracleArgs) -> CrossCheck:
    """Compare outputs already written with those of another oracle, on the first set of inputs."""
    backend = next(iter(oracles(args.backend)))
    known = load_set(Path(args.outputs[0]))
    with as_written(backend, args) as session:
        fresh = session.run(load_set(Path(args.inputs[0])))
    return CrossCheck(min(_agreement(known[name], fresh[name]) for name in known))


def oracles(name: str = "") -> list[Backend]:
    """Backends that compute a graph as it is written, the preferred first; of one name, or of all that are here."""
    chosen = (registry.backend(name),) if name else registry.available()
    able = [backend for backend in chosen if backend.capabilities().oracle is not None]
    # Our own first: what somebody else's plug-in answers is the reference only where we have none.
    return sorted(able, key=lambda one: (one.name not in registry.BUILT_IN, not one.capabilities().serves))


@contextmanager
def as_written(backend: Backend, args: OracleArgs) -> Iterator[Session]:
    """A session on a model without optimisation, in the graph's own types."""
    found = backend.capabilities()
    options = found.oracle or {}
    candidate = Candidate(found.target, Precision.FP32, args.profile, ShapeMode.DYNAMIC, args.threads, options)
    # Beside the outputs: when this process is killed, the copy goes away with the build's directory.
    with tempfile.TemporaryDirectory(dir=Path(args.outputs[0]).parent) as folder:
        backend.compile(Path(args.model), candidate, Path(folder))
        with backend.open(Path(folder), candidate, args.signature) as session:
            yield session


def _agreement(known: Array, fresh: Array) -> float:
    if known.shape != fresh.shape:
        return -CAP_DB
    if known.dtype.kind in "biufc":
        return snr_db(known, fresh)
    return CAP_DB if np.array_equal(known, fresh) else -CAP_DB
