"""INT8 weights only, by NNCF: the engine unpacks them and computes in float."""

from __future__ import annotations

from pathlib import Path

import onnx

from tailorbird.builder.quantise.methods import QuantiseArgs, Quantised
from tailorbird.builder.quantise.nncf_package import load_nncf, nncf_border
from tailorbird.builder.quantise.openvino_graph import promise_of, read_onnx, units_of, write
from tailorbird.domain.errors import TailorbirdError


def quantise(args: QuantiseArgs) -> Quantised:
    """Store weights as INT8, one scale and zero point for each output channel; no data is needed.

    Writes an OpenVINO IR. NNCF takes the weights of matrix products, convolutions and embeddings.

    Raises:
        TailorbirdError: the model has no weights of that kind.
        BackendError: NNCF or OpenVINO refused, with its own words.
        StepError: the result has another signature, or constants that are not finite.
    """
    nncf = load_nncf()
    before = read_onnx(Path(args.model), onnx.load(args.model, load_external_data=False))
    promise = promise_of(before)
    with nncf_border(args.seed, "compress the weights"):
        graph = nncf.compress_weights(before, mode=nncf.CompressWeightsMode.INT8_ASYM)
    promise.check(promise_of(graph))
    units = units_of(graph)
    if not units:
        raise TailorbirdError("nothing to quantise", got="no weights of matrix products, convolutions or embeddings")
    return Quantised(write(graph, Path(args.folder)), units)
