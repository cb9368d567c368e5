"""PyTorch programs compiled by Inductor, for the CPU and for an NVIDIA GPU.

Two backends, because a target has one device: ``inductor`` and ``inductor_cuda``. They differ in data and in their
sessions; compiling is the same.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tailorbird.backends.base import Backend, Capabilities, Session
from tailorbird.backends.host import check_cpu_arch, cpu_arch, cpu_facts
from tailorbird.backends.inductor import toolchain
from tailorbird.backends.inductor.device import gpu
from tailorbird.backends.inductor.record import OWN, check_record, read_record
from tailorbird.backends.nvidia.targets import capability
from tailorbird.domain.candidate import Candidate, Form, Option
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, BackendUnavailable, UsageError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Signature
from tailorbird.domain.target import Target

_FORMAT = EngineFormat(backend="pytorch", platform="torch_aoti", filename="model.pt2")

_FORMATS = {
    "jit": EngineFormat(backend="tailorbird", platform="torch_compile", filename="jitted.pt2"),
    "kernels": EngineFormat(backend="tailorbird", platform="tailorbird_kernels", filename="kernels/graph.json"),
}
"""Engines that no other server loads."""

_KERNELS: dict[str, Option] = {"compiler": "kernels"}
_AHEAD: tuple[dict[str, Option], ...] = ({"restructure": True}, {})
"""The fastest, as measured, first: builds have a time budget."""
_JIT: tuple[dict[str, Option], ...] = ({"compiler": "jit"}, {"compiler": "jit", "restructure": True})
"""Where packages cannot be loaded: Triton's kernels need no C++ library."""

_ON_CPU = ((Precision.FP16, {"avx512_fp16"}), (Precision.BF16, {"avx512_bf16", "amx_bf16", "bf16"}))
"""Instruction sets, one of which a precision needs to be more than emulated.

INT8 is left to other backends: ``torch._int_mm`` took 65 ms for a product that is 3 ms in FP32 (AVX2, one thread), and
oneDNN's own quantised product cannot be exported (torch 2.13: its packing has no shapes for tracing).
"""

_ON_GPU = ((Precision.FP16, 70), (Precision.BF16, 80), (Precision.FP8, 89), (Precision.INT8, 75))
"""Compute capability, times ten, from which a GPU multiplies matrices in a precision."""

_OLDEST = 70
"""Compute capability, times ten, from which Triton compiles (``torch._inductor.exc.GPUTooOldForTriton``)."""


class InductorBackend(Backend):
    """Inductor's C++ kernels on the CPU, compiled ahead of time."""

    name = "inductor"
    install = "pip install 'tailorbird[torch]', and a C++ compiler (g++)"

    def _version(self) -> str:
        found = toolchain.torch_version()
        used = toolchain.compiler()
        if fault := toolchain.known_fault():
            raise toolchain.unusable(used, fault)
        return found

    def _capabilities(self) -> Capabilities:
        isa = set(cpu_facts()["isa"].split())
        floats = (Precision.FP32, *(precision for precision, needs in _ON_CPU if needs & isa))
        return self._able_on_cpu(Target(self.name, "cpu", cpu_arch()), floats, here=True)

    def _capabilities_for(self, target: Target) -> Capabilities:
        """Of another CPU all floats are thought possible: a kit is all that is made here, and there it is known."""
        if target.device != "cpu" or target.arch == cpu_arch():
            return super()._capabilities_for(target)
        check_cpu_arch(target.arch)
        return self._able_on_cpu(target, (Precision.FP32, *(precision for precision, _ in _ON_CPU)), here=False)

    def _able_on_cpu(self, target: Target, precisions: tuple[Precision, ...], here: bool) -> Capabilities:
        return Capabilities(
            target=target,
            precisions=precisions,
            format=_FORMAT,
            formats=_FORMATS,
            form=Form.PROGRAM,
            specialises=True,
            needs_device_to_build=True,
            runs_here=here,
            on_request="takes a C++ compiler about a minute, and on CPUs was slower than the others where measured",
            portable="CPUs of the same instruction sets, same release of torch",
        )

    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
        from tailorbird.backends.inductor.compile import compile_program

        if candidate.options.get("compiler") is None:
            toolchain.check_toolchain()
        compile_program(model, candidate, workdir)

    def _check(self, engine: Path, candidate: Candidate) -> None:
        check_record(read_record(engine), set(cpu_facts()["isa"].split()), "CPU")

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        from tailorbird.backends.inductor.session import CpuSession, open_call

        if any(spec.dtype is DType.BYTES for spec in (*signature.inputs, *signature.outputs)):
            raise BackendError(f"{self.name} cannot open the engine", got="text tensors", hint="use another backend")
        self._check(engine, candidate)
        return CpuSession(self.name, candidate, signature, open_call(engine, candidate), read_record(engine))


class InductorCudaBackend(InductorBackend):
    """Inductor's Triton kernels, cuBLAS and cuDNN on the first GPU, and kernels of our own."""

    name = "inductor_cuda"
    install = "pip install 'tailorbird[torch]' with torch for CUDA, an NVIDIA driver, and a C++ compiler (g++)"

    def _version(self) -> str:
        found = toolchain.torch_version()
        toolchain.compiler()
        gpu()
        if not _has_cuda():
            raise BackendUnavailable("the installed torch is for CPUs only", got=found,
                                     hint="install the wheel of torch for CUDA")  # fmt: skip
        return found

    def _capabilities(self) -> Capabilities:
        return self._able(Target(self.name, "cuda", gpu().arch), here=True)

    def _capabilities_for(self, target: Target) -> Capabilities:
        """By what the architecture's name says: of a GPU that is elsewhere neither driver nor torch is asked."""
        if target.device != "cuda":
            raise UsageError(f"{self.name} makes no engine for {target}", expected=f"{self.name}:cuda:sm90")
        if capability(target.arch) < _OLDEST:
            raise UsageError(f"{self.name} has no kernels for {target.arch}", expected=f"sm{_OLDEST} or newer",
                             hint="use another runtime on that device")  # fmt: skip
        return self._able(target, self.probe().available and gpu().arch == target.arch)

    def _able(self, target: Target, here: bool) -> Capabilities:
        """What it can do for a target; ``here`` is whether that is this machine's GPU."""
        others = _JIT if here and toolchain.known_fault() else _AHEAD
        return Capabilities(
            target=target,
            precisions=(Precision.FP32, *(one for one, least in _ON_GPU if capability(target.arch) >= least)),
            format=_FORMAT,
            formats=_FORMATS,
            form=Form.PROGRAM,
            specialises=True,
            takes_threads=False,
            needs_device_to_build=True,
            runs_here=here,
            variants=others,
            variants_of=dict.fromkeys(OWN, (_KERNELS, *others)),
            options={"compiler": ("jit", "kernels"), "max_autotune": (False, True), "restructure": (False, True)},
            portable="GPUs of the same compute capability, same release of torch",
        )

    def _check(self, engine: Path, candidate: Candidate) -> None:
        check_record(read_record(engine), {gpu().arch}, "GPU")

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        from tailorbird.backends.inductor.cuda import CudaSession
        from tailorbird.backends.inductor.session import open_call

        self._check(engine, candidate)
        return CudaSession(self.name, candidate, signature, open_call(engine, candidate), read_record(engine))


def _has_cuda() -> bool:
    """Whether the installed torch has its part for CUDA; nothing is imported."""
    found = importlib.util.find_spec("torch")
    folders = found.submodule_search_locations if found else None
    return any(Path(folder, "lib", "libtorch_cuda.so").exists() for folder in folders or ())
