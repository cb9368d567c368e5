"""Dynamic INT8 by ONNX Runtime's quantiser: weights once, activations at every run, by their own extremes.

It needs no data. Only matrix products with constant weights take part. A convolution would become ConvInteger,
whose kernel was 6 to 40 times slower than FP32 on every model measured; tables that are only looked up stay float,
because a look-up computes nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

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
from tailorbird.builder.quantise.onnx_islands import Islands
from tailorbird.domain.errors import TailorbirdError

HEAVY = ("MatMul", "Gemm")


def quantise(args: QuantiseArgs) -> Quantised:
    """Write the quantised graph; see :mod:`tailorbird.builder.quantise.methods`.

    Raises:
        TailorbirdError: nothing can be quantised, or the result is not finite.
        BackendError: the vendor's tool failed.
    """
    source = Path(args.model)
    with tempfile.TemporaryDirectory() as scratch:
        model = prepared(source, Path(scratch), args.threads)
        if not Islands(model, heavy=HEAVY).units:
            raise TailorbirdError("nothing to quantise", got="no MatMul or Gemm with constant weights")
        islands = Islands(model, args.quantisation.kept, heavy=HEAVY)
        if islands.units:
            model = _quantised(model, islands)
        publish(model, source, Path(args.folder))
    return Quantised("model.onnx", islands.units, seven_bits_note())


def _quantised(model: onnx.ModelProto, islands: Islands) -> onnx.ModelProto:
    onnxruntime()  # first, so that it is told to be silent before the tool imports it
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, QuantType, add_infer_metadata

    names = [name for unit in islands.units for name in (unit.name, f"{unit.name}_MatMul")]  # it splits each Gemm
    with border():
        own_constants(model, islands.nodes)
        add_infer_metadata(model)
        tool = ONNXQuantizer(
            *(model, True, seven_bits(), QuantizationMode.IntegerOps, False, QuantType.QInt8, QuantType.QUInt8),
            *(None, names, [], ["MatMul"], {"MatMulConstBOnly": True}),
        )
        tool.quantize_model()
    return tool.model.model
