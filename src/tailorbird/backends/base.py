"""What every backend is: a :class:`Backend` that compiles and opens, a :class:`Session` that runs.

Public methods guard, wrap and check once, here; a backend writes the hooks whose names start with
an underscore. Vendor exceptions stop at this border and become :class:`BackendError`.
"""

from __future__ import annotations

import abc
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import msgspec
import numpy as np

from tailorbird.domain.candidate import Candidate, Form, Option
from tailorbird.domain.closing import Closing
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import BackendError, BackendUnavailable, TailorbirdError, UsageError
from tailorbird.domain.layers import Layer
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.domain.target import Target

WARM_RUNS = 3
"""Runs before those that a profile times."""

MESSAGES = "messages.txt"
"""Written line by line while a runtime compiles, so that one which crashes leaves its last words, too."""


class Availability(msgspec.Struct, frozen=True):
    """Whether a backend can be used here, and if not, why and what to install."""

    available: bool
    version: str = ""
    reason: str = ""
    install: str = ""


class Capabilities(msgspec.Struct, frozen=True):
    """What a backend can do for one target, as data: upper floors ask this, never a name."""

    target: Target
    precisions: tuple[Precision, ...]
    format: EngineFormat
    formats: dict[str, EngineFormat] = {}
    """Formats of engines that are of another kind, by the candidate's option ``compiler``."""
    form: Form = Form.GRAPH
    """What it compiles."""
    serves: bool = True
    """False for a backend that is an oracle, not a choice."""
    on_request: str = ""
    """Why it takes part only where the user names it; empty where it always does."""
    dynamic_shapes: bool = True
    specialises: bool = False
    """Whether a dynamic engine for one shape would be that shape's static engine, so that it need not be tried."""
    takes_threads: bool = True
    needs_device_to_build: bool = False
    runs_here: bool = True
    """False where engines of this target cannot be opened on this machine: they are qualified on another."""
    builds_here: bool = True
    """False where they cannot even be compiled on it: a build kit is all that can be made."""
    checks_arch: bool = False
    """Whether :meth:`Backend.check` tells on which architectures an engine runs; else its target's must be here."""
    portable: str = "same architecture and runtime version"
    variants: tuple[dict[str, Option], ...] = ({},)
    """Sets of runtime options worth trying as candidates of their own."""
    options: dict[str, tuple[Option, ...]] = {}
    """Those that a user may set for all of its candidates, and what each may be; anything where nothing is named."""
    variants_of: dict[Precision, tuple[dict[str, Option], ...]] = {}
    """Sets that are tried in one float precision, where they are others than :attr:`variants`."""
    baseline: bool = False
    """Whether its dynamic FP32 candidate is what people run without us: speed-ups are told against it."""
    quantised: tuple[str, ...] = ()
    """Quantisation methods whose graphs it takes."""
    oracle: dict[str, Option] | None = None
    """Options under which it computes the graph exactly as written, in the graph's own types; None if it cannot."""

    def format_of(self, candidate: Candidate) -> EngineFormat:
        """What a candidate's engine is, for whoever else may serve it."""
        return self.formats.get(str(candidate.options.get("compiler", "")), self.format)

    def runs(self, candidate: Candidate) -> bool:
        """Whether it executes the candidate's precision here; INT8 is in the graph, and the rest is a float."""
        quantised = candidate.quantisation
        if quantised is None:
            return candidate.precision in self.precisions
        return quantised.method in self.quantised and quantised.rest in self.precisions


class Session(Closing):
    """One loaded engine. Not thread-safe: one session serves one thread at a time."""

    def __init__(self, backend: str, candidate: Candidate, signature: Signature) -> None:
        self._backend = backend
        self._candidate = candidate
        self._signature = signature
        self._closed = False
        self._accepted: list[tuple[Any, ...]] | None = None
        self._border = vendor_border(backend, "run the engine")

    @property
    def signature(self) -> Signature:
        """The source's signature; the candidate's profile narrows the shapes further."""
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: every input by name, with the signature's dtypes and a shape inside the profile.

        Returns:
            Every output by name, owned by the caller.

        Raises:
            InputError: names, dtypes or shapes do not fit.
            BackendError: the runtime failed, or the session is closed.
        """
        self._check_open()
        form = _form(inputs)
        if form != self._accepted:
            self._check(inputs)
            self._accepted = form
        with self._border:
            return self._run(inputs)

    def executed_precision(self) -> dict[str, str]:
        """Precision each layer really runs in, as the runtime itself reports it, by layer name.

        Values are :class:`Precision` names, or another type's lower-case name (``int64``, ``bool``).
        """
        self._check_open()
        with vendor_border(self._backend, "report executed precision"):
            return self._executed_precision()

    def profile(self, inputs: Sequence[Tensors], runs: int) -> tuple[Layer, ...]:
        """What is executed, layer by layer in execution order, with the time each layer takes.

        Profiling happens beside the session, which stays as fast as it is, and needs as much memory again.

        Args:
            inputs: at least one set of them, each as :meth:`run` takes it; all are run, in turn.
            runs: how many runs to time, at least one; a few more come first, to warm up.

        Returns:
            Layers with unique names; none where the runtime does not tell. Their ``nodes`` name nodes of the engine's
            graph, or values that those give out, as far as the runtime tells; what it added itself may be among them.

        Raises:
            InputError: names, dtypes or shapes do not fit.
            BackendError: the runtime failed, or the session is closed.
        """
        self._check_open()
        if runs < 1 or not inputs:
            raise UsageError("a profile needs runs and inputs", got=f"{runs} runs, {len(inputs)} sets of inputs",
                             expected="at least one of each")  # fmt: skip
        for one in inputs:
            self._check(one)
        with vendor_border(self._backend, "profile the engine"):
            return self._profile(inputs, runs)

    def close(self) -> None:
        """Release the engine; a second call does nothing."""
        if not self._closed:
            self._closed = True
            with vendor_border(self._backend, "close the engine"):
                self._close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session is closed", hint="open the engine again")

    def _check(self, inputs: Tensors) -> None:
        self._signature.check(inputs)
        self._candidate.profile.check({name: array.shape for name, array in inputs.items()})

    @abc.abstractmethod
    def _run(self, inputs: Tensors) -> dict[str, Array]: ...

    @abc.abstractmethod
    def _close(self) -> None: ...

    def _executed_precision(self) -> dict[str, str]:
        """What a profile tells, where there is no cheaper way to ask."""
        return {layer.name: layer.precision for layer in self._profile([self._sample()], 1)}

    def _profile(self, inputs: Sequence[Tensors], runs: int) -> tuple[Layer, ...]:
        """Nothing, unless the runtime can tell; warm up with ``WARM_RUNS`` runs where it can."""
        return ()

    def _sample(self) -> dict[str, Array]:
        """Zeros at the profile's opt shape: enough to make a runtime report, never to measure."""
        shapes = self._candidate.profile.opt
        zeros = {spec.name: b"" if spec.dtype is DType.BYTES else 0 for spec in self._signature.inputs}
        return {spec.name: np.full(shapes[spec.name], zeros[spec.name], spec.dtype.numpy)
                for spec in self._signature.inputs}  # fmt: skip


class Backend(abc.ABC):
    """One runtime on this machine."""

    name: ClassVar[str]
    install: ClassVar[str]

    def probe(self) -> Availability:
        """Whether the runtime works here; never raises."""
        version = ""
        try:
            version = self._version()
            self._ready()
        except TailorbirdError as error:
            reason = error.message.partition("\n")[0]
            return Availability(available=False, version=version, reason=reason, install=error.hint or self.install)
        except Exception as error:
            return Availability(available=False, reason=f"{type(error).__name__}: {error}", install=self.install)
        return Availability(available=True, version=version)

    def capabilities(self, target: Target | None = None) -> Capabilities:
        """What it can do for a target: this machine's own by default.

        Raises:
            BackendUnavailable: it cannot be used here, and no target was named that can do without.
            UsageError: it builds nothing for the target.
        """
        if target is not None:
            with vendor_border(self.name, f"tell what it can do for {target}"):
                return self._capabilities_for(target)
        found = self.probe()
        if not found.available:
            raise BackendUnavailable(f"{self.name} is not available", got=found.reason, hint=found.install)
        with vendor_border(self.name, "report its capabilities"):
            return self._capabilities()

    def compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
        """Write the engine's files into an empty directory.

        Args:
            model: a normalised ONNX file; weights inside, or beside it in one data file.
            candidate: what to build; its profile is already checked against the signature.
            workdir: an existing empty directory on a disk with room for the weights. A file :data:`MESSAGES` in it
                is no part of the engine: what the runtime said meanwhile, a line each, for the build log.

        Raises:
            BackendError: the runtime refused, with its own words.
        """
        with vendor_border(self.name, "compile the model"):
            self._compile(model, candidate, workdir)

    def open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        """Load an engine directory written by :meth:`compile` for the same candidate."""
        with vendor_border(self.name, "open the engine"):
            return self._open(engine, candidate, signature)

    def check(self, engine: Path, candidate: Candidate) -> None:
        """Tell an engine that this device cannot load from one that it can, before anything of it is deserialised.

        Args:
            engine: a directory written by :meth:`compile`.
            candidate: what it was built as.

        Raises:
            BackendError: the architecture, the runtime's version or the driver is wrong, and which.
        """
        with vendor_border(self.name, "check the engine against this device"):
            self._check(engine, candidate)

    def _capabilities_for(self, target: Target) -> Capabilities:
        """This machine's own, unless the backend builds for others, too; those it can tell of without a device."""
        here = self.capabilities()
        if target == here.target:
            return here
        raise UsageError(f"{self.name} cannot build for {target}", expected=here.target,
                         hint="build on a machine of that kind")  # fmt: skip

    def _check(self, engine: Path, candidate: Candidate) -> None:  # noqa: B027 - most engines load wherever they open
        """Nothing, where the runtime's own refusal is clear enough."""

    def _ready(self) -> None:  # noqa: B027 - most runtimes run wherever they are installed
        """Raise :class:`BackendUnavailable` where the runtime is installed and its device is not here."""

    @abc.abstractmethod
    def _version(self) -> str: ...

    @abc.abstractmethod
    def _capabilities(self) -> Capabilities: ...

    @abc.abstractmethod
    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None: ...

    @abc.abstractmethod
    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session: ...


class vendor_border:  # noqa: N801 - it reads as a verb: with vendor_border(...)
    """Turn whatever a vendor package raises into :class:`BackendError`, keeping its words.

    A class, not a generator: every run of every request passes here, and a generator costs microseconds.
    """

    __slots__ = ("_action", "_backend")

    def __init__(self, backend: str, action: str) -> None:
        self._backend = backend
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Vendors raise classes of their own, some outside Exception.
        if error is not None and not isinstance(error, (TailorbirdError, KeyboardInterrupt, SystemExit)):
            raise BackendError(f"{self._backend} could not {self._action}", got=_first_lines(error)) from error


def copy_model(model: Path, workdir: Path, filename: str = "model.onnx") -> Path:
    """Copy an ONNX file, and the data file beside it when there is one, into ``workdir``."""
    data = model.with_name(model.name + ".data")
    if data.exists():
        shutil.copyfile(data, workdir / data.name)
    return Path(shutil.copyfile(model, workdir / filename))


def _form(inputs: Tensors) -> list[tuple[Any, ...]]:
    """All that a check looks at: inputs of an accepted form need no second check."""
    return [(name, type(array), getattr(array, "dtype", None), getattr(array, "shape", None))
            for name, array in inputs.items()]  # fmt: skip


def _first_lines(error: BaseException, limit: int = 600) -> str:
    text = " ".join(str(error).split())
    if not text or (" " not in text and isinstance(error, (AttributeError, LookupError, TypeError))):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")  # a lone word says little without its kind
    return text if len(text) <= limit else text[:limit] + " …"
