"""The budget: what loss of accuracy is allowed, and the numbers it is held against."""

from __future__ import annotations

import math
import re
from typing import Annotated

import msgspec

from tailorbird.domain.errors import UsageError


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The loss of accuracy that is allowed.

    With labels the metric's score decides: at least ``share`` of the FP32 score (MLPerf's 99 %), or, when
    ``drop`` is given, a score at most ``drop`` below it. Without labels fidelity to the FP32 outputs decides, per
    output: ``snr_db`` is 10 log10(sum(ref^2) / sum((ref - out)^2)), where 20 dB is an error of a tenth of the
    signal and about a cosine of 0.995; ``top1`` is the share of equal winners of class-like outputs and of equal
    elements of whole-number ones. It is judged on the user's data only: on synthetic inputs a winner means nothing.
    """

    snr_db: float = 20.0
    cosine: Annotated[float, msgspec.Meta(le=1)] = 0.995
    top1: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99
    drop: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """In the metric's own units: points for the built-in ones, whose scores run from 0 to 100."""
    metric: str = ""
    """The metric that ``share`` or ``drop`` was said of; empty for the build's own."""
    fidelity: bool = False
    """Whether fidelity is judged even where labels decide, because the user named a limit of it."""

    def least(self, reference: float) -> float:
        """The least score that is allowed where FP32 scores ``reference``."""
        return self.share * reference if self.drop is None else reference - self.drop

    @property
    def words(self) -> str:
        """What of it is held against a metric: ``99% of FP32``, or ``a drop of 0.5``."""
        return f"{100 * self.share:g}% of FP32" if self.drop is None else f"a drop of {self.drop:g}"


SPELLINGS = '"99%", "top1 >= 99.5%", "top1 drop <= 0.5", "snr >= 25", "cosine >= 0.999", or several with commas'

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_METRIC = r"(?P<metric>[a-z_][\w.]*(?::[a-z_]\w*)?)"
_SHARE = re.compile(rf"(?:{_METRIC}\s*>=\s*)?(?P<number>{_NUMBER})\s*%", re.IGNORECASE)
_DROP = re.compile(rf"{_METRIC}\s+drop\s*<=\s*(?P<number>{_NUMBER})", re.IGNORECASE)
_SNR = re.compile(rf"snr\s*>=\s*(?P<number>{_NUMBER})(?:\s*dB)?", re.IGNORECASE)
_COSINE = re.compile(rf"cosine\s*>=\s*(?P<number>{_NUMBER})", re.IGNORECASE)
_FIDELITY = ("snr", "cosine")


def parse_budget(text: str) -> Budget:
    """A budget from any of its spellings; raises :class:`UsageError` listing them.

    A bare percentage is the least share of the FP32 score; without labels it is the least agreement of winners.
    Numbers of the metric's own units may be written as ``0.5`` or ``1e-3``. A limit that is said twice is refused,
    because one of the two would not be held.
    """
    said: dict[str, object] = {}
    for clause in text.split(","):
        fields = _clause(clause.strip())
        if fields is None:
            raise UsageError("cannot read the budget", got=text, expected=SPELLINGS)
        twice = said.keys() & fields.keys() - {"fidelity"}
        if twice or (said.keys() | fields.keys()) >= {"share", "drop"}:
            raise UsageError("the budget says one limit twice", got=text, expected="each limit once")
        said |= fields
    return Budget(**said)  # type: ignore[arg-type]  # the clauses name its fields


def _clause(text: str) -> dict[str, object] | None:
    """The fields that one clause sets, or None when it is none."""
    for pattern, reads in ((_SNR, _snr), (_COSINE, _cosine), (_SHARE, _share), (_DROP, _drop)):
        found = pattern.fullmatch(text)
        if found and math.isfinite(number := float(found["number"])):
            return reads(number, _metric_name(found.groupdict().get("metric") or ""))
    return None


def _metric_name(text: str) -> str:
    return text if ":" in text else text.lower()


def _snr(number: float, _: str) -> dict[str, object]:
    return {"snr_db": number, "fidelity": True}


def _cosine(number: float, _: str) -> dict[str, object] | None:
    return {"cosine": number, "fidelity": True} if number <= 1 else None


def _share(number: float, metric: str) -> dict[str, object] | None:
    share = round(number / 100, 12)  # 99.9 / 100 is a little more than 0.999
    if not 0 < share <= 1 or metric in _FIDELITY:
        return None
    agreement = {"top1": share} if metric in ("", "top1") else {}
    return {"share": share, **agreement} | ({"metric": metric} if metric else {})


def _drop(number: float, metric: str) -> dict[str, object] | None:
    return None if metric in _FIDELITY else {"drop": number, "metric": metric}


METRIC = "metric "
"""What the rule of a metric's check begins with; its name follows."""

_ACCURACY = frozenset({"snr_db", "cosine", "top1", "equal elements", "NaN or Inf"})


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule of the gate, held or broken, with its numbers."""

    rule: str
    passed: bool
    where: str
    measured: float | str
    limit: float | str
    reference: float | None = None
    """Of a metric: what FP32 scores on the same rows."""

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

    @property
    def misses_accuracy(self) -> bool:
        """Whether a broken check is a matter of accuracy, and not only of how the engine ran."""
        return any(_is_accuracy(check) for check in self.failures)

    @property
    def only_accuracy(self) -> bool:
        """Whether it failed, and every broken check is a matter of accuracy, which higher precision can mend.

        A metric that could not be taken is no such matter: its check holds words, not a number.
        """
        return bool(self.failures) and all(_is_accuracy(check) for check in self.failures)

    @property
    def score(self) -> str:
        """The metric where it lost most, ``top1 97.8 of 98.1``; empty where no labels decided."""
        scored = [check for check in self.checks if _is_score(check)]
        if not scored:
            return ""
        worst = min(scored, key=_gain)
        return f"{worst.rule.removeprefix(METRIC)} {_number(worst.measured)} of {_number(worst.reference or 0.0)}"

    def worst(self, rule: str) -> float | None:
        """The least number measured for a rule over all outputs and places, or None when it never ran."""
        numbers = [c.measured for c in self.checks if c.rule == rule and isinstance(c.measured, float)]
        return min(numbers, default=None)

    @property
    def verdict(self) -> str:
        """One line for people: the metric or else the worst fidelity, or what broke first."""
        if not self.checks:
            return "gate did not run"
        if not self.passed:
            more = len(self.failures) - 1
            return f"{self.failures[0]}" + (f", and {more} more" if more else "")
        if self.score:
            return f"pass, {self.score}"
        snr = self.worst("snr_db")
        return "pass" if snr is None else f"pass, SNR {_number(snr)} dB"


def _is_score(check: Check) -> bool:
    return check.rule.startswith(METRIC) and isinstance(check.measured, float)


def _is_accuracy(check: Check) -> bool:
    return check.rule in _ACCURACY or _is_score(check)


def _gain(check: Check) -> float:
    return float(check.measured) - (check.reference or 0.0)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
