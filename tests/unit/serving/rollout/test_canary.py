"""The canary: who gets which request, what counts, and when it is over."""

import random
from asyncio import CancelledError

import pytest

from tailorbird.domain.errors import BackendError, InputError, Overloaded, UsageError
from tailorbird.serving.rollout import canary as canaries
from tailorbird.serving.rollout.canary import DEAD_AFTER
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.rollout.traffic import Traffic
from tests.protocol.engines import fake_model


@pytest.fixture(scope="module")
def versions():
    live, canary, other = (fake_model("tiny", version) for version in (1, 2, 3))
    yield live, canary, other
    for model in (live, canary, other):
        model.close()


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(canaries.time, "monotonic", clock)
    return clock


@pytest.fixture
def traffic(versions):
    live, canary, _ = versions
    stops = []
    made = Traffic(live, canary, options=RolloutOptions(weight=0.1), on_stop=stops.append)
    made.stops = stops
    return made


def ask(traffic, clock, seconds=0.01, error=None, of="canary", **how):
    """One request; where it is of the version named, it takes so long and ends so."""
    turn = traffic.choose()
    ours = (of == "canary") == turn.canary
    clock.now += seconds if ours else 0.01
    traffic.over(turn, error if ours else None, **(how if ours else {}))
    return turn


def test_each_request_goes_to_the_version_of_its_turn(traffic, clock):
    turns = [ask(traffic, clock) for _ in range(200)]
    assert {turn.model.version for turn in turns if turn.canary} == {2}
    assert {turn.model.version for turn in turns if not turn.canary} == {1}
    found = traffic.status().canary
    assert (found.version, found.weight, found.state, found.verdict) == (2, 0.1, "running", "not worse beyond noise")
    assert (found.canary.requests, found.live.requests, found.canary.errors) == (20, 180, 0)
    assert (found.canary.p50_ms, found.live.p99_ms) == pytest.approx((10, 10))
    assert found.evidence < 1 < found.stops_at


def until_stopped(traffic, ask):
    for number in range(1, 5000):
        ask()
        if traffic.stop:
            return number
    raise AssertionError("never stopped")


def test_a_failing_canary_is_stopped_and_gets_nothing_more(traffic, clock):
    chance = random.Random(1)

    def one():
        ask(traffic, clock, error=BackendError("smoke") if chance.random() < 0.3 else None)

    requests = until_stopped(traffic, one)
    assert requests < 400
    (stop,) = traffic.stops
    assert (stop.model, stop.reason, stop.canary.version, stop.live.version) == ("tiny", "errors", 2, 1)
    assert stop.words == (f"{stop.canary.errors} of {stop.canary.requests} requests failed on it, "
                          f"0 of {stop.live.requests} on the live version")  # fmt: skip
    assert stop.evidence >= 100
    assert (traffic.choose(), traffic.canary) == (None, None)
    found = traffic.status().canary
    assert (found.state, found.weight, found.verdict, found.stop) == ("stopped", 0.0, stop.words, stop)


def test_a_slow_canary_is_stopped(traffic, clock):
    assert until_stopped(traffic, lambda: ask(traffic, clock, seconds=0.02)) < 200
    assert traffic.stop.reason == "slower"
    assert traffic.stop.words == "slower than the live version: p50 20 ms against 10 ms"


def test_an_equal_canary_goes_on(traffic, clock):
    chance = random.Random(2)
    for _ in range(5000):
        turn = traffic.choose()
        clock.now += 0.01 * chance.lognormvariate(0, 0.5)
        traffic.over(turn, BackendError("smoke") if chance.random() < 0.01 else None)
    assert traffic.stop is None


def test_one_after_another_that_only_the_canary_failed_is_its_end(traffic, clock):
    """At half the traffic the odds would take twice as many."""
    for _ in range(DEAD_AFTER - 2):  # four whole groups may be evidence enough
        while not ask(traffic, clock, error=BackendError("dead"), rescued=True).canary:
            pass
    assert traffic.stop is None
    until_stopped(traffic, lambda: ask(traffic, clock, error=BackendError("dead"), rescued=True))
    assert traffic.status().canary.canary.errors <= DEAD_AFTER


def test_half_the_traffic_dies_as_soon(versions, clock):
    traffic = Traffic(*versions[:2], options=RolloutOptions(weight=0.5))
    until_stopped(traffic, lambda: ask(traffic, clock, error=BackendError("dead"), rescued=True))
    assert traffic.stop.reason == "dead"
    assert traffic.stop.words == "5 requests in a row broke on it that the live version answered"
    assert traffic.stop.canary.errors == DEAD_AFTER


def test_failures_of_both_are_nobodys_end(versions, clock):
    """The database behind them is down, say."""
    traffic = Traffic(*versions[:2], options=RolloutOptions(weight=0.5))
    for _ in range(500):
        clock.now += 0.01
        traffic.over(traffic.choose(), BackendError("no database"))
    assert traffic.stop is None
    assert traffic.status().canary.evidence <= 1


def test_what_a_client_got_wrong_does_not_count(traffic, clock):
    for _ in range(300):
        ask(traffic, clock, error=InputError("wrong"))
    found = traffic.status().canary
    assert (found.canary.requests, found.canary.errors, found.state) == (0, 0, "running")


def test_an_input_that_only_the_canary_refuses_does(traffic, clock):
    until_stopped(traffic, lambda: ask(traffic, clock, error=InputError("too long"), rescued=True))
    assert traffic.stop.canary.errors > 0


def test_refusals_count_for_the_side_that_refused(traffic, clock):
    until_stopped(traffic, lambda: ask(traffic, clock, error=Overloaded("full"), rescued=True))
    assert (traffic.stop.reason, traffic.stop.live.errors) == ("errors", 0)


@pytest.mark.parametrize("error", [Overloaded("full"), InputError("too long")])
def test_refusals_are_weighed_and_not_counted_in_a_row(versions, clock, error):
    traffic = Traffic(*versions[:2], options=RolloutOptions(weight=0.999))  # its first group lasts for 1000
    for _ in range(100):
        ask(traffic, clock, error=error, rescued=True)
    assert traffic.stop is None
    assert traffic.status().canary.canary.errors >= 99


def test_a_live_version_that_fails_does_not_stop_the_canary(traffic, clock):
    for _ in range(1000):
        ask(traffic, clock, error=BackendError("smoke"), of="live")
    assert traffic.stop is None


def test_clients_that_give_up_tell_how_long_they_waited(traffic, clock):
    """A canary that hangs has no answers and no errors; its clients leave after a second."""
    until_stopped(traffic, lambda: ask(traffic, clock, seconds=1.0, error=CancelledError()))
    assert traffic.stop.reason in ("slower", "slow tail")
    assert traffic.stop.canary.requests == 0


def test_a_canary_that_never_answers_is_found(traffic, clock, monkeypatch):
    monkeypatch.setattr(canaries, "OPEN", 8)

    def one():
        turn = traffic.choose()
        clock.now += 0.01
        if not turn.canary:
            traffic.over(turn)

    assert until_stopped(traffic, one) < 400
    assert traffic.stop.reason in ("slower", "slow tail")


def test_what_is_open_is_bounded(traffic, clock, monkeypatch):
    monkeypatch.setattr(canaries, "OPEN", 8)
    turns = [traffic.choose() for _ in range(2000)]
    assert len(traffic._canary._tables) <= 9
    for turn in turns:
        traffic.over(turn)
    assert traffic.status().canary.canary.requests == 200


def test_turns_may_end_in_any_order(traffic, clock):
    chance = random.Random(3)
    for _ in range(50):
        turns = [traffic.choose() for _ in range(20)]
        chance.shuffle(turns)
        clock.now += 0.01
        for turn in turns:
            traffic.over(turn)
    assert traffic.stop is None
    assert traffic._canary._judge.groups == 100
    assert not traffic._canary._tables


def test_a_turn_that_ends_after_the_stop_changes_nothing(traffic, clock):
    late = [traffic.choose() for _ in range(3)]
    until_stopped(traffic, lambda: ask(traffic, clock, seconds=0.03))
    before = traffic.status()
    for turn in late:
        traffic.over(turn, BackendError("late"))
    assert traffic.status() == before
    assert len(traffic.stops) == 1


def test_whoever_is_told_of_the_stop_may_fail(versions, clock):
    def told(_):
        raise RuntimeError("no disk")

    traffic = Traffic(*versions[:2], options=RolloutOptions(weight=0.5), on_stop=told)
    until_stopped(traffic, lambda: ask(traffic, clock, error=BackendError("dead"), rescued=True))


def test_an_outcome_that_cannot_be_weighed_is_counted(traffic, clock):
    def broken(_):
        raise ZeroDivisionError

    traffic._canary._judge.weigh = broken
    for _ in range(20):
        ask(traffic, clock)
    found = traffic.status().canary
    assert (found.state, found.verdict) == ("running", "2 outcomes could not be weighed")  # one of each group
    assert (found.canary.requests, found.live.requests) == (2, 18)


class Torn(Traffic):
    """Another thread takes the shadow out between any two looks at it."""

    @property
    def _shadow(self):
        found, self._found = self._found, None
        return found

    @_shadow.setter
    def _shadow(self, shadow):
        self._found = shadow


@pytest.mark.parametrize("step", [Traffic.status, Traffic.close, lambda traffic: traffic.copy({}, {}, 0.01)])
def test_a_shadow_may_go_at_any_moment(versions, step):
    traffic = Torn(versions[0], shadow=versions[1])
    traffic._found.close()
    for _ in range(2):
        step(traffic)


def test_what_is_the_same_goes_on_where_it_was(traffic, versions, clock):
    live, canary, other = versions
    for _ in range(100):
        ask(traffic, clock)
    options = RolloutOptions(weight=0.1)
    after = Traffic(live, canary, other, options, before=traffic)
    assert after.status().canary == traffic.status().canary
    again = Traffic(live, None, other, options, before=after)
    assert again._shadow is not None
    assert after.status().shadow is None
    after.close()
    assert not again._shadow._closed
    assert Traffic(live, other, None, options, before=traffic).status().canary.canary.requests == 0
    assert Traffic(other, canary, None, options, before=traffic).status().canary.canary.requests == 0


def test_a_stopped_canary_stays_stopped_whatever_its_weight(traffic, versions, clock):
    until_stopped(traffic, lambda: ask(traffic, clock, seconds=0.03))
    live, canary, other = versions
    after = Traffic(live, canary, other, RolloutOptions(weight=0.5), before=traffic)
    assert after.stop == traffic.stop
    assert after.choose() is None
    assert Traffic(live, other, None, RolloutOptions(weight=0.5), before=traffic).stop is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"weight": 1.5}, "the canary's weight is wrong: got 1.5, expected 0, or 0.001 to 0.999"),
        ({"weight": 0.0001}, "the canary's weight is wrong: got 0.0001, expected 0, or 0.001 to 0.999"),
        ({"weight": float("nan")}, "the canary's weight is wrong: got nan, expected 0, or 0.001 to 0.999"),
        (
            {"weight": 1.0},
            "the canary's weight is wrong: got 1.0, expected 0, or 0.001 to 0.999\n"
            "Hint: what answers everything can be compared with nothing: promote it instead",
        ),
        ({"slowdown": 0.9}, "the canary's slowdown is wrong: got 0.9, expected 1 to 100"),
        ({"false_stops": 0.0}, "the probability of a false stop is wrong: got 0.0, expected 1e-09 to 0.5"),
        ({"shadow_share": -1.0}, "the shadow's share is wrong: got -1.0, expected 0, 1, or 0.001 to 0.999"),
        ({"shadow_waiting": 0}, "the number of copies that wait for a shadow is wrong: got 0, expected 1 to 4096"),
    ],
)
def test_settings_that_make_no_sense(settings, text):
    with pytest.raises(UsageError) as caught:
        RolloutOptions(**settings)
    assert caught.value.message == text
