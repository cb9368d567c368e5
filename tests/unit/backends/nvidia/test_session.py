"""Sessions on a stand-in device: places, recorded graphs, profiles, and what is given back."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tailorbird.backends.nvidia import session as sessions
from tailorbird.backends.nvidia.session import NvidiaSession
from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.backends.tensorrt_rtx import TensorRtRtxBackend
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.signature import Signature
from tailorbird.domain.target import Target
from tests.contract import models
from tests.contract.backend_contract import agree
from tests.contract.models import spec
from tests.stand_ins import tensorrt_module
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.installed import tensorrt_rtx_on
from tests.stand_ins.tensorrt_module import TensorRt

DENSE = models.dense()


@pytest.fixture
def session(backend: TensorRtBackend, candidate: Candidate, engine: Path) -> Iterator[NvidiaSession]:
    with backend.open(engine, candidate, DENSE.signature) as opened:
        assert isinstance(opened, NvidiaSession)
        yield opened


def rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {"x": models.numbers(count, 16, seed=seed)}


def test_the_first_run_at_a_shape_is_recorded_and_later_ones_replay(session: NvidiaSession, trt: TensorRt) -> None:
    launched = []
    for seed, count in enumerate((3, 3, 5, 3, 5)):
        inputs = rows(count, seed)
        agree(DENSE, session.run(inputs), inputs)
        launched.append(trt.cuda.launched)
    assert launched == [0, 1, 1, 2, 3]


def test_a_request_runs_with_the_narrowest_profile(session: NvidiaSession) -> None:
    chosen = {}
    for count in (1, 2, 3, 8):
        session.run(rows(count))
        place = session._places[((count, 16),)]
        chosen[count] = place._context.active_optimization_profile
    assert chosen == {3: 1, 1: 2, 8: 3, 2: 0}


def test_what_cannot_be_recorded_runs_as_it_is(session: NvidiaSession, trt: TensorRt) -> None:
    trt.cuda.uncapturable = True
    for seed in range(3):
        inputs = rows(4, seed)
        agree(DENSE, session.run(inputs), inputs)
    assert trt.cuda.launched == 0
    (place,) = session._places.values()
    assert "cudaErrorStreamCaptureInvalidated" in place.recorded


def test_shapes_not_used_for_longest_give_way(
    session: NvidiaSession, trt: TensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_PLACES", 2)
    for count in (1, 2, 1, 3):
        session.run(rows(count))
    assert [key[0][0] for key in session._places] == [1, 3]
    assert trt.cuda.graphs == 4  # each recording is a graph and what was made ready of it
    inputs = rows(2)
    agree(DENSE, session.run(inputs), inputs)


def test_all_that_was_taken_is_given_back(
    backend: TensorRtBackend, candidate: Candidate, engine: Path, trt: TensorRt
) -> None:
    with backend.open(engine, candidate, DENSE.signature) as session:
        session.run(rows(3))
        session.profile([rows(3), rows(4)], 2)
        assert trt.cuda.live
    assert not trt.cuda.live
    assert trt.cuda.graphs == 0


def test_memory_is_taken_once_for_all_shapes(session: NvidiaSession, trt: TensorRt) -> None:
    before = set(trt.cuda.live)
    for count in range(1, 9):
        session.run(rows(count))
    assert set(trt.cuda.live) == before


def test_a_device_without_room_for_the_engine(
    backend: TensorRtBackend, candidate: Candidate, engine: Path, trt: TensorRt
) -> None:
    trt.cuda.memory = 1100
    with pytest.raises(BackendError) as refused:
        backend.open(engine, candidate, DENSE.signature)
    assert refused.value.message == (
        "CUDA's cudaMalloc failed: got cudaErrorMemoryAllocation: out of memory\n"
        "Hint: serve smaller shapes, or free the device's memory"
    )
    assert not trt.cuda.live


def test_a_plan_that_the_runtime_refuses(backend: TensorRtBackend, candidate: Candidate, engine: Path) -> None:
    plan = engine / "model.plan"
    content = bytearray(plan.read_bytes())
    content[16] ^= 1
    plan.write_bytes(content)
    with pytest.raises(BackendError) as refused:
        backend.open(engine, candidate, DENSE.signature)
    assert refused.value.message == (
        "the runtime refused the engine: got deserializeCudaEngine: Error Code 1: Serialization (truncated)\n"
        "Hint: build it again on this device"
    )


def test_outputs_whose_shapes_depend_on_values_are_refused(
    session: NvidiaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_module.Context, "get_tensor_shape", lambda self, name: (-1, 8))
    with pytest.raises(BackendError) as refused:
        session.run(rows(3))
    assert refused.value.message == (
        "the shape of output 'y' depends on the inputs' values: got -1x8\nHint: use another runtime"
    )
    assert not session._places


def test_tensors_on_the_host_are_refused(
    backend: TensorRtBackend, candidate: Candidate, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_module.Engine, "get_tensor_location", lambda self, name: "host")
    with pytest.raises(BackendError, match=r"^tensor 'x' gives or takes a shape by its values\n"):
        backend.open(engine, candidate, DENSE.signature)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ((spec("z", DType.FP32, "rows", 8),), "the engine has other inputs and outputs than the signature: got x, y, "
         "expected x, z"),
        ((spec("y", DType.FP16, "rows", 8),), "the engine's tensor 'y' is not the signature's: got FLOAT, expected "
         "FP16"),
    ],
)  # fmt: skip
def test_another_models_engine_is_refused(
    backend: TensorRtBackend,
    candidate: Candidate,
    engine: Path,
    outputs: tuple,
    message: str,  # type: ignore[type-arg]
) -> None:
    with pytest.raises(BackendError) as refused:
        backend.open(engine, candidate, Signature(DENSE.signature.inputs, outputs))
    assert refused.value.message == message


def test_a_run_that_fails_on_the_device_is_an_error(session: NvidiaSession, trt: TensorRt) -> None:
    session.run(rows(3))
    (place,) = session._places.values()
    trt.cuda.live.pop(place._rooms.tensors["y"].address)
    with pytest.raises(BackendError, match="cudaStreamSynchronize failed: got cudaErrorIllegalAddress"):
        session.run(rows(3))
    trt.cuda.live[place._rooms.tensors["y"].address] = (bytearray(), True)  # so that it can be given back


def test_kernels_that_a_device_compiled_are_kept_for_it(candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    """Ahead of time there are no kernels in a plan: they are compiled at load, once for each device and version."""
    candidate = msgspec.structs.replace(candidate, target=Target.parse("tensorrt_rtx:cuda:sm86_sm89"))
    backend = TensorRtRtxBackend()
    with tensorrt_rtx_on(CudaRuntime(8, 9)) as rtx:
        backend.compile(DENSE.write(tmp_path), candidate, folder)
        assert rtx.configs[0].architectures == {0: "SM86", 1: "SM89"}
        with backend.open(folder, candidate, DENSE.signature) as first:
            rtx.caches[0].content = b"compiled"
            agree(DENSE, first.run(DENSE.inputs))
        with backend.open(folder, candidate, DENSE.signature) as second:
            assert rtx.caches[1].content == b"compiled"
            agree(DENSE, second.run(DENSE.inputs))


def test_an_engine_for_several_devices_opens_where_its_gate_ran(
    candidate: Candidate, folder: Path, tmp_path: Path
) -> None:
    candidate = msgspec.structs.replace(candidate, target=Target.parse("tensorrt_rtx:cuda:sm86_sm89"))
    gated = msgspec.structs.replace(candidate, target=Target.parse("tensorrt_rtx:cuda:sm86"))
    backend = TensorRtRtxBackend()
    with tensorrt_rtx_on(CudaRuntime(8, 9)):
        backend.compile(DENSE.write(tmp_path), candidate, folder)
        backend.check(folder, candidate)
        with pytest.raises(BackendError) as refused:
            backend.check(folder, gated)
    assert refused.value.message == (
        "the engine was qualified on another architecture: got sm86, expected sm89 (Stand-in)\n"
        "Hint: qualify the bundle that it came from on this device, too"
    )
    with tensorrt_rtx_on(CudaRuntime(8, 6)):
        backend.check(folder, gated)


def test_what_the_library_itself_finds_lacking_is_named(candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    candidate = msgspec.structs.replace(candidate, target=Target.parse("tensorrt_rtx:cuda:sm86"))
    backend = TensorRtRtxBackend()
    with tensorrt_rtx_on(CudaRuntime()) as rtx:
        backend.compile(DENSE.write(tmp_path), candidate, folder)
        rtx.lacking = 4 | 16
        with pytest.raises(BackendError) as refused:
            backend.open(folder, candidate, DENSE.signature)
    assert refused.value.message == (
        "the runtime refuses the engine on this device: got old cuda driver, insufficient gpu memory\n"
        "Hint: build it again on this device, or bring what it lacks"
    )


def test_a_plan_with_a_runtime_of_its_own_may_use_it(
    backend: TensorRtBackend, candidate: Candidate, folder: Path, tmp_path: Path, trt: TensorRt
) -> None:
    for options in ({}, {"version_compatible": True}):
        asked = msgspec.structs.replace(candidate, options=options)
        backend.compile(DENSE.write(tmp_path), asked, folder)
        backend.open(folder, asked, DENSE.signature).close()
    assert [one.engine_host_code_allowed for one in trt.runtimes] == [False, True]


def test_a_profile_has_the_medians_of_the_runs_that_count(session: NvidiaSession) -> None:
    layers = session.profile([rows(3), rows(5)], runs=3)
    assert [layer.milliseconds for layer in layers] == [0.25, 0.25]
    assert [layer.precision for layer in layers] == ["fp32", "fp32"]
    assert session.executed_precision() == {layer.name: layer.precision for layer in layers}
