"""NNCF as a package: loaded without telemetry, and told what every method of it shares."""

from __future__ import annotations

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
    """The ``nncf`` module, quiet and unable to send telemetry.

    NNCF and OpenVINO report to Intel through the package ``openvino_telemetry`` and do without it where it is not
    installed. So it is made unimportable in this process, before NNCF looks for it: nothing is sent, and no
    client id is written into the user's home, which NNCF's own switch ``NNCF_CI`` would still do.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import nncf
    nncf.set_log_level(40)  # logging.ERROR
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
    """Arguments of ``nncf.quantize``, besides the model and the data.

    Activations are asymmetric (preset ``MIXED``) in every model: measured on the zoo, symmetric ones cost up to
    2.4 dB and never gained any. ``minmax`` is NNCF's own choice: the least and greatest value of each sample, the
    mean of them over the samples for per-tensor activations. ``percentile`` cuts 0.01 % of the values of each
    sample off at either end (``MEAN_QUANTILE``: quantiles 0.0001 and 0.9999), and takes the mean likewise.

    Raises:
        UsageError: other ranges.
    """
    nncf = load_nncf()
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

    estimators = {
        Ranges.MINMAX: RangeEstimatorParameters(),
        Ranges.PERCENTILE: RangeEstimatorParametersSet.MEAN_QUANTILE,
    }
    ranges = args.quantisation.ranges or Ranges.MINMAX
    if ranges not in estimators:
        raise UsageError(f"nncf does not find ranges by {ranges}", expected=", ".join(estimators))
    fix = nncf.OverflowFix.ENABLE if seven_bits() else nncf.OverflowFix.DISABLE
    return {
        "preset": nncf.QuantizationPreset.MIXED,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "subset_size": len(args.samples),
        "advanced_parameters": nncf.AdvancedQuantizationParameters(
            overflow_fix=fix, activations_range_estimator_params=estimators[ranges]
        ),
    }


def notes(transformer: bool) -> tuple[str, ...]:
    """What the methods decided by themselves, in words."""
    kind = ("as a transformer: normalisation and sums stay in float",) if transformer else ()
    bits = ("weights in 7 bits: without VNNI this CPU saturates 8-bit products",) if seven_bits() else ()
    return (*kind, *bits)


class Promise(msgspec.Struct, frozen=True):
    """What quantising must leave as it is."""

    signature: tuple[str, ...]
    """Name, type and dims of every input and output, in order."""
    broken: frozenset[str]
    """Names of float constants that hold NaN or Inf: none may join them."""

    def check(self, got: Promise) -> None:
        """Raises :class:`StepError` when a graph with the facts ``got`` does not keep this."""
        for one, other in zip_longest(got.signature, self.signature, fillvalue="nothing"):
            if one != other:
                raise StepError("quantising changed the signature", got=one, expected=other)
        broken = sorted(got.broken - self.broken)
        if broken:
            raise StepError(f"quantising made '{broken[0]}' NaN or infinite", got=f"{len(broken)} such constants",
                            expected="finite ones, as in the source",
                            hint="look for NaN or infinite values in the calibration data")  # fmt: skip
