"""The judge: e-values by hand, how rarely it is wrong, and how soon it is right."""

import math

import msgspec
import numpy as np
import pytest

from tailorbird.serving.rollout import judge as judging
from tailorbird.serving.rollout.judge import SLACK_S, Group, Judge, Outcome, Reason, Tail
from tests.unit.serving.rollout.lives import Version, border, stopped

GOOD, BAD = Outcome(0.01), Outcome(0.01, failed=True)


def test_a_new_judge_knows_nothing():
    judge = Judge(0.01)
    assert (judge.evidence, judge.worse, judge.groups, judge.stops_at) == (1.0, None, 0, 100.0)


def test_groups_without_a_difference_are_no_evidence():
    judge = Judge()
    for _ in range(100):
        judge.weigh(Group(BAD, (BAD,) * 9, canary_is_odd=True))
    assert judge.groups == 100
    assert judge.evidence == pytest.approx(6 / math.pi**2)  # the share of the first start
    judge.weigh(Group(GOOD, (), canary_is_odd=True))
    assert judge.groups == 100


def test_an_error_on_the_canary_alone_by_hand():
    """The e-value for tilt 2 in a group of ten is 2 / (11 / 10)."""
    judge = Judge()
    judge.weigh(Group(BAD, (GOOD,) * 9, canary_is_odd=True))
    errors = sum(0.1 * tilt / ((9 + tilt) / 10) for tilt in (2, 5, 20, 200))
    assert judge.evidence == pytest.approx(6 / math.pi**2 * (errors + 0.6))
    assert judge.leaning is Reason.ERRORS


@pytest.mark.parametrize("canary_is_odd", [True, False])
@pytest.mark.parametrize("size", [2, 3, 10, 32])
def test_were_the_versions_alike_the_mean_of_the_e_values_would_be_one(canary_is_odd, size):
    """Whoever of a group is the odd one: over all of them each question's e-values have the mean 1, or less."""
    rng = np.random.default_rng(size)
    outcomes = [Outcome(float(seconds), bool(rng.random() < 0.3)) for seconds in rng.exponential(size=size)]
    found = []
    for place in range(size):
        odd, others = outcomes[place], (*outcomes[:place], *outcomes[place + 1 :])
        fair = Judge(slowdown=1.0)
        fair._fair = lambda seconds, _: seconds
        found.append(fair._values(Group(odd, others, canary_is_odd, Tail(0.9, 1.5))))
    means = np.mean(found, axis=0)
    errors = len(judging._ERROR_TILTS)
    np.testing.assert_allclose(means[:errors], 1)
    assert (means[errors:] <= 1 + 1e-9).all()
    answered = [one for one in found if not (one[errors:] == 1).all()]
    if len(answered) > 1:
        np.testing.assert_allclose(np.mean(answered, axis=0)[errors : errors + 2], 1)


def test_equal_times_are_no_evidence():
    judge = Judge()
    for _ in range(50):
        judge.weigh(Group(GOOD, (GOOD,) * 9, True))
    assert judge.evidence <= 1


def test_the_canary_is_given_its_slowdown_and_its_slack():
    """What takes no longer than it may is never the slowest of its group."""
    live = tuple(Outcome(0.010 + 1e-6 * number) for number in range(9))
    allowed, worse = Judge(), Judge()
    for number in range(200):
        allowed.weigh(Group(Outcome(0.0119 + SLACK_S), live, True, at=number))
        worse.weigh(Group(Outcome(0.0121 + SLACK_S), live, True, at=number))
    assert allowed.evidence < 1
    assert worse.worse is Reason.SLOWER


def test_a_live_version_that_is_the_odd_one_is_judged_the_other_way_round():
    judge = Judge()
    for _ in range(20):
        judge.weigh(Group(GOOD, (BAD, *(GOOD,) * 8), canary_is_odd=False))
    assert 1 < judge.evidence < 20  # one in nine fails, and the odd one might just have been lucky
    for _ in range(60):
        judge.weigh(Group(BAD, (GOOD,) * 9, canary_is_odd=False))
    assert judge.evidence < 1


WORSE = {
    "one in twenty fails": (Version(errors=0.05), Reason.ERRORS, 250),
    "one in five fails": (Version(errors=0.2), Reason.ERRORS, 80),
    "half as long again": (Version(scale=1.5), Reason.SLOWER, 500),
    "twice as long": (Version(scale=2), Reason.SLOWER, 80),
    "one in ten takes ten times as long": (Version(slow=0.1), Reason.SLOW_TAIL, 500),
}


@pytest.mark.parametrize("case", WORSE)
def test_a_worse_canary_is_found_soon(case):
    canary, reason, groups = WORSE[case]
    found = [stopped(np.random.default_rng(seed), canary, Version(), groups=groups) for seed in range(6)]
    assert None not in {number for number, _ in found}
    assert max({why for _, why in found}, key=[why for _, why in found].count) is reason


def test_a_canary_that_gets_worse_late_is_found():
    """After a life long enough for the first product to have sunk beyond any recovery."""
    rng, judge = np.random.default_rng(3), Judge()
    assert stopped(rng, Version(), Version(), groups=1500, judge=judge) == (None, None)
    assert judge._products[0][judging._REASONS.index(Reason.SLOWER)] < 1e-4
    assert stopped(rng, Version(scale=2), Version(), groups=300, judge=judge)[1] in (Reason.SLOWER, Reason.SLOW_TAIL)


def test_what_happens_at_once_counts_once():
    """A canary without a processor for a tenth of a second, a hundred groups long, now and then."""
    fast = (Outcome(0.01),) * 9
    judge, crowded = Judge(), Judge()
    for number in range(400):
        bad = number % 200 < 100
        group = Group(Outcome(0.05 if bad else 0.01), fast, True, at=number / 1000)
        crowded.weigh(group)
        judge.weigh(msgspec.structs.replace(group, at=number))
    assert judge.worse
    assert crowded.worse is None
    assert crowded.evidence < 20


def test_a_canary_that_is_slow_under_many_requests_is_found_in_seconds():
    """A thousand requests a second, a hundred groups."""
    for seed in range(4):
        number, reason = stopped(np.random.default_rng(seed), Version(scale=2), Version(), groups=1000, every=0.01)
        assert number < 1000
        assert reason in (Reason.SLOWER, Reason.SLOW_TAIL)


def test_starts_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(judging, "RESTART", 2)
    judge = Judge()
    for _ in range(500):
        judge.weigh(Group(GOOD, (GOOD,) * 3, True))
    assert len(judge._products) == judging.STARTS
    assert judge.evidence <= 1


def test_a_verdict_stands():
    judge = Judge()
    for _ in range(5000):
        judge.weigh(Group(BAD, (GOOD,) * 9, True))
    assert (judge.worse, judge.groups) == (Reason.ERRORS, 4)
    for _ in range(5000):
        judge.weigh(Group(GOOD, (BAD,) * 9, True))
    assert judge.worse is Reason.ERRORS
    assert 100 <= judge.evidence < 1000


EQUAL = {
    "as slow as it may be": (border(errors=0.01), Version(errors=0.01), {}),
    "and half the traffic": (border(errors=0.01), Version(errors=0.01), {"size": 2}),
    "and most of the traffic": (border(errors=0.01), Version(errors=0.01), {"canary_is_odd": False}),
    "alike, with hardly a mean": (*[Version(spread=1.1, pareto=True, errors=0.01)] * 2, {}),
}


def false_stops(case, lives, groups):
    canary, live, how = EQUAL[case]
    verdicts = (stopped(np.random.default_rng(seed), canary, live, groups=groups, **how)[1] for seed in range(lives))
    return sum(verdict is not None for verdict in verdicts)


@pytest.mark.parametrize("case", EQUAL)
def test_a_canary_that_is_no_worse_is_hardly_ever_stopped(case):
    """Of 100 at most 1 on average; more than 5 has a probability of 1 in 2000."""
    assert false_stops(case, 100, 100) <= 5


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", EQUAL)
def test_of_two_thousand_no_more_than_one_in_a_hundred_is_stopped(case):
    """30 is 1.5 %: were the probability 1 %, that many would come about once in 60 tries."""
    assert false_stops(case, 2000, 400) <= 30
