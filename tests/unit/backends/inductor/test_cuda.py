"""The session on a GPU, on a stand-in for ``torch.cuda`` that records work into graphs as the real one does."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tailorbird.backends.inductor.record import EngineRecord
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.domain.target import Target

torch = pytest.importorskip("torch")

from tailorbird.backends.inductor import cuda  # noqa: E402 - needs torch
from tailorbird.backends.inductor.cuda import CudaSession  # noqa: E402

SIGNATURE = Signature(
    (TensorSpec("a", DType.FP32, ("n", 2)), TensorSpec("b", DType.BF16, ("n",)), TensorSpec("k", DType.INT64, ())),
    (TensorSpec("sum", DType.FP32, ("n", 2)), TensorSpec("b2", DType.BF16, ("n",))),
)
RECORD = EngineRecord("2.13.0", "cuda", ("sm90",), "g++", ("a", "b", "k"), ("sum", "b2"), (), {"add": "fp32"})


class Device:
    """One stand-in device: what is enqueued while a graph is recorded is done at each of its replays."""

    def __init__(self) -> None:
        self.calls = 0
        self.replays = 0
        self.recording: list[Callable[[], Any]] | None = None

    def program(self, tensors: list[Any]) -> tuple[Any, ...]:
        """The compiled program; in a graph its outputs keep their memory."""
        self.calls += 1
        a, b, k = tensors
        tensors.clear()
        found = (a + k, b * 2)
        if self.recording is not None:
            self.recording.append(lambda: [one.copy_(new) for one, new in zip(found, (a + k, b * 2), strict=True)])
        return found


class Stream:
    def wait_stream(self, other: Any) -> None:
        assert isinstance(other, Stream)

    def synchronize(self) -> None:
        pass


def unpinned(make: Callable[..., Any]) -> Callable[..., Any]:
    """Pinned memory needs a driver."""

    def made(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Any:
        assert pin_memory, "the device reads and writes this"
        return make(*args, **kwargs)

    return made


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    one = Device()

    class Graph:
        def __init__(self) -> None:
            self.work: list[Callable[[], Any]] = []

        def replay(self) -> None:
            one.replays += 1
            for step in self.work:
                step()

    @contextlib.contextmanager
    def recorded(graph: Graph, stream: Any, capture_error_mode: str) -> Iterator[None]:
        one.recording = graph.work
        yield
        one.recording = None

    real_copy = torch.Tensor.copy_

    def copied(self: Any, source: Any, non_blocking: bool = False) -> Any:
        if one.recording is not None:
            one.recording.append(lambda: real_copy(self, source))
        return real_copy(self, source)

    monkeypatch.setattr(torch.Tensor, "copy_", copied)
    monkeypatch.setattr(torch, "zeros", unpinned(torch.zeros))
    monkeypatch.setattr(torch, "empty", unpinned(torch.empty))
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recorded)
    return one


def session(device: Any, most: int = 64) -> CudaSession:
    profile = Profile(
        {"a": (1, 2), "b": (1,), "k": ()}, {"a": (3, 2), "b": (3,), "k": ()}, {"a": (most, 2), "b": (most,), "k": ()}
    )
    target = Target("inductor_cuda", "cuda", "sm90")
    candidate = Candidate(target, Precision.FP32, profile, ShapeMode.DYNAMIC, 1, form=Form.PROGRAM)
    return CudaSession("inductor_cuda", candidate, SIGNATURE, device.program, RECORD)


def inputs(rows: int, k: int = 5) -> dict[str, Any]:
    """BF16 travels as bit patterns: 0x3F80 is 1, 0x4000 is 2."""
    return {
        "a": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2),
        "b": np.full(rows, 0x3F80, np.uint16),
        "k": np.array(k, np.int64),
    }


def test_every_run_replays_the_graph_of_its_shape(device: Device) -> None:
    one = session(device)
    for k in (5, 7, 9):
        found = one.run(inputs(3, k))
        np.testing.assert_array_equal(found["sum"], inputs(3)["a"] + k)
        np.testing.assert_array_equal(found["b2"], np.full(3, 0x4000, np.uint16))
    assert device.replays == 3
    assert device.calls == cuda.WARM_UPS + 1  # the program itself ran to warm up and to be recorded
    one.run(inputs(4))
    one.run(inputs(3))
    assert device.calls == 2 * (cuda.WARM_UPS + 1)


def test_outputs_are_the_callers_and_inputs_stay_theirs(device: Device) -> None:
    one = session(device)
    given = inputs(3)
    first = one.run(given)
    kept = {name: array.copy() for name, array in first.items()}
    one.run(inputs(3, 100))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array[...] = 1
    for name, array in inputs(3).items():
        np.testing.assert_array_equal(given[name], array)


def test_any_memory_layout_goes_in(device: Device) -> None:
    one, plain = session(device), inputs(3)
    wide = np.repeat(plain["a"], 2, axis=1)[:, ::2]
    wide.flags.writeable = False
    found = one.run({**plain, "a": wide})
    np.testing.assert_array_equal(found["sum"], plain["a"] + 5)


def test_graphs_are_kept_up_to_a_bound(device: Device) -> None:
    one = session(device)
    for rows in range(1, cuda.MOST_GRAPHS + 3):
        one.run(inputs(rows))
    assert len(one._graphs) == cuda.MOST_GRAPHS
    before = device.calls
    one.run(inputs(cuda.MOST_GRAPHS + 2))
    assert device.calls == before  # the last one is still there
    one.run(inputs(1))
    assert device.calls > before  # the first one was given up


def test_a_failure_on_the_device_is_a_backend_error(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    one = session(device)
    monkeypatch.setattr(one, "_call", out_of_memory)
    with pytest.raises(BackendError, match=r"inductor_cuda could not run the engine: got CUDA out of memory\. Tried"):
        one.run(inputs(2))


def test_it_says_what_it_computes_in_and_closes(device: Device) -> None:
    one = session(device)
    assert one.executed_precision() == {"add": "fp32"}
    one.close()
    with pytest.raises(BackendError, match="the session is closed"):
        one.run(inputs(3))


class RealDevice:
    """The same program on a GPU that is there."""

    @staticmethod
    def program(tensors: list[Any]) -> tuple[Any, ...]:
        a, b, k = tensors
        tensors.clear()
        return a + k, b * 2


@pytest.mark.gpu
def test_sessions_of_one_process_record_and_run_side_by_side() -> None:
    """Each thread has a session and brings new shapes to it while others record and replay theirs."""
    threads, rounds = 4, 12
    meeting, faults = threading.Barrier(threads), list[BaseException]()

    def serve(number: int) -> None:
        try:
            with session(RealDevice()) as one:
                meeting.wait(60)
                for turn in range(rounds):
                    for rows in (turn + 1, 1):
                        given = inputs(rows, number + turn)
                        found = one.run(given)
                        np.testing.assert_array_equal(found["sum"], given["a"] + number + turn)
                        np.testing.assert_array_equal(found["b2"], np.full(rows, 0x4000, np.uint16))
        except BaseException as error:
            faults.append(error)

    started = [threading.Thread(target=serve, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert not faults
