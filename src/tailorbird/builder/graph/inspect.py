"""What a model is, what it costs, and what stands in the way of each backend.

The file is a stranger's, so it is read in a child process, and the backends meet a copy whose weights were
checked and moved inside. See :mod:`tailorbird.builder.sources.onnx_file` for the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends import registry
from tailorbird.backends.isolate import Worker
from tailorbird.builder.graph.flops import FlopsReport
from tailorbird.builder.graph.trial import Trial, TrialArgs
from tailorbird.builder.workdir import workdir
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import ModelError, StepError
from tailorbird.domain.signature import Shape, Shapes, Signature

_NOT_PARAMETERS = frozenset({"INT64", "BOOL", "STRING"})
"""Types of shapes, indices and masks: stored, but not learned."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`inspect_model` found."""

    path: str
    digest: str
    format: str
    producer: str
    """Name and version of the exporter, as the file has it; may be empty."""
    ir_version: int
    opsets: dict[str, int]
    """Version by domain; the default domain is called ``ai.onnx``."""
    signature: Signature
    dynamic_dims: tuple[str, ...]
    batch_dim: str | None
    operators: dict[str, int]
    """Count by operator, most frequent first, subgraphs and functions included."""
    nodes: int
    parameters: int
    """Elements of all stored tensors, but those of INT64, BOOL and STRING, which hold shapes and indices."""
    weight_bytes: int
    """Bytes of all stored tensors."""
    dtypes: dict[str, int]
    """Stored elements by ONNX type name, most first."""
    external_files: tuple[str, ...]
    flops: FlopsReport | None
    flops_reason: str
    """Why there are no FLOPs; empty when there are."""
    notes: tuple[str, ...]
    obstacles: dict[str, tuple[str, ...]]
    """What stands in the way, by backend: nothing when it compiled and opened the model as it is."""


class DescribeArgs(msgspec.Struct, frozen=True):
    """A model file, shapes if the user gave some, and where to write the safe copy."""

    path: str
    shapes: dict[str, Shape]
    copy: str


def inspect_model(
    path: Path, shapes: Shapes | None = None, *, try_obstacles: bool = True, limits: Limits | None = None
) -> Inspection:
    """Inspect an ONNX file.

    Args:
        path: the file; its external data is read from beneath its directory only.
        shapes: input shapes to count FLOPs at. Inputs left out follow from the others; the batch dim is 1 unless
            a shape says otherwise; any other dynamic dim that stays open means no FLOPs.
        try_obstacles: whether to let each backend compile and open the model, one after the other.
        limits: time and memory for the reading, and for each backend's try.

    Raises:
        ModelError: the file cannot be used as a model.
        InputError: the shapes contradict the signature.
        StepError: reading it crashed, hung, or took too much memory.
    """
    limits = limits or Limits()
    with workdir() as folder:
        copy = folder / "model.onnx"
        args = DescribeArgs(str(path), dict(shapes or {}), str(copy) if try_obstacles else "")
        with Worker(limits, scratch=folder) as worker:
            found = worker.call("tailorbird.builder.graph.inspect:describe", args, Inspection)
        if not try_obstacles:
            return found
        known = None if found.flops is None else found.flops.shapes
        obstacles = {
            name: _obstacles(TrialArgs(name, str(copy), str(folder / name), found.signature, known), limits)
            for name in registry.names()
        }
    return msgspec.structs.replace(found, obstacles=obstacles)


def describe(args: DescribeArgs) -> Inspection:
    """The child's part of :func:`inspect_model`: everything but the obstacles."""
    from tailorbird.builder.sources import onnx_file

    path = Path(args.path)
    model = onnx_file.read_model(path)
    signature = onnx_file.signature_of(model)
    flops, reason = _flops(model, signature, args.shapes)
    if args.copy:
        onnx_file.write_model(model, Path(args.copy))
    operators = Counter(_operators(model))
    return Inspection(
        path=args.path,
        digest=onnx_file.source_digest(path),
        format="onnx",
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ir_version=model.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        signature=signature,
        dynamic_dims=signature.dynamic_dims,
        batch_dim=signature.batch_dim,
        operators=dict(operators.most_common()),
        nodes=operators.total(),
        external_files=onnx_file.external_files(path),
        flops=flops,
        flops_reason=reason,
        notes=tuple(_notes(model, signature)),
        obstacles={},
        **_weights(model),
    )


def run_shapes(signature: Signature, given: Shapes) -> tuple[dict[str, Shape], tuple[str, ...]]:
    """The shape of every input, and the dims whose size is not known; one of the two is empty.

    Raises:
        InputError: a given shape contradicts the signature.
    """
    known = Signature(tuple(signature.input(name) for name in given), ()).bind(given)
    sizes = ({signature.batch_dim: 1} if signature.batch_dim else {}) | known
    missing = tuple(dim for dim in signature.dynamic_dims if dim not in sizes)
    if missing:
        return {}, missing
    dims = {spec.name: spec.dims for spec in signature.inputs}
    return {
        name: tuple(dim if isinstance(dim, int) else sizes[dim] for dim in shape) for name, shape in dims.items()
    }, ()


def _flops(model: Any, signature: Signature, given: Shapes) -> tuple[FlopsReport | None, str]:
    from tailorbird.builder.graph.flops import count_flops

    shapes, missing = run_shapes(signature, given)
    if missing:
        return None, f"the size of {', '.join(missing)} is not known: give --shapes"
    try:
        return count_flops(model, shapes), ""
    except ModelError as error:
        return None, error.message


def _operators(model: Any) -> Iterator[str]:
    from tailorbird.builder.graph.flops import operator_name
    from tailorbird.builder.sources.graph_check import all_nodes

    return (operator_name(node) for node in all_nodes(model))


def _weights(model: Any) -> dict[str, Any]:
    from tailorbird.builder.sources.graph_check import element_count, stored_bytes, tensors, type_name

    dtypes: Counter[str] = Counter()
    size = 0
    for tensor in tensors(model):
        dtypes[type_name(tensor)] += element_count(tensor)
        size += stored_bytes(tensor)
    parameters = sum(count for name, count in dtypes.items() if name not in _NOT_PARAMETERS)
    return {"parameters": parameters, "weight_bytes": size, "dtypes": dict(dtypes.most_common())}


def _notes(model: Any, signature: Signature) -> Iterator[str]:
    from tailorbird.builder.graph.passes import has_clashing_names, opset_of

    if 0 < opset_of(model) < 13:
        yield f"opset {opset_of(model)}: per-channel INT8 needs opset 13, so a build upgrades the graph first"
    if has_clashing_names(model):
        yield "one name is given to several values: a build renames them"
    open_dims = [dim for dim in signature.dynamic_dims if dim != signature.batch_dim]
    if open_dims:
        yield f"dynamic {', '.join(open_dims)}: an engine for fixed sizes is often faster (--opt-shapes)"
    if signature.batch_dim is None:
        yield "no dynamic dim leads every input: requests cannot be joined in batches"


def _obstacles(trial: TrialArgs, limits: Limits) -> tuple[str, ...]:
    with Worker(limits, Path(f"{trial.folder}.log"), scratch=Path(trial.folder).parent) as worker:
        try:
            return worker.call("tailorbird.builder.graph.trial:try_backend", trial, Trial).obstacles
        except StepError as error:
            return (error.message.replace("\n", "; "),)
