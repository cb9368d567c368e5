"""Requests of a model with a canary or a shadow, and of one that changes under them: what their clients get."""

import asyncio
import contextlib
import threading

import msgspec
import numpy as np
import pytest

from tailorbird.domain.errors import BackendError, InputError, NotReady, Overloaded
from tailorbird.serving.dataplane import DataPlane, InferRequest
from tailorbird.serving.hub import Direction, Hub
from tailorbird.serving.rollout import shadow as shadows
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.rollout.split import Split
from tailorbird.serving.rollout.status import RolloutStatus
from tailorbird.serving.rollout.traffic import Traffic
from tests.protocol.engines import fake_model, tiny_function

ROWS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4), "k": np.array([[1], [2]])}


def burn(_):
    raise RuntimeError("smoke")


def other(inputs):
    return {"y": tiny_function(inputs)["y"] + np.float32(1), "n": inputs["k"]}


@contextlib.contextmanager
def served(live=tiny_function, canary=None, shadow=None, weight=0.5):
    """A data plane with versions 1 (live), 2 (canary) and 3 (shadow) of ``tiny``, each running its function."""
    functions = {1: live, 2: canary, 3: shadow}
    models = {number: fake_model("tiny", number, function=one) for number, one in functions.items() if one}
    hub = Hub(models.values())
    traffic = Traffic(models[1], models.get(2), models.get(3), RolloutOptions(weight=weight))
    hub.direct("tiny", Direction(1, 2 if canary else None, weight, 3 if shadow else None), traffic)
    try:
        yield DataPlane(hub), traffic
    finally:
        hub.close()


def always_canary(traffic):
    """What no setting allows: for tests of its requests alone."""
    traffic._canary._split = Split(1.0)


async def ask(plane, times=1, **fields):
    return [await plane.infer(InferRequest(**{"model": "tiny", "inputs": ROWS, **fields})) for _ in range(times)]


def asked(plane, times=1, **fields):
    return asyncio.run(ask(plane, times, **fields))


async def settled(traffic):
    while traffic._shadow._task is not None and not traffic._shadow._task.done():
        await asyncio.sleep(0.001)


def statistics(plane, version):
    return plane._hub.get("tiny", version).statistics


def test_answers_come_from_both_and_say_so():
    with served(canary=other) as (plane, _):
        found = asked(plane, 40, outputs=("n",))
        assert sum(one.version == 2 for one in found) == 20
        for one in found:
            np.testing.assert_array_equal(one.outputs["n"], ROWS["k"] + (one.version == 1))
        assert (statistics(plane, 1).answered.count, statistics(plane, 2).answered.count) == (20, 20)


@pytest.mark.parametrize("version", [1, 2])
def test_whoever_names_a_version_gets_it_and_does_not_count(version):
    with served(canary=other) as (plane, traffic):
        assert {one.version for one in asked(plane, 20, version=version)} == {version}
        found = traffic.status().canary
        assert (found.canary.requests, found.live.requests) == (0, 0)


def test_no_client_sees_a_failing_canary():
    with served(canary=burn) as (plane, traffic):
        assert {one.version for one in asked(plane, 40)} == {1}
        assert traffic.stop.reason == "dead"
        assert statistics(plane, 2).failures.total() == traffic.stop.canary.errors == 5
        assert statistics(plane, 1).failures.total() == 0


def test_a_canary_that_is_put_away_is_the_live_versions_to_answer():
    with served(canary=tiny_function) as (plane, traffic):
        plane._hub.get("tiny", 2).close()
        assert {one.version for one in asked(plane, 40)} == {1}
        assert traffic.stop.reason == "dead"
        assert statistics(plane, 2).failures == {"REJECTED": 5}


def test_what_fails_on_both_is_an_error_and_proves_nothing():
    with served(live=burn, canary=burn) as (plane, traffic):
        for _ in range(40):
            with pytest.raises(BackendError, match=r"^fake could not run the engine: got smoke$"):
                asked(plane)
        assert traffic.stop is None
        assert traffic.status().canary.canary.errors == 20


def test_wrong_requests_are_refused_as_ever_and_prove_nothing():
    with served(canary=tiny_function) as (plane, traffic):
        for _ in range(40):
            with pytest.raises(InputError, match=r"^unknown output 'q': expected y, n$"):
                asked(plane, outputs=("q",))
        assert traffic.stop is None
        assert traffic.status().canary.canary.requests == 0


def test_the_deadline_is_the_requests_not_the_attempts():
    """What the canary used up is gone: the live version refuses what it cannot answer any more."""

    def slow(inputs):
        threading.Event().wait(0.05)
        return burn(inputs)

    with served(canary=slow) as (plane, traffic):
        always_canary(traffic)
        with pytest.raises(Overloaded, match="deadline"):
            asked(plane, parameters={"timeout": 20_000})
        assert asked(plane, parameters={"timeout": 10_000_000})[0].version == 1


def test_a_client_that_leaves_the_canary_is_not_answered_by_anybody():
    hangs = threading.Event()
    with served(canary=lambda inputs: (hangs.wait(30), tiny_function(inputs))[1]) as (plane, traffic):
        always_canary(traffic)

        async def leave():
            task = asyncio.create_task(plane.infer(InferRequest(model="tiny", inputs=ROWS)))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(leave())
        hangs.set()
        assert statistics(plane, 1).answered.count == 0
        assert traffic.status().canary.canary.requests == 0


def test_the_shadow_sees_what_the_live_version_answered():
    with served(shadow=other) as (plane, traffic):

        async def go():
            answers = await ask(plane, 3, outputs=("n",))
            await settled(traffic)
            return answers

        assert {one.version for one in asyncio.run(go())} == {1}
        found = traffic.status().shadow
        assert (found.compared, found.errors, [one.max_abs_error for one in found.outputs]) == (3, 0, [1.0, None])
        assert statistics(plane, 3).answered.count == 0  # nobody was answered by it


def test_the_shadow_gets_nothing_that_the_canary_answered():
    with served(canary=tiny_function, shadow=other, weight=0.5) as (plane, traffic):

        async def go():
            await ask(plane, 20)
            await settled(traffic)

        asyncio.run(go())
        assert traffic.status().shadow.compared == 10


def test_what_cannot_be_copied_to_the_shadow_is_answered(monkeypatch):
    def full(_):
        raise MemoryError

    monkeypatch.setattr(shadows, "lasting", full)
    with served(shadow=other) as (plane, traffic):
        assert [one.version for one in asked(plane, 2)] == [1, 1]
        found = traffic.status().shadow
        assert (found.dropped, found.last_error) == (2, "MemoryError")


def test_what_cannot_be_weighed_is_answered():
    def broken(_):
        raise ZeroDivisionError

    with served(canary=other) as (plane, traffic):
        traffic._canary._judge.weigh = broken
        assert sorted(one.version for one in asked(plane, 4)) == [1, 1, 2, 2]
        assert traffic.status().canary.verdict == "2 outcomes could not be weighed"


def test_a_live_version_that_waits_for_nothing():
    """The shadow hangs, and the answers come."""
    hangs = threading.Event()
    with served(shadow=lambda inputs: (hangs.wait(30), tiny_function(inputs))[1]) as (plane, traffic):

        async def go():
            async with asyncio.timeout(20):
                await ask(plane, 100)
            found = traffic.status().shadow
            hangs.set()
            await settled(traffic)
            return found

        found = asyncio.run(go())
        assert (found.compared, found.waiting, found.dropped) == (0, 16, 83)


def test_rollouts_name_every_model_in_service():
    plain = fake_model("plain", 7)
    with served(canary=tiny_function, shadow=other) as (plane, traffic):
        plane._hub.put(plain)
        found = plane.rollouts()
        assert found == (RolloutStatus("plain", 7), traffic.status())
        assert (found[1].canary.version, found[1].shadow.version) == (2, 3)
        asked(plane, 10)
        said = msgspec.json.decode(msgspec.json.encode(plane.rollouts()))
        assert said[1]["canary"]["canary"]["p50_ms"] > 0
    assert DataPlane(Hub()).rollouts() == ()


class Swapping:
    """A version that is swapped for the next one between being chosen and being asked."""

    def __init__(self, model, hub, following):
        self._model, self._hub, self._following = model, hub, following

    alive, outstanding = True, 0

    async def run(self, inputs, ticket=None):
        if self._following is not None:
            self._hub.put(self._following)
            self._hub.direct("tiny", Direction(self._following.version))
        raise NotReady("model 'tiny' version 1 is being put away")

    def close(self):
        pass


def swapping(model, hub, following):
    from msgspec.structs import replace

    return replace(model, instance=Swapping(model, hub, following))


@pytest.mark.parametrize("steered", [False, True])
def test_a_swap_under_a_request_fails_nothing(steered):
    new, old, hub = fake_model("tiny", 2), fake_model("tiny", 1), Hub()
    leaving = swapping(old, hub, new)
    hub.put(leaving)
    hub.direct("tiny", Direction(1), Traffic(leaving, shadow=new) if steered else None)
    plane = DataPlane(hub)
    (answer,) = asked(plane)
    assert answer.version == 2
    assert (leaving.statistics.failures.total(), new.statistics.answered.count) == (0, 1)
    hub.close()
    old.close()


def test_a_version_that_is_gone_for_good_is_refused():
    old, hub = fake_model("tiny", 1), Hub()
    leaving = swapping(old, hub, None)
    hub.put(leaving)
    with pytest.raises(NotReady, match=r"^model 'tiny' version 1 is being put away$"):
        asked(DataPlane(hub))
    assert leaving.statistics.failures.total() == 1
    hub.close()
    old.close()


def test_swaps_without_end_are_given_up():
    hub, models = Hub(), [fake_model("tiny", number) for number in range(1, 7)]
    following = None
    for model in reversed(models):
        following = swapping(model, hub, following)
    hub.put(following)
    with pytest.raises(NotReady, match=r"^model 'tiny' is changing\nHint: send the request again in a moment$"):
        asked(DataPlane(hub))
    hub.close()
    for model in models:
        model.close()
