"""PyTorch programs as sources: exported to ONNX, and run eagerly as the oracle. Runs in a process of its own.

A program is ``module:callable`` whose callable returns a module and its example inputs (a dict by
name, or a tuple), or a ``.pt2`` file of ``torch.export``. Both are the user's own code and run as such.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.backends.program import Names, save_program
from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.builder.gate.oracle import OracleArgs, OracleReport
from tailorbird.builder.sources.onnx_file import read_model, without_notes, write_model
from tailorbird.builder.sources.source import ExportArgs, Exported, ProgramArgs, Programmed
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendUnavailable, ModelError, TailorbirdError


def export(args: ExportArgs) -> Exported:
    """Write the program as ONNX, the same bytes wherever and whenever the same program is exported.

    Raises:
        ModelError: it cannot be exported, in the exporter's own words.
    """
    torch = _torch()
    program, inputs = _load(torch, args.program)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            _write(torch, program, inputs, args.onnx)
        except Exception as error:
            raise ModelError(f"{args.program} cannot be exported to ONNX", got=_brief(error),
                             hint="torch.export must be able to trace the module") from error  # fmt: skip
    _clean(Path(args.onnx))
    names = _input_names(args.onnx)
    shapes = dict(zip(names, (tuple(value.shape) for value in _flat(inputs)), strict=True))
    return Exported(shapes, sum(parameter.numel() for parameter in program.parameters()))


def write_program(args: ProgramArgs) -> Programmed:
    """Export the program once more, for backends that compile it: tensors by position, named as in its ONNX form.

    Raises:
        ModelError: it cannot be exported, in the exporter's own words.
    """
    torch = _torch()
    program, inputs = _load(torch, args.program)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            flat = _flattened(torch, _traced(torch, program, inputs), inputs)
        except Exception as error:
            raise ModelError(f"{args.program} cannot be exported", got=_brief(error),
                             hint="torch.export must be able to trace the module") from error  # fmt: skip
        save_program(flat, _names(args.onnx), Path(args.file))
    return Programmed(sum(node.op == "call_function" for node in flat.graph.nodes))


def answer(args: OracleArgs) -> OracleReport:
    """Write the eager program's FP32 outputs for every set of inputs, under the ONNX outputs' names."""
    torch = _torch()
    torch.set_num_threads(args.threads)
    program, example = _load(torch, args.model)
    run = program.module() if isinstance(program, torch.export.ExportedProgram) else program
    for source, target in zip(args.inputs, args.outputs, strict=True):
        tensors = load_set(Path(source))
        ordered = [torch.from_numpy(np.ascontiguousarray(tensors[spec.name])) for spec in args.signature.inputs]
        with torch.inference_mode():
            found = _call(run, example, ordered)
        names = [spec.name for spec in args.signature.outputs]
        save_set(Path(target), dict(zip(names, map(_array, _tensors_in(found)), strict=True)))
    return OracleReport(f"torch {torch.__version__} eager")


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise BackendUnavailable("PyTorch is needed to read a PyTorch program", got=error,
                                 hint="pip install 'tailorbird[torch]'") from None  # fmt: skip


def _load(torch: Any, program: str) -> tuple[Any, Any]:
    return _load_pt2(torch, program) if Path(program).suffix == ".pt2" else _load_callable(torch, program)


def _load_pt2(torch: Any, path: str) -> tuple[Any, Any]:
    try:
        program = torch.export.load(path)
        args, kwargs = program.example_inputs or ((), {})
        return program, kwargs or args
    except Exception as error:
        raise ModelError(f"{path} is not a torch.export program", got=_brief(error),
                         hint="write it with torch.export.save(program, path)") from error  # fmt: skip


def _load_callable(torch: Any, path: str) -> tuple[Any, Any]:
    module, _, name = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except TailorbirdError:
        raise
    except Exception as error:
        raise ModelError(f"{path} cannot be called", got=f"{type(error).__name__}: {_brief(error)}",
                         expected="a callable that returns (module, example inputs)") from error  # fmt: skip
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], torch.nn.Module):
        raise ModelError(f"{path} returned the wrong thing", got=type(made).__name__,
                         expected="(torch.nn.Module, example inputs)")  # fmt: skip
    inputs = made[1]
    named = isinstance(inputs, Mapping)
    ready = (
        {key: torch.as_tensor(value) for key, value in inputs.items()} if named else tuple(map(torch.as_tensor, inputs))
    )
    return made[0].eval(), ready


def _write(torch: Any, program: Any, inputs: Any, path: str) -> None:
    traced = _traced(torch, program, inputs)
    torch.onnx.export(traced, f=path, dynamo=True, external_data=True, verbose=False)


def _traced(torch: Any, program: Any, inputs: Any) -> Any:
    """The program as ``torch.export`` gives it; the batch is dynamic wherever the program allows it."""
    if isinstance(program, torch.export.ExportedProgram):
        return program
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, dict) else (inputs, {})
    rows = {0: torch.export.Dim.AUTO}
    named = {key: rows if value.ndim else None for key, value in kwargs.items()}
    shapes = named or tuple(rows if value.ndim else None for value in args)
    return torch.export.export(program, args, kwargs, dynamic_shapes=shapes, strict=False)


def _flattened(torch: Any, traced: Any, inputs: Any) -> Any:
    """The same with tensors by position in and out; dims that were dynamic still are."""
    run, values = traced.module(check_guards=False), _flat(inputs)

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.run = run

        def forward(self, *tensors: Any) -> Any:
            return tuple(_tensors_in(_call(self.run, inputs, list(tensors))))

    nodes = {node.name: node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"}
    given = [nodes[name] for name in traced.graph_signature.user_inputs]
    shapes = [{at: torch.export.Dim.AUTO for at, size in enumerate(one.shape) if not isinstance(size, int)}
              for one in given]  # fmt: skip
    return torch.export.export(Flat(), tuple(values), dynamic_shapes={"tensors": tuple(shapes)}, strict=False)


def _clean(path: Path) -> None:
    """Leave nothing in the file but the model: no paths, stack traces or notes of this process."""
    model = read_model(path)
    without_notes(model)
    write_model(model, path)


def _call(run: Any, example: Any, ordered: list[Any]) -> Any:
    return run(**dict(zip(example, ordered, strict=True))) if isinstance(example, dict) else run(*ordered)


def _flat(inputs: Any) -> list[Any]:
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def _tensors_in(found: Any) -> list[Any]:
    """Tensors of a result in order, through tuples, lists, dicts and dict-like model outputs; None is left out."""
    if found is None:
        return []
    if hasattr(found, "detach"):
        return [found]
    values = found.values() if isinstance(found, Mapping) else found
    return [tensor for value in values for tensor in _tensors_in(value)]


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


def _input_names(path: str) -> list[str]:
    return list(_names(path).inputs)


def _names(path: str) -> Names:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return Names(tuple(value.name for value in graph.input), tuple(value.name for value in graph.output))


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else text[:500] + " …"
