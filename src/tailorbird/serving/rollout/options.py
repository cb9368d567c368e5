"""Options: how a canary is judged, and how much is copied to a shadow."""

from __future__ import annotations

import msgspec

from tailorbird.domain.errors import UsageError

LEAST_WEIGHT = 0.001
"""Between nothing and this there is no share: a comparison would take too long to mean anything."""


class RolloutOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set about the canary and the shadow of a model."""

    weight: float = 0.1
    """Share of the requests, of those that name no version, that the canary answers."""
    slowdown: float = 1.2
    """How many times as long as the live version the canary may take before that counts as worse."""
    false_stops: float = 0.01
    """The largest probability, over the canary's whole life, of stopping one that is no worse."""
    shadow_share: float = 1.0
    """Share of the live version's requests that are copied to the shadow."""
    shadow_waiting: int = 16
    """Copies that may wait for the shadow; what comes while so many wait is not copied."""

    def __post_init__(self) -> None:
        check_weight("the canary's weight", self.weight)
        _between("the canary's slowdown", self.slowdown, 1.0, 100.0)
        _between("the probability of a false stop", self.false_stops, 1e-9, 0.5)
        _share("the shadow's share", self.shadow_share)
        if not 1 <= self.shadow_waiting <= 4096:
            raise UsageError("the number of copies that wait for a shadow is wrong", got=self.shadow_waiting,
                             expected="1 to 4096")  # fmt: skip


def check_weight(what: str, value: float) -> None:
    """Check a canary's share of the requests. It may not be all of them: nothing would be left to judge it by.

    Args:
        what: how the error names it.
        value: the share.

    Raises:
        UsageError: it is no such share.
    """
    if value != 0.0 and not LEAST_WEIGHT <= value <= 1 - LEAST_WEIGHT:
        hint = "what answers everything can be compared with nothing: promote it instead" if value == 1 else None
        raise UsageError(f"{what} is wrong", got=value, expected=f"0, or {LEAST_WEIGHT:g} to {1 - LEAST_WEIGHT:g}",
                         hint=hint)  # fmt: skip


def _share(what: str, value: float) -> None:
    if value not in (0.0, 1.0) and not LEAST_WEIGHT <= value <= 1 - LEAST_WEIGHT:
        raise UsageError(f"{what} is wrong", got=value,
                         expected=f"0, 1, or {LEAST_WEIGHT:g} to {1 - LEAST_WEIGHT:g}")  # fmt: skip


def _between(what: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN is neither
        raise UsageError(f"{what} is wrong", got=value, expected=f"{least:g} to {most:g}")
