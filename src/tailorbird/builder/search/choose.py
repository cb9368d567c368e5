"""Choosing: the fastest engine that passed, unless a plainer one is as fast within the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tailorbird.domain.candidate import Candidate

LOOK_MARGIN = 1.5
"""A first look this many times slower than the best one cannot win: stopped early."""

FINAL_MARGIN = 1.5
"""Least run within this factor of the best: a finalist, measured again in turn. As wide as that of the look: two
engines of the same speed were seen 1.6x apart when one was measured alone a quarter of a minute after the other."""

MOST_FINALISTS = 5

DECIDED_SHARE = 0.01
"""Noise below this share of the leader's latency is small enough to stop measuring."""


class Choice(msgspec.Struct, frozen=True):
    """The winner's name and the sentence that says why."""

    winner: str
    reason: str


def cannot_win(least: float, best: float | None, margin: float = LOOK_MARGIN) -> bool:
    """Whether the least cost of a first look, in milliseconds, is already too far behind the best so far.

    The look's least run counts: noise only ever adds time, so a slow least run is a slow engine.
    """
    return best is not None and least > margin * best


def finalists(least: Mapping[str, float]) -> list[str]:
    """Names of those worth measuring in turn, the fastest first.

    Args:
        least: milliseconds of each one's fastest run. They were measured at different moments, and what
            else the machine did can only have added time; the least run is what noise moves least.
    """
    ranked = sorted(least, key=least.__getitem__)
    best = least[ranked[0]]
    return [name for name in ranked if least[name] <= FINAL_MARGIN * best][:MOST_FINALISTS]


def choose(candidates: Mapping[str, Candidate], rounds: Mapping[str, Sequence[float]], baseline: str = "") -> Choice:
    """Pick among finalists from their medians of every round.

    A bolder candidate (lower precision, or less of it kept in float) must beat each plainer one by more than the
    noise, and whoever wins must so beat the baseline; among equals the lower median wins.

    Args:
        candidates: the finalists by name.
        rounds: each finalist's median milliseconds in each round, measured in turn.
        baseline: name of the one to fall back to when nothing is faster beyond the noise, if it is a finalist.
    """
    ranked = _ranked(rounds)
    name = next(name for name in ranked if _earned(name, ranked, candidates, rounds))
    if baseline in rounds and name != baseline and not beats(rounds[name], rounds[baseline]):
        return Choice(baseline, f"nothing is faster beyond the noise; {_level(baseline, name, rounds)}")
    return Choice(name, _why(name, ranked, rounds))


def decided(rounds: Mapping[str, Sequence[float]]) -> bool:
    """Whether more rounds would change little: the leader beats all others, or is level with them within 1 %."""
    leader, *others = _ranked(rounds)
    settled = DECIDED_SHARE * float(np.median(rounds[leader]))
    gaps = (gain_and_noise(rounds[leader], rounds[other]) for other in others)
    return all(gain > noise or noise < settled for gain, noise in gaps)


def beats(mine: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``mine`` is lower beyond the noise of the paired rounds."""
    gain, noise = gain_and_noise(mine, other)
    return gain > noise


def gain_and_noise(mine: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Median milliseconds by which ``mine`` is lower in paired rounds, and twice its standard error.

    The error of a median of n samples is 1.2533 sigma / sqrt(n); sigma is 1.4826 times the median absolute
    deviation, which a few disturbed rounds do not move (both factors are those of normal samples).
    """
    differences = np.asarray(other) - np.asarray(mine)
    gain = float(np.median(differences))
    sigma = 1.4826 * float(np.median(np.abs(differences - gain)))
    return gain, 2 * 1.2533 * sigma / len(differences) ** 0.5


def _ranked(rounds: Mapping[str, Sequence[float]]) -> list[str]:
    return sorted(rounds, key=lambda name: float(np.median(rounds[name])))


def _earned(
    name: str, ranked: Sequence[str], candidates: Mapping[str, Candidate], rounds: Mapping[str, Sequence[float]]
) -> bool:
    """Whether it beats every plainer finalist; the plainest always has."""
    mine = candidates[name].boldness
    return all(beats(rounds[name], rounds[other]) for other in ranked if candidates[other].boldness < mine)


def _level(name: str, rival: str, rounds: Mapping[str, Sequence[float]]) -> str:
    gain, noise = gain_and_noise(rounds[name], rounds[rival])
    return f"level with {rival} within the noise ({abs(gain):.2g} against {noise:.2g} ms)"


def _why(name: str, ranked: Sequence[str], rounds: Mapping[str, Sequence[float]]) -> str:
    others = [other for other in ranked if other != name]
    if not others:
        return f"no other that passed came within {FINAL_MARGIN:g}x of it"
    rival = others[0]
    gain, noise = gain_and_noise(rounds[name], rounds[rival])
    if gain > noise:
        ratio = np.median(rounds[rival]) / np.median(rounds[name])
        return f"{ratio:.2f}x as fast as {rival}, beyond the noise ({gain:.3g} > {noise:.2g} ms)"
    first = "least median" if ranked[0] == name else "plainer"
    return f"{first}; {_level(name, rival, rounds)}"
