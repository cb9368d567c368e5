"""Narrowing: a program brought to one candidate's device, precision and shapes, and exported anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tailorbird.backends.inductor.cast import cast_module, drop_type_checks
from tailorbird.backends.inductor.memory import writes
from tailorbird.backends.inductor.products import quantise_linears
from tailorbird.backends.program import Names
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Shapes


def narrowed(program: Any, names: Names, candidate: Candidate) -> Any:
    """What is compiled: a program of exactly the candidate's shapes, whose inputs and outputs keep their types.

    Args:
        program: the exported program in FP32 on the CPU, which is used up.
        names: of its inputs and outputs, in order.
        candidate: device, precision, profile, and whether our graph passes run; a static one fixes every dim, a dynamic
            one leaves those open that the profile leaves open.

    Returns:
        A ``torch.export.ExportedProgram`` with example inputs on the device.

    Raises:
        BackendError: the program fixes a dim that the profile leaves open, or writes into its inputs.
    """
    import torch

    examples = examples_for(program, names, candidate)
    dtypes = [node.meta["val"].dtype for node in _outputs(program)]
    if candidate.options.get("restructure"):
        static = candidate.shape_mode is ShapeMode.STATIC
        module, low = restructured_graph(program, candidate, examples if static else None), None
    else:
        module, low = _cast_graph(program, candidate), float_of(candidate)
    _quantise(module, candidate)
    # By default tracing takes for granted that open dims are at least 2, and code for those may be wrong for 1.
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
        exported = torch.export.export(
            _wrapper()(module, low, dtypes),
            tuple(example.to(candidate.target.device) for example in examples),
            dynamic_shapes={"inputs": tuple(_dims(names, candidate))},
            strict=False,
        )
    _check_dims(exported, names, candidate)
    _check_writes(exported)
    return exported


def restructured_graph(program: Any, candidate: Candidate, examples: Sequence[Any] | None) -> Any:
    """The program after our graph passes, on its device, in the float of whatever is not in eight bits.

    Args:
        program: the exported program in FP32 on the CPU.
        candidate: device and precision.
        examples: one tensor for each input, on the CPU; given, the graph is for their shapes alone.
    """
    from tailorbird.backends.inductor.restructure import restructured

    words = {"torch.float16": Precision.FP16, "torch.bfloat16": Precision.BF16}
    rest = words.get(str(float_of(candidate)), Precision.FP32)
    return restructured(program, candidate.target.device, rest, examples)


def _cast_graph(program: Any, candidate: Candidate) -> Any:
    """The program's own graph on its device, cast."""
    if candidate.target.device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, candidate.target.device)
    module, low = program.module(check_guards=False), float_of(candidate)
    drop_type_checks(module)
    if low is not None:
        cast_module(module, low)
    module.recompile()
    return module


def _quantise(module: Any, candidate: Candidate) -> None:
    eight_bits = candidate.precision in (Precision.INT8, Precision.FP8)
    if eight_bits and not quantise_linears(module, candidate.precision):
        raise BackendError(f"the program has no linear layer large enough to compute in {candidate.precision}",
                           hint="leave this precision out")  # fmt: skip


def float_of(candidate: Candidate) -> Any:
    """The float that the graph, or what is beside its 8-bit products, is cast to; None to leave it in FP32."""
    import torch

    on_cpu = candidate.target.device == "cpu"
    floats = {
        Precision.FP16: torch.float16,
        Precision.BF16: torch.bfloat16,
        Precision.FP8: torch.bfloat16,  # what a product with scales by row gives out
        Precision.INT8: None if on_cpu else torch.float16,
    }
    return floats.get(candidate.precision)


def _wrapper() -> Any:
    import torch

    class Typed(torch.nn.Module):
        """A graph in a lower float behind the inputs and outputs of the signature."""

        def __init__(self, inner: Any, low: Any, dtypes: Sequence[Any]) -> None:
            super().__init__()
            self.inner = inner
            self._low = low
            self._dtypes = dtypes

        def forward(self, *inputs: Any) -> Any:
            given = [one.to(self._low) if self._low and one.dtype is torch.float32 else one for one in inputs]
            found = self.inner(*given)
            typed = zip(found, self._dtypes, strict=True)
            return tuple(one if one.dtype is dtype else one.to(dtype) for one, dtype in typed)

    return Typed


def examples_for(program: Any, names: Names, candidate: Candidate) -> list[Any]:
    """Zeros. Dims that stay open have a size other than 0 and 1, which export would take for constants."""
    import torch

    profile, static = candidate.profile, candidate.shape_mode is ShapeMode.STATIC
    found = []
    for name, node in zip(names.inputs, _inputs(program), strict=True):
        low, opt, high = profile.min[name], profile.opt[name], profile.max[name]
        open_dims = [not static and a != b for a, b in zip(low, high, strict=True)]
        sizes = [max(usual, 2) if is_open else usual for usual, is_open in zip(opt, open_dims, strict=True)]
        found.append(torch.zeros(sizes, dtype=node.meta["val"].dtype))
    return found


def zeros(program: Any, names: Names, candidate: Candidate, shapes: Shapes) -> list[Any]:
    """Inputs of a program on the candidate's device, of these shapes."""
    import torch

    device = candidate.target.device
    return [torch.zeros(shapes[name], dtype=node.meta["val"].dtype, device=device)
            for name, node in zip(names.inputs, _inputs(program), strict=True)]  # fmt: skip


def _dims(names: Names, candidate: Candidate) -> list[dict[int, Any]]:
    import torch

    profile, auto = candidate.profile, torch.export.Dim.AUTO
    found = []
    for name in names.inputs:
        ranges = zip(profile.min[name], profile.max[name], strict=True)
        static = candidate.shape_mode is ShapeMode.STATIC
        found.append({at: auto(min=low, max=high) for at, (low, high) in enumerate(ranges)
                      if low != high and not static})  # fmt: skip
    return found


def _check_dims(exported: Any, names: Names, candidate: Candidate) -> None:
    """Compiled code does not look at the shapes it is given: a dim that tracing fixed must not stay unseen."""
    if candidate.shape_mode is ShapeMode.STATIC:
        return
    for name, node in zip(names.inputs, _inputs(exported), strict=True):
        low, high = candidate.profile.min[name], candidate.profile.max[name]
        for at, size in enumerate(node.meta["val"].shape):
            if low[at] != high[at] and _is_fixed(size):
                raise BackendError(f"the program works for one size of input '{name}' only", got=f"dim {at} is {size}",
                                   expected=f"{low[at]} to {high[at]}",
                                   hint="export it with that dim dynamic, or build for one shape")  # fmt: skip


def _is_fixed(size: Any) -> bool:
    """Whether a size is a number, or a symbol that tracing found to be one."""
    return isinstance(size, int) or size.node.maybe_as_int() is not None


def _check_writes(exported: Any) -> None:
    if written := writes(exported):
        raise BackendError("the program keeps state or writes into its inputs", got=", ".join(written),
                           expected="outputs that follow from inputs alone")  # fmt: skip


def _inputs(program: Any) -> list[Any]:
    """Placeholder nodes of the user's inputs, in order."""
    wanted = set(program.graph_signature.user_inputs)
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]


def _outputs(program: Any) -> list[Any]:
    """Nodes of the user's outputs, in order; one that is given out twice is there twice."""
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[name] for name in program.graph_signature.user_outputs]
