"""A process instance answers as the engine in it does, refuses what is wrong or too much, and drains."""

import asyncio
import os
import subprocess
import threading

import numpy as np
import pytest
import uvloop

from tailorbird.domain.errors import BackendError, BundleError, InputError, NotReady, Overloaded
from tailorbird.repository.signing import keys
from tailorbird.serving.processes.events import Happening
from tailorbird.serving.processes.process import ProcessInstance, start_instances
from tailorbird.serving.processes.supervise import ProcessOptions
from tests import bundles, processes


def started(version, name="instance", **options):
    instance = ProcessInstance(version, name, **options)
    instance.wait_ready()
    return instance


@pytest.fixture(scope="module")
def tiny_version(tmp_path_factory):
    return bundles.version(tmp_path_factory.mktemp("tiny") / "1")


@pytest.fixture(scope="module")
def tiny(tiny_version):
    instance = started(tiny_version, "tiny")
    yield instance
    instance.close()


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    instance = started(processes.copies(tmp_path_factory.mktemp("copies") / "1"), "copies")
    yield instance
    instance.close()


@pytest.fixture(scope="module")
def turns_version(tmp_path_factory):
    return processes.turns(tmp_path_factory.mktemp("turns") / "1")


@pytest.fixture
def turns(turns_version):
    instance = started(turns_version, "turns", outstanding=3)
    yield instance
    instance.close()


def run(instance, inputs):
    return asyncio.run(instance.run(inputs))


@pytest.mark.parametrize(
    ("runtime", "loop"), [("onnxruntime", asyncio.new_event_loop), ("openvino", uvloop.new_event_loop)]
)
def test_it_answers_as_the_engine_does(tmp_path, runtime, loop):
    instance = started(bundles.version(tmp_path / "1", runtime))
    with asyncio.Runner(loop_factory=loop) as runner:
        for _ in range(3):
            outputs = runner.run(instance.run(bundles.INPUTS))
            np.testing.assert_allclose(outputs["y"], bundles.expected(), rtol=1e-5, atol=1e-6)
    instance.close()


def test_answers_are_the_callers_own(tiny):
    first = run(tiny, bundles.INPUTS)["y"]
    kept = first.copy()
    run(tiny, {"x": bundles.INPUTS["x"] * 2})
    assert first.tolist() == kept.tolist()
    assert first.flags.owndata
    first[:] = 0


def test_any_shape_and_text(copies):
    random = np.random.default_rng(1)

    async def main():
        for height, width, texts in [
            (1, 1, 1),
            (0, 5, 0),
            (3, 0, 2),
            (700, 900, 40),
            (2, 2, 0),
            (0, 0, 0),
            (1, 70_000, 3),
        ]:
            x = random.standard_normal((height, width)).astype("<f4")
            t = np.array([bytes("ä" * number, "utf-8") for number in range(texts)] or [], object)
            outputs = await copies.run({"x": x, "t": t})
            assert outputs["y"].tobytes() == x.tobytes()
            assert outputs["y"].shape == x.shape
            assert outputs["u"].tolist() == t.tolist()
            assert outputs["sum"].shape == ()
            np.testing.assert_allclose(outputs["sum"], x.sum(), rtol=1e-3, atol=1e-2)

    asyncio.run(main())


def test_sixty_four_mebibytes(copies):
    x = np.arange(1 << 24, dtype="<f4").reshape(1 << 12, 1 << 12)
    outputs = run(copies, {"x": x, "t": np.array([b"large"], object)})
    assert np.array_equal(outputs["y"], x)
    assert outputs["u"].tolist() == [b"large"]


def test_more_than_the_segment_may_hold(tmp_path):
    options = ProcessOptions(segment_bytes=1 << 20)
    instance = started(processes.copies(tmp_path / "1"), options=options)
    texts = np.empty(0, object)
    with pytest.raises(
        InputError, match=r"^the inputs are too large for one run: got 1048640 bytes, expected at most 1"
    ):
        run(instance, {"x": np.zeros((1, (1 << 18) + 16), "<f4"), "t": texts})
    # The inputs just fit; with the scalar beside them the outputs do not, which is the run's fault and not the line's.
    with pytest.raises(
        BackendError, match=r"^shared memory is too small: got 1048640 bytes, expected at most 1048576 b"
    ):
        run(instance, {"x": np.zeros((1, 1 << 18), "<f4"), "t": texts})
    assert run(instance, {"x": np.ones((1, 4), "<f4"), "t": texts})["sum"] == 4
    instance.close()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "missing input 'x'"),
        ({"z": np.zeros(1)}, "unknown input 'z'"),
        ({"x": np.zeros((2, 16))}, "input 'x' has the wrong dtype: got float64, expected FP32"),
        ({"x": np.zeros((2, 15), "<f4")}, "input 'x' has the wrong shape"),
        (
            {"x": np.zeros((9, 16), "<f4")},
            "input 'x' lies outside the engine's profile: got 9x16, expected 1x16 to 8x16",
        ),
        ({"x": [[0.0] * 16]}, "input 'x' is not a numpy array"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_waits(tiny, inputs, words):
    with pytest.raises(InputError) as caught:
        run(tiny, inputs)
    assert caught.value.message.startswith(words)
    assert run(tiny, bundles.INPUTS)["y"].shape == (2, 16)


def test_an_error_in_the_engine_is_that_requests_alone(copies):
    with pytest.raises(InputError, match=r"^'t' has an element that is no text: got int, expected bytes$"):
        run(copies, {"x": np.zeros((1, 1), "<f4"), "t": np.array([5], object)})
    with pytest.raises((BackendError, InputError)):  # ONNX Runtime's texts are UTF-8
        run(copies, {"x": np.zeros((1, 1), "<f4"), "t": np.array([b"\xff\xfe"], object)})
    assert run(copies, {"x": np.ones((1, 1), "<f4"), "t": np.array([b"ok"], object)})["u"].tolist() == [b"ok"]


def test_many_at_once_each_get_their_own(tiny):
    async def main():
        marks = [np.full((1 + number % 8, 16), number, "<f4") for number in range(200)]
        answers = await asyncio.gather(*(tiny.run({"x": mark}) for mark in marks))
        weights = bundles.weights()
        for mark, outputs in zip(marks, answers, strict=True):
            np.testing.assert_allclose(outputs["y"], np.maximum(mark @ weights, 0), rtol=1e-4, atol=1e-3)

    asyncio.run(main())
    assert tiny.outstanding == 0


def test_too_many_are_refused_at_once(turns):
    async def main():
        waiting = [asyncio.ensure_future(turns.run(processes.rows(mark, turns=60_000))) for mark in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await turns.run(processes.rows(9))
        assert caught.value.message == (
            "turns has too many requests waiting: got 3, expected fewer than 3\nHint: send fewer at once, or later"
        )
        assert [outputs["y"][0, 0] for outputs in await asyncio.gather(*waiting)] == [0, 1, 2]
        assert (await turns.run(processes.rows(9)))["y"][0, 0] == 9

    asyncio.run(main())


def test_a_client_that_leaves_takes_nobodys_answer(turns):
    async def main():
        first, second, third = (
            asyncio.ensure_future(turns.run(processes.rows(mark, turns=60_000))) for mark in (1, 2, 3)
        )
        await asyncio.sleep(0.02)
        first.cancel()  # it is in the process
        second.cancel()  # it waits
        assert (await third)["y"].tolist() == [[3] * 4] * 2
        assert turns.outstanding == 0

    asyncio.run(main())


def test_it_outlives_the_loop_that_asked(turns):
    async def leave():
        asyncio.ensure_future(turns.run(processes.rows(1, turns=60_000)))  # noqa: RUF006
        await asyncio.sleep(0.02)

    asyncio.run(leave())
    assert run(turns, processes.rows(2))["y"][0, 0] == 2


def test_close_answers_what_was_accepted_and_refuses_the_rest(turns):
    async def main():
        accepted = [asyncio.ensure_future(turns.run(processes.rows(mark, turns=60_000))) for mark in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(turns.close))
        await asyncio.sleep(0.02)
        assert not turns.alive
        with pytest.raises(NotReady, match=r"^turns is being put away\nHint: send the request again in a moment$"):
            await turns.run(processes.rows(9))
        assert [outputs["y"][0, 0] for outputs in await asyncio.gather(*accepted)] == [0, 1, 2]
        await closing

    asyncio.run(main())
    turns.close()  # a second time does nothing


def test_it_can_be_closed_before_anybody_asked(tiny_version):
    started(tiny_version).close()
    ProcessInstance(tiny_version).close()  # while it starts


@pytest.mark.parametrize("when", ["at first", "later"])
def test_an_altered_version_is_not_started(tmp_path, when):
    version = bundles.version(tmp_path / "1")
    events = []
    if when == "later":
        instance = started(version, observer=events.append)
    (version / "model.onnx").write_bytes(b"another")
    if when == "at first":
        with pytest.raises(BundleError, match=r"model\.onnx"):
            started(version, observer=events.append)
        assert [event.what for event in events] == [Happening.STARTED, Happening.CRASHED, Happening.GAVE_UP]
        return
    os.kill(events[0].pid, 9)
    processes.eventually(lambda: len(events) > 5)
    assert [event.what for event in events][2:] == [
        Happening.CRASHED, Happening.RESTARTING, Happening.STARTED, Happening.CRASHED,
        *[event.what for event in events][6:],
    ]  # fmt: skip
    assert "model.onnx" in events[5].cause
    instance.close()


def test_only_signed_versions_unless_it_is_allowed(tmp_path, tiny):
    unsigned = bundles.sealed(tmp_path / "1")
    with pytest.raises(BundleError, match="is not signed"):
        started(unsigned)
    instance = started(unsigned, options=ProcessOptions(allow_unsigned=True))
    assert run(instance, bundles.INPUTS)["y"].shape == (2, 16)
    assert instance.signer is None
    instance.close()
    assert tiny.signer is not None
    assert tiny.signer.key == keys.trusted()[0].id


def test_there_is_no_such_version(tmp_path):
    with pytest.raises(BundleError):
        ProcessInstance(tmp_path / "nothing")


def test_it_keeps_to_its_cores(tiny_version):
    core = max(os.sched_getaffinity(0))
    events = []
    instance = started(tiny_version, options=ProcessOptions(cores=(core,)), observer=events.append)
    assert os.sched_getaffinity(events[0].pid) == {core}
    instance.close()
    with pytest.raises(BackendError, match=r"^the engine could not be opened: got OSError: "):
        started(tiny_version, options=ProcessOptions(cores=(999,)))


def test_several_start_side_by_side(tiny_version):
    events = []
    first, second = start_instances(tiny_version, 2, "tiny", cores=[(0,), (1,)] if (os.cpu_count() or 1) > 1 else (),
                                    observer=events.append)  # fmt: skip
    assert {event.instance for event in events} == {"tiny instance 0", "tiny instance 1"}
    assert [event.what for event in events[:2]] == [Happening.STARTED] * 2
    for instance in (first, second):
        assert instance.alive
        assert run(instance, bundles.INPUTS)["y"].shape == (2, 16)
        instance.close()


def test_of_several_none_is_left_when_one_fails(tmp_path):
    events = []
    with pytest.raises(BundleError, match="is not signed"):
        start_instances(bundles.sealed(tmp_path / "1"), 2, observer=events.append)
    assert not [event.pid for event in events if event.pid and processes.is_running(event.pid)]


def test_the_process_has_no_web_server_and_hears_no_signal_meant_for_the_server(tiny_version):
    events = []
    instance = started(tiny_version, observer=events.append)
    pid = events[0].pid
    for number in (2, 15):
        os.kill(pid, number)
    assert run(instance, bundles.INPUTS)["y"].shape == (2, 16)
    assert os.getsid(pid) != os.getsid(0)
    maps = subprocess.run(["cat", f"/proc/{pid}/maps"], capture_output=True, text=True, check=True).stdout
    assert "uvloop" not in maps
    assert "httptools" not in maps
    assert "memfd:tailorbird" in maps
    instance.close()


def test_nothing_is_left_behind(tiny_version):
    before, threads = processes.descriptors(), threading.active_count()
    for _ in range(3):
        instance = started(tiny_version)
        run(instance, bundles.INPUTS)
        instance.close()
    assert processes.descriptors() == before
    assert threading.active_count() == threads
