"""The budget: what loss of accuracy is allowed, and the numbers it is held against."""

from __future__ import annotations

import math

import msgspec


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Least fidelity to the FP32 reference, per output.

    ``snr_db`` is 10 log10(sum(ref^2) / sum((ref - out)^2)); 20 dB is an error of a tenth of the
    signal, and about a cosine of 0.995. ``top1`` is judged on class-like outputs, and only on
    data the user gave: on synthetic inputs the winning class has no meaning.
    """

    snr_db: float = 20.0
    cosine: float = 0.995
    top1: float = 0.99


class Check(msgspec.Struct, frozen=True):
    """One rule of the gate, held or broken, with its numbers."""

    rule: str
    passed: bool
    where: str
    measured: float | str
    limit: float | str

    def __post_init__(self) -> None:
        if isinstance(self.measured, float) and not math.isfinite(self.measured):  # JSON has no word for it
            msgspec.structs.force_setattr(self, "measured", str(self.measured))

    def __str__(self) -> str:
        relation = "meets" if self.passed else "misses"
        return f"{self.rule} {_number(self.measured)} {relation} {_number(self.limit)} ({self.where})"


class GateReport(msgspec.Struct, frozen=True):
    """Every check of one engine. A gate that checked nothing has failed."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one check ran and every check held."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The broken checks, in the order they ran."""
        return tuple(check for check in self.checks if not check.passed)

    def worst(self, rule: str) -> float | None:
        """The least number measured for a rule over all outputs and places, or None when it never ran."""
        numbers = [c.measured for c in self.checks if c.rule == rule and isinstance(c.measured, float)]
        return min(numbers, default=None)

    @property
    def verdict(self) -> str:
        """One line for people: the worst fidelity, or what broke first."""
        if not self.checks:
            return "gate did not run"
        if not self.passed:
            more = len(self.failures) - 1
            return f"{self.failures[0]}" + (f", and {more} more" if more else "")
        snr = self.worst("snr_db")
        return "pass" if snr is None else f"pass, SNR {_number(snr)} dB"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
