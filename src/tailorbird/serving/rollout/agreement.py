"""Agreement: how close a shadow's outputs are to the live ones, over any number of answers, in bounded memory."""

from __future__ import annotations

import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.fidelity import CAP_DB, cosine, decibels, is_class_like, snr_db, strange
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.serving.rollout.status import OutputAgreement


class Agreement:
    """Of all outputs of a model.

    Args:
        signature: the live version's.
    """

    def __init__(self, signature: Signature) -> None:
        self._outputs = {spec.name: _Output(spec.name, spec.dtype) for spec in signature.outputs}

    def add(self, live: Tensors, shadow: Tensors) -> None:
        """One more pair of answers; what the live one has decides what is compared."""
        with np.errstate(all="ignore"):  # the numbers themselves say what overflowed
            for name, reference in live.items():
                self._outputs[name].add(reference, shadow.get(name))

    def status(self) -> tuple[OutputAgreement, ...]:
        """In figures, in the signature's order."""
        return tuple(output.status() for output in self._outputs.values())


class _Output:
    def __init__(self, name: str, dtype: DType) -> None:
        self._name = name
        self._dtype = dtype
        self._compared = 0
        self._mismatched = 0
        self._strange = 0
        self._equal = _Share()
        self._winners = _Share()
        self._largest: float | None = None
        self._signal = 0.0
        self._noise = 0.0
        self._worst_snr = CAP_DB
        self._cosines = 0.0
        self._floats = 0
        self._worst_cosine = 1.0

    def add(self, live: Array, shadow: Array | None) -> None:
        self._compared += 1
        if shadow is None or shadow.shape != live.shape or shadow.dtype != live.dtype:
            self._mismatched += 1
        elif self._dtype.is_float:
            self._add_floats(_floats(live, self._dtype), _floats(shadow, self._dtype))
        else:
            self._equal.add(int(np.sum(live == shadow)), live.size)

    def _add_floats(self, live: Array, shadow: Array) -> None:
        self._strange += strange(live, shadow)
        if is_class_like(live):
            self._winners.add(int(np.sum(live.argmax(-1) == shadow.argmax(-1))), len(live))
        both = np.isfinite(live) & np.isfinite(shadow)
        reference, error = live[both].astype(np.float64), live[both].astype(np.float64) - shadow[both]
        if not error.size:
            return
        self._floats += 1
        self._largest = max(self._largest or 0.0, float(np.abs(error).max()))
        self._signal += float(np.dot(reference, reference))
        self._noise += float(np.dot(error, error))
        self._worst_snr = min(self._worst_snr, snr_db(live, shadow))
        angle = cosine(live, shadow)
        self._cosines += angle
        self._worst_cosine = min(self._worst_cosine, angle)

    def status(self) -> OutputAgreement:
        counts = self._floats
        return OutputAgreement(
            name=self._name,
            compared=self._compared,
            mismatched=self._mismatched,
            strange=self._strange,
            max_abs_error=self._largest,
            snr_db=decibels(self._signal, self._noise) if counts else None,
            worst_snr_db=self._worst_snr if counts else None,
            cosine=self._cosines / counts if counts else None,
            worst_cosine=self._worst_cosine if counts else None,
            top1=self._winners.value,
            equal=self._equal.value,
        )


class _Share:
    """So many of so many."""

    def __init__(self) -> None:
        self._part = self._whole = 0

    def add(self, part: int, whole: int) -> None:
        self._part += part
        self._whole += whole

    @property
    def value(self) -> float | None:
        return self._part / self._whole if self._whole else None


def _floats(array: Array, dtype: DType) -> Array:
    """BF16 is kept as the upper halves of FP32."""
    return array if dtype is not DType.BF16 else (array.astype(np.uint32) << 16).view(np.float32)
