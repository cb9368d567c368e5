"""Compiling a program: narrowed to the candidate, then by AOTInductor, by ``torch.compile``, or to our own kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailorbird.backends.host import cpu_facts
from tailorbird.backends.inductor.layers import layers_of, layers_run
from tailorbird.backends.inductor.memory import shared_outputs
from tailorbird.backends.inductor.narrow import examples_for, narrowed, restructured_graph, zeros
from tailorbird.backends.inductor.record import OWN, EngineRecord, write_record
from tailorbird.backends.inductor.toolchain import compiler, torch_version, understood
from tailorbird.backends.program import Names, load_program, save_program
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision

PACKAGE = "model.pt2"
"""Under Triton's default name for ``torch_aoti``."""
JITTED = "jitted.pt2"
CACHES = "caches.bin"
KERNELS = "kernels"

Made = tuple[dict[str, str], tuple[int, ...]]
"""What an engine's layers compute in, and places of outputs that share memory."""


@dataclass(frozen=True)
class Job:
    """One program, one candidate, one folder to write into."""

    program: Any
    names: Names
    candidate: Candidate
    folder: Path


def compile_program(model: Path, candidate: Candidate, folder: Path) -> None:
    """Write an engine's files.

    Args:
        model: ``program.pt2``.
        candidate: ``options["compiler"]`` is absent, ``jit`` or ``kernels``; ``options["restructure"]`` runs our graph
            passes first.
        folder: receives the engine and its record.

    Raises:
        BackendError: an unknown option, or the program does not fit the candidate.
    """
    chosen = candidate.options.get("compiler", "")
    write = _COMPILERS.get(str(chosen))
    if write is None:
        raise BackendError(f"unknown compiler '{chosen}'", expected="jit or kernels, or none for AOTInductor")
    if chosen == "kernels":
        _check_own(candidate)
    exact_floats()
    with quietly():
        program, names = load_program(model)
        job = Job(program, names, candidate, folder)
        compiled = write(job)
    _describe(job, *compiled)


def settings(candidate: Candidate) -> dict[str, Any]:
    """Inductor's settings for a candidate; whatever is not set is its default."""
    found = {"aot_inductor.enable_line_tables": False}  # for profilers: a larger engine, and longer to compile
    if candidate.target.device == "cpu":
        # Freezing lays weights out for the CPU's kernels; the count of threads is compiled into the loops.
        return found | {"freezing": True, "cpp.threads": candidate.threads}
    tuned = bool(candidate.options.get("max_autotune", False))
    return found | {"max_autotune": tuned, "coordinate_descent_tuning": tuned}


def jitted(program: Any, names: Names, candidate: Candidate) -> Any:
    """The program behind ``torch.compile``, compiled for every edge of the profile."""
    import torch

    is_dynamic = candidate.shape_mode is ShapeMode.DYNAMIC
    module = program.module(check_guards=False)
    compiled = torch.compile(module, fullgraph=True, dynamic=is_dynamic, options=understood(settings(candidate)))
    with torch.no_grad():
        for shapes in candidate.profile.edges().values():
            compiled(*zeros(program, names, candidate, shapes))
    return compiled


def exact_floats() -> None:
    """FP32 means FP32: no TF32 in products and convolutions, which cuDNN would use by default."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


class quietly(warnings.catch_warnings):  # noqa: N801 - reads as an adverb: with quietly()
    """Without a compiler's own deprecation warnings, which are no concern of whoever compiles a model."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


def _ahead(job: Job) -> Made:
    """One file that holds code and weights."""
    import torch

    exported = narrowed(job.program, job.names, job.candidate)
    torch._inductor.aoti_compile_and_package(
        exported, package_path=str(job.folder / PACKAGE), inductor_configs=understood(settings(job.candidate))
    )
    return layers_of(exported), shared_outputs(exported)


def _just_in_time(job: Job) -> Made:
    """The narrowed program, and the caches that compiling it filled."""
    import torch

    exported = narrowed(job.program, job.names, job.candidate)
    jitted(exported, job.names, job.candidate)
    made = torch.compiler.save_cache_artifacts()
    (job.folder / CACHES).write_bytes(made[0] if made else b"")
    made_of = layers_of(exported), shared_outputs(exported)
    save_program(exported, job.names, job.folder / JITTED)
    return made_of


def _check_own(candidate: Candidate) -> None:
    if candidate.shape_mode is not ShapeMode.STATIC:
        raise BackendError("own kernels are compiled for one shape", got="a dynamic profile", expected="a static one")
    if candidate.precision not in OWN:
        raise BackendError("own kernels do not compute in this precision", got=candidate.precision,
                           expected=", ".join(OWN))  # fmt: skip


def _own_kernels(job: Job) -> Made:
    """The restructured graph on Triton kernels of our own, each tuned for the one shape it is compiled for."""
    from tailorbird.backends.inductor import kernels
    from tailorbird.backends.inductor.kernels.launching import Options
    from tailorbird.backends.inductor.restructure.flatten import writes

    asked, device = job.candidate.precision, job.candidate.target.device
    examples = examples_for(job.program, job.names, job.candidate)
    graph = restructured_graph(job.program, job.candidate, examples)
    if left := writes(graph):
        raise BackendError("the program keeps state or writes into its inputs", got=", ".join(left),
                           expected="outputs that follow from inputs alone")  # fmt: skip
    folder = job.folder / KERNELS
    folder.mkdir()
    moved = [one.to(device) for one in examples]
    kernels.build(graph, moved, folder, Options(eight_bits=asked is Precision.FP8))
    return layers_run(graph, moved), tuple(range(len(job.names.outputs)))


_COMPILERS: dict[str, Callable[[Job], Made]] = {"": _ahead, "jit": _just_in_time, "kernels": _own_kernels}


def _describe(job: Job, layers: dict[str, str], shared: tuple[int, ...]) -> None:
    """Write the engine's record."""
    on_cpu, used = job.candidate.target.device == "cpu", compiler()
    record = EngineRecord(
        torch=torch_version(),
        device=job.candidate.target.device,
        needs=tuple(cpu_facts()["isa"].split()) if on_cpu else (job.candidate.target.arch,),
        compiler=f"{used.path}: {used.version}",
        inputs=job.names.inputs,
        outputs=job.names.outputs,
        shared=shared,
        layers=layers,
    )
    write_record(record, job.folder)
