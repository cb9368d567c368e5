"""An engine on its device: deserialised, given back its weights where they were stripped, its tensors understood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tailorbird.backends.nvidia.flavour import Flavour, vendor, version
from tailorbird.backends.nvidia.messages import Heard
from tailorbird.backends.nvidia.plan import PLAN, read_record
from tailorbird.backends.nvidia.timing import KeptFile
from tailorbird.backends.nvidia.types import TYPES
from tailorbird.domain.digest import digest_file
from tailorbird.domain.errors import BackendError
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec

WEIGHTS = "weights.onnx"
"""The graph that a stripped plan is given its weights from, kept beside it."""


class Loaded:
    """The vendor's engine and all that must live as long as it."""

    def __init__(self, flavour: Flavour, folder: Path) -> None:
        self.flavour = flavour
        self.heard = Heard()
        self.trt = vendor(flavour)
        self._logger = self.heard.logger(self.trt)
        self._runtime = self.trt.Runtime(self._logger)
        if read_record(folder).version_compatible:  # such a plan brings a runtime of its own; only signed ones get here
            self._runtime.engine_host_code_allowed = True
        plan = (folder / PLAN).read_bytes()
        self._check_header(plan)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise self.heard.failure("the runtime refused the engine", otherwise="no reason given",
                                     hint="build it again on this device")  # fmt: skip
        if (folder / WEIGHTS).exists():
            self._refit(folder / WEIGHTS)
        self.kernels = Kernels(self, folder / PLAN) if flavour.ahead_of_time else None

    def context(self) -> Any:
        """A new execution context, whose memory for inner values the caller gives."""
        strategy = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self.engine.create_execution_context(self.kernels.config if self.kernels else strategy)
        if context is None:
            raise self.heard.failure("the runtime made no context", otherwise="no reason given")
        return context

    def check_tensors(self, signature: Signature) -> None:
        """Raise :class:`BackendError` where the engine's tensors are not the signature's."""
        modes = self.trt.TensorIOMode
        wanted = {spec.name: (modes.INPUT, spec) for spec in signature.inputs}
        wanted |= {spec.name: (modes.OUTPUT, spec) for spec in signature.outputs}
        found = {self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)}
        if found != wanted.keys():
            raise BackendError("the engine has other inputs and outputs than the signature",
                               got=", ".join(sorted(found)), expected=", ".join(sorted(wanted)))  # fmt: skip
        for mode, spec in wanted.values():
            self._check_tensor(mode, spec)

    def ranges(self, signature: Signature) -> tuple[Profile, ...]:
        """Its optimisation profiles, as it tells them."""
        count = self.engine.num_optimization_profiles
        told = [list(self._edges(signature, index)) for index in range(count)]
        return tuple(Profile(**{edge: dict(shapes) for edge, shapes in one}) for one in told)

    def _edges(self, signature: Signature, index: int) -> Iterator[tuple[str, list[tuple[str, tuple[int, ...]]]]]:
        told = {spec.name: self.engine.get_tensor_profile_shape(spec.name, index) for spec in signature.inputs}
        for number, edge in enumerate(("min", "opt", "max")):
            yield edge, [(name, tuple(shapes[number])) for name, shapes in told.items()]

    def _check_tensor(self, mode: Any, spec: TensorSpec) -> None:
        engine = self.engine
        kind = str(engine.get_tensor_dtype(spec.name)).rpartition(".")[2]
        if engine.get_tensor_mode(spec.name) != mode or TYPES.get(kind) is not spec.dtype:
            raise BackendError(f"the engine's tensor '{spec.name}' is not the signature's", got=kind,
                               expected=spec.dtype)  # fmt: skip
        if engine.get_tensor_location(spec.name) != self.trt.TensorLocation.DEVICE:
            raise BackendError(f"tensor '{spec.name}' gives or takes a shape by its values",
                               hint="use another runtime")  # fmt: skip

    def _check_header(self, plan: bytes) -> None:
        """The library's own look at a plan's header, where it has one: it knows what drivers and memory it needs."""
        look = getattr(self._runtime, "get_engine_validity", None)
        if look is None:
            return
        validity, flags = look(plan[: self._runtime.engine_header_size])
        if validity == self.trt.EngineValidity.INVALID:
            known = self.trt.EngineInvalidityDiagnostics.__members__
            reasons = [name.lower().replace("_", " ") for name, flag in known.items() if int(flag.value) & int(flags)]
            raise BackendError("the runtime refuses the engine on this device",
                               got=", ".join(reasons) or "; ".join(self.heard.errors) or "no reason given",
                               hint="build it again on this device, or bring what it lacks")  # fmt: skip

    def _refit(self, weights: Path) -> None:
        refitter = self.trt.Refitter(self.engine, self._logger)
        parser = self.trt.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_file(str(weights)) or not refitter.refit_cuda_engine():
            raise self.heard.failure("the engine's stripped weights could not be put back", otherwise="no reason given")

    def information(self, context: Any = None) -> str:
        """The inspector's JSON, of one context's profile where one is given."""
        inspector = self.engine.create_engine_inspector()
        if context is not None:
            inspector.execution_context = context
        text: str = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return text


class Kernels:
    """Kernels that an ahead-of-time engine compiles on its device, kept for the next time it is opened there.

    They are compiled for each shape before it first runs, not in the background after: a recorded graph would keep
    the stop-gap kernels that ran meanwhile.
    """

    def __init__(self, loaded: Loaded, plan: Path) -> None:
        trt, self.config = loaded.trt, loaded.engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self.config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._kept = KeptFile(loaded.flavour.name, version(loaded.flavour), digest_file(plan))
        self._cache = self.config.create_runtime_cache()
        known = self._kept.read()
        if known:
            self._cache.deserialize(known)  # it refuses what is another device's or version's
        self.config.set_runtime_cache(self._cache)
        self._size = len(known)

    def keep(self) -> None:
        """Keep what was compiled since it was last kept."""
        content = bytes(self._cache.serialize())
        if len(content) != self._size:
            self._kept.write(content)
            self._size = len(content)


def inner_bytes(engine: Any) -> int:
    """Bytes of inner values at the profile that needs most; before TensorRT 10.1 under an older name."""
    size = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if size is None else size)
