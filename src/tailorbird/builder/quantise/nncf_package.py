"""NNCF as a package: loaded without telemetry, and told what every method of it shares."""

from __future__ import annotations

import logging
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tailorbird.backends.base import vendor_border
from tailorbird.builder.cases.data import load_set
from tailorbird.builder.quantise.methods import QuantiseArgs
from tailorbird.builder.quantise.onnx_graph import seven_bits
from tailorbird.domain.errors import InputError, StepError, UsageError
from tailorbird.domain.quantisation import Ranges


def load_nncf() -> Any:
    """The ``nncf`` module, quiet, and neither it nor OpenVINO able to send telemetry from now on.

    Both report to Intel through the package ``openvino_telemetry``, OpenVINO as soon as it is imported, and do
    without it where it is not installed. So it is made unimportable; an OpenVINO that has it already is given its own
    stub of it. NNCF's switch ``NNCF_CI`` would not do: OpenVINO does not ask it. Call this before importing OpenVINO.
    """
    loaded = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    if loaded is not None:
        from openvino.tools.ovc import telemetry_stub

        loaded.Telemetry = telemetry_stub.Telemetry  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import nncf
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextmanager
def nncf_border(seed: int, action: str = "quantise the model") -> Iterator[None]:
    """Whatever NNCF raises becomes a :class:`BackendError`; its warnings stop here; its sampling is seeded."""
    random.seed(seed)
    np.random.seed(seed)  # NNCF draws from the global generators
    with vendor_border("nncf", action), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def calibration_set(args: QuantiseArgs) -> Any:
    """The samples as ``nncf.Dataset``, each file read when its turn comes.

    Raises:
        InputError: there is no sample.
    """
    if not args.samples:
        raise InputError("nothing to calibrate on", got="no sample", hint="give data with --data")
    return load_nncf().Dataset(args.samples, lambda path: load_set(Path(path)))


def settings(args: QuantiseArgs, transformer: bool) -> dict[str, Any]:
    """Arguments of ``nncf.quantize``, besides the model and the data; biases are corrected by its fast algorithm.

    Activations are asymmetric (preset ``MIXED``) in every model. Measured on the zoo against symmetric ones, 24
    samples: PP-OCR's classifier 43 and 28 dB, ResNet-50 14.8 and 14.7, MobileNetV2 12.1 and 11.8.

    ``minmax`` is NNCF's own choice: the least and greatest value of each sample, for most activations the mean of
    them over the samples. ``percentile`` cuts 0.01 % of the values of each sample off at either end
    (``MEAN_QUANTILE``: quantiles 0.0001 and 0.9999), and takes the mean likewise.

    Raises:
        UsageError: other ranges.
    """
    nncf = load_nncf()
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

    offered = {Ranges.MINMAX: RangeEstimatorParameters(), Ranges.PERCENTILE: RangeEstimatorParametersSet.MEAN_QUANTILE}
    ranges = args.quantisation.ranges or Ranges.MINMAX
    if ranges not in offered:
        raise UsageError(f"nncf does not find ranges by {ranges}", expected=", ".join(offered))
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=_overflow_fix(nncf, transformer), activations_range_estimator_params=offered[ranges]
    )
    return {
        "preset": nncf.QuantizationPreset.MIXED,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "subset_size": len(args.samples),
        "fast_bias_correction": True,
        "advanced_parameters": advanced,
    }


def _overflow_fix(nncf: Any, transformer: bool) -> Any:
    """Which weights get 7 bits where sums of products saturate: all, or in a transformer those of the first layer.

    Values behind a normalisation are seldom large side by side, so there the lost bit costs more than saturation.
    Measured on an AVX2 machine without VNNI in dB, with the fix in all layers, the first, and none: PP-OCR's
    classifier 43, 28, 14; MobileNetV2 12.1, -, 10.9; MiniLM 16.8, 19.0, 19.0; magika 46, 56, 51; ViT-base 18.9, 18.2,
    18.3; BERT-base 26.7, 26.3, 26.3.
    """
    if not seven_bits():
        return nncf.OverflowFix.DISABLE
    return nncf.OverflowFix.FIRST_LAYER if transformer else nncf.OverflowFix.ENABLE


def notes(transformer: bool) -> tuple[str, ...]:
    """What the methods decided by themselves, in words."""
    kind = ("as a transformer: normalisation and sums stay in float",) if transformer else ()
    which = "weights of the first layer" if transformer else "weights"
    bits = (f"{which} in 7 bits: without VNNI this CPU saturates 8-bit products",) if seven_bits() else ()
    return (*kind, *bits)


class Promise(msgspec.Struct, frozen=True):
    """What quantising must leave as it is."""

    signature: tuple[str, ...]
    """Name, type and dims of every input and output, in order."""
    broken: frozenset[str]
    """Names of operations that read a float constant with NaN or Inf in it: none may join them."""

    def check(self, got: Promise) -> None:
        """Raises :class:`StepError` when a graph with the facts ``got`` does not keep this."""
        for one, other in zip_longest(got.signature, self.signature, fillvalue="nothing"):
            if one != other:
                raise StepError("quantising changed the signature", got=one, expected=other)
        broken = sorted(got.broken - self.broken)
        if broken:
            raise StepError(f"quantising made a constant of '{broken[0]}' NaN or infinite",
                            got=f"{len(broken)} such operations", expected="finite constants, as in the source",
                            hint="look for extreme values in the weights and the calibration data")  # fmt: skip
