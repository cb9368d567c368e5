"""The shadow: what it is sent, what is dropped, and that nothing waits for it."""

import asyncio
import threading

import numpy as np
import pytest

from tailorbird.serving.rollout import shadow as shadows
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.rollout.shadow import Shadow, lasting
from tests.protocol.engines import fake_model, tiny_function

ROWS = {"x": np.ones((2, 4), np.float32), "k": np.array([[1], [2]])}
ANSWER = tiny_function(ROWS)


@pytest.fixture
def models():
    made = []

    def make(function=tiny_function, version=2):
        made.append(fake_model("tiny", version, function=function))
        return made[-1]

    yield make
    for model in made:
        model.close()


async def settled(shadow):
    while shadow._task is not None and not shadow._task.done():
        await asyncio.sleep(0.001)


def shadowed(shadow, times=1, seconds=0.001):
    async def go():
        for _ in range(times):
            shadow.copy(ROWS, ANSWER, seconds)
            await settled(shadow)

    asyncio.run(go())
    return shadow.status()


def test_answers_are_compared(models):
    found = shadowed(Shadow(models(version=1), models(), RolloutOptions()), 3)
    assert (found.version, found.compared, found.errors, found.dropped, found.waiting) == (2, 3, 0, 0, 0)
    assert [(one.name, one.compared, one.max_abs_error, one.equal) for one in found.outputs] == [
        ("y", 3, 0.0, None), ("n", 3, None, 1.0)
    ]  # fmt: skip
    assert found.latency_ratio > 0
    assert found.live_p50_ms == pytest.approx(1.0)
    assert found.p50_ms > 0


def test_a_difference_shows(models):
    def other(inputs):
        return {"y": tiny_function(inputs)["y"] + np.float32(0.5), "n": inputs["k"]}

    y, n = shadowed(Shadow(models(version=1), models(other), RolloutOptions())).outputs
    assert (y.max_abs_error, n.equal) == (0.5, 0.0)
    assert 10 < y.snr_db < 30


def test_large_outputs_are_compared_in_a_thread(models, monkeypatch):
    monkeypatch.setattr(shadows, "_ASIDE_BYTES", 1)
    shadow, threads = Shadow(models(version=1), models(), RolloutOptions()), []
    add = shadow._agreement.add
    shadow._agreement.add = lambda *pair: (threads.append(threading.current_thread()), add(*pair))
    assert shadowed(shadow).compared == 1
    assert threads[0] is not threading.main_thread()


def test_its_failures_are_its_own(models):
    def burn(_):
        raise RuntimeError("smoke")

    found = shadowed(Shadow(models(version=1), models(burn), RolloutOptions()), 2)
    assert (found.errors, found.compared, found.latency_ratio) == (2, 0, None)
    assert found.last_error == "fake could not run the engine"


def test_a_dead_shadow_only_counts_errors(models):
    model = models()
    model.close()
    found = shadowed(Shadow(models(version=1), model, RolloutOptions()))
    assert (found.errors, found.last_error) == (1, "model 'tiny' version 2 is being put away")


def test_what_comes_while_too_many_wait_is_dropped(models):
    """The shadow hangs: one copy is in it, two wait, the rest is dropped, and nothing took any time."""
    hangs = threading.Event()
    model = models(lambda inputs: (hangs.wait(30), tiny_function(inputs))[1])
    shadow = Shadow(models(version=1), model, RolloutOptions(shadow_waiting=2))

    async def go():
        for _ in range(10):
            shadow.copy(ROWS, ANSWER, 0.001)
            await asyncio.sleep(0)
        found = shadow.status()
        hangs.set()
        await settled(shadow)
        return found

    found = asyncio.run(go())
    assert (found.waiting, found.dropped, found.compared) == (2, 7, 0)
    assert (shadow.status().waiting, shadow.status().compared) == (0, 3)


def test_bytes_that_wait_are_bounded(models, monkeypatch):
    monkeypatch.setattr(shadows, "WAITING_BYTES", sum(one.nbytes for one in (*ROWS.values(), *ANSWER.values())))
    shadow = Shadow(models(version=1), models(), RolloutOptions())

    async def go():
        shadow.copy(ROWS, ANSWER, 0.001)
        shadow.copy(ROWS, ANSWER, 0.001)
        assert shadow.status().dropped == 1
        await settled(shadow)
        shadow.copy(ROWS, ANSWER, 0.001)
        await settled(shadow)

    asyncio.run(go())
    assert (shadow.status().dropped, shadow.status().compared) == (1, 2)


def test_texts_that_wait_are_counted_whole(models, monkeypatch):
    """An array only points at them: eight bytes for each, however long it is."""
    monkeypatch.setattr(shadows, "WAITING_BYTES", 10_000)
    shadow = Shadow(models(version=1), models(), RolloutOptions())
    texts = {"x": np.array([[b"x" * 4000], ["y" * 2000]], object)}

    async def go():
        shadow.copy(texts, ANSWER, 0.001)
        waiting = shadow._bytes
        shadow.copy(texts, ANSWER, 0.001)
        await settled(shadow)
        return waiting

    answer = sum(one.nbytes for one in ANSWER.values())
    assert asyncio.run(go()) == 6000 + 2 * 8 + answer
    assert (shadow.status().dropped, shadow._bytes) == (1, 0)


def test_what_cannot_be_copied_is_dropped(models, monkeypatch):
    def full(_):
        raise MemoryError

    monkeypatch.setattr(shadows, "lasting", full)
    found = shadowed(Shadow(models(version=1), models(), RolloutOptions()), 2)
    assert (found.dropped, found.waiting, found.compared, found.last_error) == (2, 0, 0, "MemoryError")


def test_a_closed_shadow_takes_nothing_more(models):
    shadow = Shadow(models(version=1), models(), RolloutOptions())

    async def go():
        shadow.copy(ROWS, ANSWER, 0.001)
        shadow.copy(ROWS, ANSWER, 0.001)
        shadow.close()
        shadow.copy(ROWS, ANSWER, 0.001)
        await settled(shadow)

    asyncio.run(go())
    assert (shadow.status().waiting, shadow.status().compared, shadow.status().dropped) == (0, 0, 0)
    assert shadow._bytes == 0


def test_a_share_is_a_share(models):
    shadow = Shadow(models(version=1), models(), RolloutOptions(shadow_share=0.25))
    assert shadowed(shadow, 40).compared == 10


def test_inputs_that_may_change_are_copied():
    shared = bytearray(32)
    lent = np.frombuffer(shared, np.float32)
    kept = lasting({"lent": lent, "rows": lent.reshape(2, 4)[:1], "view": np.frombuffer(lent.data, np.int16)})
    shared[:] = b"\xff" * 32
    assert len(kept) == 3
    assert not any(array.any() for array in kept.values())


def test_views_of_a_request_body_are_kept_as_they_are():
    body = bytes(range(32))
    parsed = np.array([[1.0, 2.0]])
    views = np.frombuffer(body, np.uint8)[4:].view(np.float32), np.frombuffer(memoryview(body)[8:], np.int16)
    for array in (*views, parsed, parsed[:, 1:], np.frombuffer(parsed.data, np.uint8)):
        assert lasting({"x": array})["x"] is array


def test_what_is_too_large_to_be_copied_is_dropped(models, monkeypatch):
    monkeypatch.setattr(shadows, "COPY_BYTES", 8)
    assert lasting({"x": np.frombuffer(bytearray(16), np.float64)}) is None
    shadow = Shadow(models(version=1), models(), RolloutOptions())
    lent = {name: np.frombuffer(bytearray(array.tobytes()), array.dtype) for name, array in ROWS.items()}
    shadow.copy(lent, ANSWER, 0.001)
    assert (shadow.status().dropped, shadow.status().waiting) == (1, 0)


def test_a_shadow_survives_its_event_loop(models):
    shadow = Shadow(models(version=1), models(), RolloutOptions())

    async def leave():
        shadow.copy(ROWS, ANSWER, 0.001)
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert shadowed(shadow).compared >= 1
    assert shadow._bytes == 0
