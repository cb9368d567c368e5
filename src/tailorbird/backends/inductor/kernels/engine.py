"""An engine of our own kernels: built and tuned for one shape, written to a folder, opened again without tuning."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.inductor.kernels import graphfile
from tailorbird.backends.inductor.kernels.eight_bits import to_eight_bits
from tailorbird.backends.inductor.kernels.fuse import fuse_outputs, fused, let_gelu_be_fast
from tailorbird.backends.inductor.kernels.launching import LIBRARY, Options, problem
from tailorbird.backends.inductor.kernels.operators import OPERATORS
from tailorbird.backends.inductor.kernels.table import KERNELS
from tailorbird.backends.inductor.kernels.tuning import Tuning, problems, tune
from tailorbird.backends.inductor.restructure.editing import take_place, tidy, torch
from tailorbird.domain.errors import BackendError

TUNED = "tuned.json"
OPTIONS = "options.json"
Call = Callable[[list[Any]], Sequence[Any]]


def build(graph_module: Any, examples: Sequence[Any], workdir: Path, options: Options | None = None,
          known: Tuning | None = None, without: Sequence[str] = ()) -> Tuning:  # fmt: skip
    """Fuse a graph, find the fastest way to run each of its operators, and write the engine.

    Args:
        graph_module: from ``restructured`` with examples, on the GPU; it is changed.
        examples: one tensor for each input, on the GPU. The engine takes these shapes.
        workdir: an empty folder.
        options: that hold for all kernels.
        known: answers from earlier builds on this machine; new ones are added to it.
        without: passes to leave out, by name: to measure what each is worth.

    Returns:
        All answers, and how long finding new ones took.

    Raises:
        BackendError: the graph cannot be written.
    """
    options = options or Options()
    prepare(graph_module, options, without)
    tuning = known if known is not None else remembered(device_name(examples))
    found = problems(graph_module, examples)
    tune(found, options, tuning)
    graphfile.save(graph_module, workdir)
    used = {one.key: tuning.answers[one.key] for one in found}
    (workdir / TUNED).write_bytes(_json(Tuning(tuning.device, used, tuning.seconds)))
    (workdir / OPTIONS).write_bytes(_json(options))
    return tuning


def prepare(graph_module: Any, options: Options, without: Sequence[str] = ()) -> Any:
    """Bring a graph to the operators that kernels run; it is changed, and returned."""
    fused(graph_module, without)
    if options.fast_gelu:
        let_gelu_be_fast(graph_module)
    if options.eight_bits:
        to_eight_bits(graph_module)
    graph_module.meta["matches"]["outputs fused"] = fuse_outputs(graph_module)
    return tidy(graph_module)


def open_engine(workdir: Path, device: str = "cuda") -> Call:
    """Load an engine.

    Args:
        workdir: written by :func:`build`.
        device: ``cuda``; on the ``cpu`` every operator runs as plain PyTorch.

    Returns:
        A function of a list of tensors, in the order of the inputs, that launches the kernels on the current stream
        and returns the outputs. Call it once before a CUDA graph is recorded: kernels are compiled then.

    Raises:
        BackendError: the engine is not whole, or was tuned on another kind of GPU.
    """
    tuning = msgspec.json.decode((workdir / TUNED).read_bytes(), type=Tuning)
    options = msgspec.json.decode((workdir / OPTIONS).read_bytes(), type=Options)
    graph_module = graphfile.load(workdir, device)
    if device == "cuda":
        here = torch().cuda.get_device_name()
        if here != tuning.device:
            raise BackendError("the kernels were tuned on another GPU", got=here, expected=tuning.device,
                               hint="build again on this one")  # fmt: skip
        bind(graph_module, tuning, options)

    def call(tensors: list[Any]) -> Sequence[Any]:
        with torch().no_grad():
            found: Sequence[Any] = graph_module(*tensors)
        return found

    return call


def bind(graph_module: Any, tuning: Tuning, options: Options) -> None:
    """Put kernels in the places of fused operators, each configured as its problem's answer says.

    Problems are told by shapes, which only a run shows: each operator looks its answer up at its first call.
    """
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and OPERATORS.get(getattr(node.target, "__name__", "")) is node.target:
            name, plain = f"kernel_{node.name}", getattr(node.target, "__name__", "")
            graph_module.add_submodule(name, _module(plain, tuning, options))
            with graph_module.graph.inserting_before(node):
                take_place(node, graph_module.graph.call_module(name, node.args))
    graph_module.recompile()


def _module(operator: str, tuning: Tuning, options: Options) -> Any:
    class Bound(torch().nn.Module):  # type: ignore[misc]
        """One fused operator of the graph."""

        def __init__(self) -> None:
            super().__init__()
            self._kernel: Any = None

        def forward(self, *args: Any) -> Any:
            if self._kernel is None:
                answer = tuning.answers.get(problem(operator, args))
                self._kernel = KERNELS[operator](answer.config if answer else LIBRARY, options)
            return self._kernel(*args)

    return Bound()


def remembered(device: str) -> Tuning:
    """Answers that ``$TAILORBIRD_TUNED`` holds for this kind of GPU: a ``tuned.json`` that an earlier build left."""
    path = os.environ.get("TAILORBIRD_TUNED")
    if path and Path(path).is_file():
        found = msgspec.json.decode(Path(path).read_bytes(), type=Tuning)
        if found.device == device:
            return found
    return Tuning(device)


def device_name(examples: Sequence[Any]) -> str:
    """The GPU that tensors lie on, by name; ``cpu`` elsewhere."""
    on_gpu = any(one.is_cuda for one in examples)
    return str(torch().cuda.get_device_name()) if on_gpu else "cpu"


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1)
