"""Lives of canaries, simulated: outcomes of groups of requests are drawn and weighed until there is a verdict."""

import math

import numpy as np

from tailorbird.serving.rollout.judge import SLACK_S, Group, Judge, Outcome, Tail


class Version:
    """Draws outcomes.

    Args:
        scale: of the median.
        spread: sigma of the logarithms of seconds, which are normal; or with ``pareto`` the exponent of a tail so heavy
            that it has hardly a mean.
        errors: probability of one, twenty times as likely in one of twenty stretches of time.
        slow: probability of taking ten times as long.
        late: seconds that are added.
    """

    def __init__(self, scale=1.0, spread=0.5, errors=0.0, slow=0.0, late=0.0, pareto=False):
        self.scale, self.spread, self.errors, self.slow, self.late, self.pareto = (
            scale,
            spread,
            errors,
            slow,
            late,
            pareto,
        )

    def outcomes(self, rng, count, load):
        """Of so many requests while the server is under a load that stretches all seconds, and makes errors likely."""
        shape = (
            (1 + rng.pareto(self.spread, count)) if self.pareto else np.exp(self.spread * rng.standard_normal(count))
        )
        seconds = 0.01 * load * self.scale * shape * np.where(rng.random(count) < self.slow, 10, 1) + self.late
        failed = rng.random(count) < self.errors * (20 if load > 2 else 1)
        return [Outcome(float(one), bool(bad)) for one, bad in zip(seconds, failed, strict=True)]


def stopped(rng, canary, live, *, groups, size=10, canary_is_odd=True, judge=None, every=1.0):
    """After how many groups, one every so many seconds, and for what reason; ``(None, None)`` if never."""
    judge = judge or Judge()
    known, tail, load = [], Tail(), 1.0
    odd, others = (canary, live) if canary_is_odd else (live, canary)
    for number in range(groups):
        if number % 20 == 0:
            load = math.exp(rng.standard_normal() / 2)
        (one,), rest = odd.outcomes(rng, 1, load), others.outcomes(rng, size - 1, load)
        judge.weigh(Group(one, tuple(rest), canary_is_odd, tail, judge.groups * every))
        if judge.worse:
            return number + 1, judge.worse
        known += [each.seconds for each in (rest if canary_is_odd else [one])]
        if number % 32 == 0 and len(known) >= 200:
            tail = Tail(*np.quantile(known[-2048:], (0.9, 0.99)).tolist())
    return None, None


def border(**changes):
    """As slow as a canary may be without being worse."""
    return Version(scale=1.2, late=SLACK_S, **changes)
