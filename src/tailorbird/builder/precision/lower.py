"""Lowering to FP16 or BF16, as a table of contents: prepare, look, keep, cast, prove."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx

from tailorbird.backends.base import vendor_border
from tailorbird.builder.graph.passes import opset_of
from tailorbird.builder.precision import masks
from tailorbird.builder.precision.cast import cast
from tailorbird.builder.precision.emulate import emulation
from tailorbird.builder.precision.formats import FORMATS, Format
from tailorbird.builder.precision.keep import LOOKS, PLAIN, Keeping
from tailorbird.builder.precision.opset import raised
from tailorbird.builder.precision.records import Kept, LowerArgs, Lowered
from tailorbird.builder.precision.slots import float_values, slots_of
from tailorbird.builder.precision.structure import ROOTS
from tailorbird.builder.quantise.onnx_graph import name_nodes, note_types, open_session, prepared
from tailorbird.builder.quantise.onnx_ranges import feeds
from tailorbird.builder.sources.onnx_file import read_model, without_weights, write_model
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import ModelError, TailorbirdError
from tailorbird.domain.fidelity import snr_db, strange

FILE = "model.onnx"

OLDEST_OPSET = 13
"""Where bfloat16 begins, and per-channel scales."""

_LEFT_OUT = ("MatMulAddFusion",)
"""Of ONNX Runtime's basic optimisations: a Gemm of two dims with reshapes around it hides a product from others."""


def lower(args: LowerArgs) -> Lowered:
    """Write the graph in the asked precision; runs in a process of its own.

    Inputs and outputs keep their types. Batch norms and constant sub-graphs are folded first, in FP32.

    Raises:
        ModelError: the operator set is older than the low formats.
        TailorbirdError: no node takes the format, or what is infinite or NaN at the end was not so in FP32.
        BackendError: ONNX Runtime does not run the source.
    """
    low = FORMATS[args.precision]
    with tempfile.TemporaryDirectory() as scratch:
        model = _ready(Path(args.model), Path(scratch), args.threads)
        notes = masks.fitted(model)
        model, more = raised(model, low)
        kept = _kept(model, low, args, Path(scratch))
        nodes = _cast(model, kept, low)
        write_model(model, Path(args.folder) / FILE)
        proof = _proof(model, args, Path(scratch))
    return Lowered(FILE, nodes, _told(model, kept), proof, (*notes, *more))


def _ready(path: Path, scratch: Path, threads: int) -> onnx.ModelProto:
    """Folded, named, typed. A quantised graph was folded before: once more, and its biases would be quantised, too."""
    model = read_model(path)
    if opset_of(model) < OLDEST_OPSET:
        raise ModelError("the graph's operator set is too old to be cast", got=opset_of(model),
                         expected=f"{OLDEST_OPSET} or later", hint="see why upgrade-opset was left out")  # fmt: skip
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return prepared(path, scratch, threads, _LEFT_OUT)
    with vendor_border("onnxruntime", "read the quantised model"):
        note_types(name_nodes(model), scratch / "types.onnx")
    return model


def _kept(model: onnx.ModelProto, low: Format, args: LowerArgs, scratch: Path) -> dict[str, str]:
    """Why nodes stay, by name, in topological order."""
    keeping = Keeping(model, slots_of(model, float_values(model), low), low)
    if args.samples:
        with vendor_border("onnxruntime", "look at the model's values"):
            keeping.look(args.samples, scratch, args.threads)
    else:
        keeping.keep_small_constants()
    keeping.close_gaps()
    return {node.name: keeping.kept[node.name] for node in model.graph.node if node.name in keeping.kept}


def _told(model: onnx.ModelProto, kept: dict[str, str]) -> tuple[Kept, ...]:
    """What is worth telling of it: a Shape computes nothing with what it reads."""
    kinds = {node.name: node.op_type for node in model.graph.node}
    return tuple(Kept(name, why) for name, why in kept.items() if kinds[name] not in ROOTS)


def _cast(model: onnx.ModelProto, kept: dict[str, str], low: Format) -> int:
    """Casts put in and the result checked; the number of nodes in the format."""
    slots = slots_of(model, float_values(model), low)
    lowered = [node.name for node in model.graph.node if slots[node.name] and node.name not in kept]
    if not lowered:
        raise TailorbirdError(f"nothing of the graph can run in {low.name.upper()}",
                              got="; ".join(dict.fromkeys(kept.values())) or "no float operator")  # fmt: skip
    cast(model, lowered, slots, low)
    _note_types(model)
    return len(lowered)


def _note_types(model: onnx.ModelProto) -> None:
    """Types of inner values anew, by strict inference: the proof that the graph is valid."""
    light = without_weights(model)
    try:
        onnx.checker.check_model(light)
        typed = onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError("the lowered graph is not valid ONNX", got=" ".join(str(error).split())[:300]) from error
    model.graph.value_info.extend(typed.graph.value_info)


def _proof(model: onnx.ModelProto, args: LowerArgs, scratch: Path) -> float | None:
    """The worst output of the lowered graph, emulated, against the source's own, in dB."""
    if not args.samples or not _emulates(model):
        return None
    path = scratch / "emulated.onnx"
    write_model(emulation(model), path)
    with vendor_border("onnxruntime", "run the lowered model"):
        ours = _answers(path, args)
        theirs = _answers(Path(args.model), args)
    for name, array in ours.items():
        if strange(theirs[name], array):
            raise TailorbirdError(f"output '{name}' is NaN or infinite in {args.precision.upper()}",
                                  expected="finite values, as in FP32")  # fmt: skip
    return round(min((snr_db(theirs[name], array) for name, array in ours.items()), default=0.0), 1)


def _emulates(model: onnx.ModelProto) -> bool:
    """Whether the emulation has the inputs and outputs of the model: not where the source has them in a low format."""
    lows = {low.element for low in FORMATS.values()}
    return not any(value.type.tensor_type.elem_type in lows for value in (*model.graph.input, *model.graph.output))


def _answers(path: Path, args: LowerArgs) -> dict[str, Array]:
    """The float outputs on the samples, one behind the other."""
    session = open_session(path, args.threads, PLAIN)
    found: dict[str, list[Array]] = {}
    for inputs in feeds(args.samples[:LOOKS]):
        for output, array in zip(session.get_outputs(), session.run(None, inputs), strict=True):
            if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                found.setdefault(output.name, []).append(array.ravel())
    return {name: np.concatenate(arrays) for name, arrays in found.items()}
