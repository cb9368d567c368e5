"""Choosing: the fastest engine that passed, unless a simpler one is as fast within the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tailorbird.domain.candidate import Candidate

LOOK_MARGIN = 1.5
"""A first look this many times slower than the best one cannot win: stopped early."""

FINAL_MARGIN = 1.15
"""Measured within this factor of the best: a finalist, measured again in turn."""

MOST_FINALISTS = 4


class Choice(msgspec.Struct, frozen=True):
    """The winner's name and the sentence that says why."""

    winner: str
    reason: str


def cannot_win(look: Sequence[float], best: float | None) -> bool:
    """Whether a first look, in milliseconds, is already too far behind the best median so far.

    The look's least run counts: noise only ever adds time, so a slow least run is a slow engine.
    """
    return best is not None and min(look) > LOOK_MARGIN * best


def finalists(medians: Mapping[str, float]) -> list[str]:
    """Names of those worth measuring in turn, the fastest first."""
    ranked = sorted(medians, key=medians.__getitem__)
    best = medians[ranked[0]]
    return [name for name in ranked if medians[name] <= FINAL_MARGIN * best][:MOST_FINALISTS]


def choose(candidates: Mapping[str, Candidate], rounds: Mapping[str, Sequence[float]]) -> Choice:
    """Pick among finalists from their medians of every round.

    A candidate of lower precision must beat each one of higher precision by more than the noise; among
    equals in precision the lower median wins. Noise is the standard error of the median difference of
    paired rounds (1.2533 * s / sqrt(n) for a median of normal samples), taken twice.

    Args:
        candidates: the finalists by name.
        rounds: each finalist's median milliseconds in each round, measured in turn.
    """
    medians = {name: float(np.median(times)) for name, times in rounds.items()}
    ranked = sorted(medians, key=medians.__getitem__)
    for name in ranked:
        simpler = [other for other in ranked if candidates[other].precision.rank < candidates[name].precision.rank]
        if all(beats(rounds[name], rounds[other]) for other in simpler):
            return Choice(name, _why(name, ranked, medians, rounds))
    return Choice(ranked[0], _why(ranked[0], ranked, medians, rounds))


def beats(mine: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``mine`` is lower beyond the noise of the paired rounds."""
    gain, noise = gain_and_noise(mine, other)
    return gain > noise


def gain_and_noise(mine: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Median milliseconds by which ``mine`` is lower, and twice its standard error."""
    differences = np.asarray(other) - np.asarray(mine)
    error = 1.2533 * float(np.std(differences, ddof=1)) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return float(np.median(differences)), 2 * error


def _why(name: str, ranked: Sequence[str], medians: Mapping[str, float], rounds: Mapping[str, Sequence[float]]) -> str:
    others = [other for other in ranked if other != name]
    if not others:
        return f"no other that passed came within {FINAL_MARGIN:g}x of it"
    rival = others[0]
    gain, noise = gain_and_noise(rounds[name], rounds[rival])
    ratio = medians[rival] / medians[name]
    if gain > noise:
        return f"{ratio:.2f}x as fast as {rival}, beyond the noise ({gain:.3g} > {noise:.2g} ms)"
    if medians[name] <= medians[rival]:
        return f"least median; level with {rival} within the noise ({abs(gain):.2g} against {noise:.2g} ms)"
    return f"level with {rival} within the noise ({abs(gain):.2g} against {noise:.2g} ms), and of higher precision"
