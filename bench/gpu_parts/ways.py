"""The ways of running a model that are compared: each makes a function of tensors on the GPU, for one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.gpu_parts.timing import Function
from tailorbird.backends.inductor import kernels
from tailorbird.backends.inductor.kernels.launching import Options
from tailorbird.backends.inductor.kernels.tuning import Tuning
from tailorbird.backends.inductor.restructure import restructured
from tailorbird.domain.precision import Precision

HALVES = {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16, Precision.FP8: torch.bfloat16}


@dataclass
class Context:
    """What all ways share: where engines are put, and what tuning found so far."""

    folder: Path
    tuning: Tuning
    seconds: dict[str, float] = field(default_factory=dict)
    """What making each took."""


Make = Callable[[Any, int, Context], Function]
"""Makes a way's function of a model, for one batch."""


@dataclass(frozen=True)
class Way:
    """One way: its name, its precision, whether it is replayed from a CUDA graph, and how it is made."""

    name: str
    precision: Precision
    graph: bool
    make: Make


def eager(precision: Precision, channels_last: bool = True) -> Make:
    """PyTorch as it is, cast where asked, pictures channels last."""

    def make(model: Any, _: int, __: Context) -> Function:
        module = _cast(model, precision, channels_last)
        return _calling(module, model, precision, channels_last)

    return make


def compiled(mode: str, precision: Precision) -> Make:
    """``torch.compile`` in one of its modes."""

    def make(model: Any, _: int, __: Context) -> Function:
        torch._dynamo.reset()
        return _calling(torch.compile(_cast(model, precision, True), mode=mode), model, precision, True)

    return make


def plain_graph(precision: Precision, without: Sequence[str] = ()) -> Make:
    """Our passes on the program, and PyTorch's own kernels for what they leave."""

    def make(model: Any, batch: int, _: Context) -> Function:
        module = restructured(model.program, "cuda", precision, _example(model, batch), without)
        return lambda tensors: module(*tensors)

    return make


def own(precision: Precision, without: Sequence[str] = (), options: Options | None = None,
        library: bool = False) -> Make:  # fmt: skip
    """Our passes and our kernels, as the backend builds and opens them.

    Args:
        precision: of the engine.
        without: passes to leave out.
        options: of the kernels.
        library: fused operators, each run by PyTorch's own.
    """

    def make(model: Any, batch: int, context: Context) -> Function:
        examples = _example(model, batch)
        module = restructured(model.program, "cuda", precision, examples, without)
        if library:
            from tailorbird.backends.inductor.kernels.fuse import fused

            bound = fused(module, without)
            return lambda tensors: bound(*tensors)
        folder = context.folder / f"engine-{len(list(context.folder.iterdir()))}"
        folder.mkdir()
        kernels.build(module, [one.cuda() for one in examples], folder, options, context.tuning, without)
        call: Function = kernels.open(folder)
        return call

    return make


def packaged(path: Path) -> Make:
    """An AOTInductor package made in a process beside this one."""

    def make(_: Any, __: int, ___: Context) -> Function:
        package = torch._inductor.aoti_load_package(str(path), run_single_threaded=True)
        call: Function = package.loader.boxed_run
        return call

    return make


def package(model: Any, batch: int, restructure: bool, path: Path) -> None:
    """Make that package: FP16, with or without our passes first."""
    examples = _example(model, batch)
    if restructure:
        module = restructured(model.program, "cuda", Precision.FP16, examples)
    else:
        module = _Typed(_cast(model, Precision.FP16, True), model, torch.float16)
    exported = torch.export.export(module, tuple(one.cuda() for one in examples), strict=False)
    torch._inductor.aoti_compile_and_package(exported, package_path=str(path))


class _Typed(torch.nn.Module):
    """A cast module behind FP32 inputs and outputs, by position."""

    def __init__(self, module: Any, model: Any, kind: Any) -> None:
        super().__init__()
        self.module, self.names, self.kind = module, list(model.inputs(1, 0)), kind

    def forward(self, *tensors: Any) -> Any:
        """Cast, run, cast back."""
        given = [one.to(self.kind) if one.is_floating_point() else one for one in tensors]
        return tuple(one.float() for one in self.module(**dict(zip(self.names, given, strict=True))).values())


def _calling(module: Any, model: Any, precision: Precision, channels_last: bool) -> Function:
    names, kind = list(model.inputs(1, 0)), HALVES.get(precision, torch.float32)

    def call(tensors: list[Any]) -> Sequence[Any]:
        given = {name: _laid(one, kind, channels_last) for name, one in zip(names, tensors, strict=True)}
        return [one.float() for one in module(**given).values()]

    return call


def _laid(tensor: Any, kind: Any, channels_last: bool) -> Any:
    if not tensor.is_floating_point():
        return tensor
    layout = torch.channels_last if tensor.dim() == 4 and channels_last else torch.contiguous_format
    return tensor.to(kind, memory_format=layout)


def _cast(model: Any, precision: Precision, channels_last: bool) -> Any:
    if precision is Precision.FP32 and not channels_last:
        return model.module
    module = copy.deepcopy(model.module).to(HALVES.get(precision, torch.float32))
    return module.to(memory_format=torch.channels_last) if channels_last and "ResNet" in model.name else module


def _example(model: Any, batch: int) -> list[Any]:
    return list(model.inputs(batch, 0).values())
