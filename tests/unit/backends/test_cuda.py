"""CUDA's runtime behind one door: what it gives back becomes a value or a clear error."""

from collections.abc import Iterator

import numpy as np
import pytest

from tailorbird.backends import cuda
from tailorbird.backends.cuda import Buffer, Device, Stream
from tailorbird.domain.errors import BackendError, BackendUnavailable
from tests.stand_ins import cuda_runtime
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.installed import device_of


@pytest.fixture
def runtime() -> Iterator[CudaRuntime]:
    made = CudaRuntime()
    with device_of(made):
        yield made


def test_a_machine_without_a_driver_says_so() -> None:
    """The real bindings, which load without a driver."""
    bindings = pytest.importorskip("cuda.bindings.runtime")
    if int(bindings.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(BackendUnavailable) as refused:
        cuda.device()
    assert refused.value.message == (
        "no NVIDIA driver or no device here: got CUDA driver version is insufficient for CUDA runtime version\n"
        "Hint: install NVIDIA's driver, or a newer one"
    )


def test_the_real_bindings_have_all_that_is_called() -> None:
    bindings = pytest.importorskip("cuda.bindings.runtime")
    for name in vars(CudaRuntime):
        if name.startswith("cuda"):
            assert hasattr(bindings, name), name
    assert bindings.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert int(bindings.cudaError_t.cudaErrorMemoryAllocation) == cuda_runtime.OUT_OF_MEMORY
    assert int(bindings.cudaError_t.cudaErrorInsufficientDriver) == cuda_runtime.NO_DRIVER


def test_real_failures_are_errors_in_cudas_words() -> None:
    bindings = pytest.importorskip("cuda.bindings.runtime")
    if int(bindings.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(BackendError) as refused:
        cuda.cuda("cudaMalloc", 100)
    assert refused.value.message == (
        "CUDA's cudaMalloc failed: got cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA "
        "runtime version\nHint: install NVIDIA's driver, or a newer one"
    )


def test_a_device_is_told_by_its_architecture(runtime: CudaRuntime) -> None:
    assert cuda.device() == Device("Stand-in", "sm86", 1 << 30, 13000)


def test_no_device_is_not_a_failure_of_the_driver(runtime: CudaRuntime) -> None:
    runtime.count = 0
    with pytest.raises(BackendUnavailable, match=r"^no NVIDIA driver or no device here: got it sees no device"):
        cuda.device()


def test_a_failing_driver_is_told_from_an_absent_one(runtime: CudaRuntime) -> None:
    runtime.broken = cuda_runtime.ILLEGAL_ADDRESS
    with pytest.raises(BackendUnavailable, match=r"^the NVIDIA driver failed here: got an illegal memory access"):
        cuda.device()


def test_a_full_device_says_what_to_do(runtime: CudaRuntime) -> None:
    runtime.memory = 100
    with pytest.raises(BackendError) as refused:
        Buffer(101)
    assert refused.value.message == (
        "CUDA's cudaMalloc failed: got cudaErrorMemoryAllocation: out of memory\n"
        "Hint: serve smaller shapes, or free the device's memory"
    )
    assert not runtime.live


def test_a_buffer_without_room_on_the_host_gives_the_device_back(
    runtime: CudaRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cudaMallocHost", lambda size: (cuda_runtime.OUT_OF_MEMORY, None))
    with pytest.raises(BackendError, match="cudaMallocHost"):
        Buffer(64)
    assert not runtime.live


def test_bytes_go_up_and_come_back_when_waited_for(runtime: CudaRuntime) -> None:
    with Buffer(64) as buffer, Stream() as stream:
        view = buffer.view(np.dtype(np.float32), (2, 3))
        view[...] = 7
        buffer.send(view.nbytes, stream)
        stream.wait()
        view[...] = 0
        buffer.fetch(view.nbytes, stream)
        assert view.sum() == 0
        stream.wait()
        assert view.tolist() == [[7, 7, 7], [7, 7, 7]]
    buffer.close()
    assert not runtime.live


def test_a_view_larger_than_its_buffer_is_refused(runtime: CudaRuntime) -> None:
    with Buffer(64) as buffer, pytest.raises(BackendError) as refused:
        buffer.view(np.dtype(np.float32), (17,))
    assert refused.value.message == "a tensor does not fit its buffer: got 68 bytes, expected 64 bytes"


def test_a_recording_runs_when_it_is_launched_and_as_often(runtime: CudaRuntime) -> None:
    done: list[int] = []
    with Stream() as stream:
        recording = stream.record(lambda: runtime.queue(stream.handle, lambda: done.append(1)))
        stream.wait()
        assert not done
        for _ in range(2):
            recording.launch(stream)
        stream.wait()
        assert done == [1, 1]
        recording.close()
        recording.close()
    assert runtime.graphs == 0


def test_a_stream_is_usable_after_a_recording_that_failed(runtime: CudaRuntime) -> None:
    def work() -> None:
        raise BackendError("not this")

    with Stream() as stream:
        with pytest.raises(BackendError, match="not this"):
            stream.record(work)
        runtime.uncapturable = True
        with pytest.raises(BackendError, match="cudaStreamEndCapture failed: got cudaErrorStreamCaptureInvalidated"):
            stream.record(lambda: None)
        runtime.uncapturable = False
        stream.record(lambda: None).close()
    stream.close()


@pytest.mark.gpu
def test_memory_streams_and_recordings_on_a_real_device() -> None:
    """Up through one buffer, down through another, straight and recorded: no kernel is needed to see bytes move."""
    found = cuda.device()
    assert found.arch.startswith("sm")
    assert found.memory_bytes > 1 << 30
    rows = np.arange(1 << 20, dtype=np.float32)
    with Buffer(rows.nbytes) as buffer, Stream() as stream:
        view = buffer.view(rows.dtype, rows.shape)
        for step in (1, 2):
            view[...] = rows * step
            buffer.send(view.nbytes, stream)
            stream.wait()
            view[...] = 0
            recording = stream.record(lambda: buffer.fetch(rows.nbytes, stream))
            stream.wait()
            assert not view.any()
            recording.launch(stream)
            stream.wait()
            np.testing.assert_array_equal(view, rows * step)
            recording.close()
    with pytest.raises(BackendError, match="cudaErrorMemoryAllocation: out of memory"):
        Buffer(1 << 50)
    with Buffer(64) as after:
        assert after.address
