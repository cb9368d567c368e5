"""NNCF's post-training quantisation of the OpenVINO graph, whole, or with units kept in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from tailorbird.builder.quantise.methods import QuantiseArgs, Quantised
from tailorbird.builder.quantise.nncf_package import calibration_set, load_nncf, nncf_border, notes, settings
from tailorbird.builder.quantise.nncf_transformer import is_transformer
from tailorbird.builder.quantise.openvino_graph import MODEL, promise_of, read, read_onnx, units_of, write
from tailorbird.builder.quantise.openvino_mixed import keep


def quantise(args: QuantiseArgs) -> Quantised:
    """Quantise the model, or put ``args.quantisation.kept`` of ``args.base`` back into float.

    Writes an OpenVINO IR. With nothing kept, weights are stored as INT8 and activations pass through a FakeQuantize
    whose range the samples decide. With units kept nothing is calibrated again: the graph in ``args.base`` is
    altered.

    Raises:
        InputError: there is no sample to calibrate on.
        UsageError: a kept name is not that of a unit, or the ranges are not offered.
        BackendError: NNCF or OpenVINO refused, with its own words.
        StepError: the result has another signature, or constants that are not finite.
    """
    load_nncf()  # first of all: OpenVINO would load its telemetry too
    proto = onnx.load(args.model, load_external_data=False)
    before = read_onnx(Path(args.model), proto)
    transformer = is_transformer(proto)
    del proto
    graph = _mixed(args, before) if args.quantisation.kept else _whole(args, before, transformer)
    return Quantised(write(graph, Path(args.folder)), units_of(graph), notes(transformer))


def _whole(args: QuantiseArgs, before: Any, transformer: bool) -> Any:
    data, promise = calibration_set(args), promise_of(before)
    with nncf_border(args.seed):
        graph = load_nncf().quantize(before, data, **settings(args, transformer))
    promise.check(promise_of(graph))
    return graph


def _mixed(args: QuantiseArgs, before: Any) -> Any:
    graph = read(Path(args.base) / MODEL)
    promise = promise_of(graph)
    keep(graph, before, args.quantisation.kept)
    promise.check(promise_of(graph))
    return graph
