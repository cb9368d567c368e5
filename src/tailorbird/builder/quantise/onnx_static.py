"""Static INT8 by ONNX Runtime's quantiser: Q/DQ pairs around the operators, or quantised operators.

Weights are INT8, symmetric, per channel; activations UINT8 with one range for each value, found on calibration
data. Only convolutions and matrix products with constant weights are quantised, and what lies between them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tailorbird.builder.quantise import onnx_ranges
from tailorbird.builder.quantise.methods import QuantiseArgs, Quantised
from tailorbird.builder.quantise.onnx_graph import (
    border,
    onnxruntime,
    own_constants,
    prepared,
    publish,
    seven_bits,
    seven_bits_note,
)
from tailorbird.builder.quantise.onnx_islands import HEAVY, Islands
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.quantisation import Ranges

_FLOWS = {"qdq": ("Conv",), "qoperator": HEAVY}
"""Operators that give INT8 on: with Q/DQ pairs a matrix product takes INT8 and gives float, which costs little and
keeps what comes after it exact; a quantised operator has no such form."""


def quantise(args: QuantiseArgs) -> Quantised:
    """Write the quantised graph; see :mod:`tailorbird.builder.quantise.methods`.

    Ranges are kept beside the graph, and a graph with units kept in float reads them from the one it is made from.

    Raises:
        TailorbirdError: nothing can be quantised, there are no samples, or the result is not finite.
        BackendError: the vendor's tool failed.
    """
    source, folder, wish = Path(args.model), Path(args.folder), args.quantisation
    with tempfile.TemporaryDirectory() as scratch:
        model = prepared(source, Path(scratch), args.threads)
        whole = Islands(model, flows=_FLOWS[wish.method])
        if not whole.units:
            raise TailorbirdError("nothing to quantise", got="no Conv, MatMul or Gemm with constant weights")
        found = _ranges(args, model, whole, Path(scratch))
        blind = sorted(set(whole.values) - set(found.ranges))
        islands = Islands(model, wish.kept, flows=_FLOWS[wish.method], barred=blind)
        if islands.units:
            model = _quantised(model, islands, found, wish.method)
        publish(model, source, folder)
    return Quantised("model.onnx", islands.units, _notes(blind))


def _ranges(args: QuantiseArgs, model: onnx.ModelProto, whole: Islands, scratch: Path) -> onnx_ranges.Found:
    if args.base:
        return onnx_ranges.load(Path(args.base))
    method = args.quantisation.ranges or Ranges.MINMAX
    found = onnx_ranges.find(model, whole.values, args.samples, method, scratch, args.threads)
    onnx_ranges.save(found, Path(args.folder))
    return found


def _notes(blind: list[str]) -> tuple[str, ...]:
    return (*seven_bits_note(), *(f"'{name}' stays in float: it has no finite range" for name in blind))


def _quantised(model: onnx.ModelProto, islands: Islands, found: onnx_ranges.Found, method: str) -> onnx.ModelProto:
    onnxruntime()  # first, so that it is told to be silent before the tool imports it
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, QuantType, add_infer_metadata

    with border():
        own_constants(model, islands.nodes)
        add_infer_metadata(model)  # it would save, infer and reload it otherwise
        common: tuple[Any, ...] = (
            QuantType.QInt8,
            QuantType.QUInt8,
            _tensors_data(found, islands),
            [node.name for node in islands.nodes],
            [],
            sorted({node.op_type for node in islands.nodes}),
            {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        if method == "qdq":
            tool = QDQQuantizer(model, True, seven_bits(), *common)
        else:
            tool = ONNXQuantizer(model, True, seven_bits(), QuantizationMode.QLinearOps, True, *common)
        tool.quantize_model()
    return tool.model.model


def _tensors_data(found: onnx_ranges.Found, islands: Islands) -> Any:
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    wanted = {name: found.ranges[name] for name in islands.values}
    return TensorsData(
        CalibrationMethod.MinMax,
        {name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
         for name, (low, high) in wanted.items()},
    )  # fmt: skip
