from collections.abc import Iterator
from pathlib import Path

import pytest

from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target
from tests.contract import models
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.installed import tensorrt_on
from tests.stand_ins.tensorrt_module import TensorRt


@pytest.fixture
def trt() -> Iterator[TensorRt]:
    """TensorRT on a device, both stand-ins."""
    with tensorrt_on(CudaRuntime()) as module:
        yield module


@pytest.fixture
def backend(trt: TensorRt) -> TensorRtBackend:
    return TensorRtBackend()


@pytest.fixture
def candidate() -> Candidate:
    """Of ``models.dense()``, whose rows go from 1 to 8 with 3 as the usual."""
    target = Target("tensorrt", "cuda", "sm86")
    return Candidate(target, Precision.FP32, models.dense().profile, ShapeMode.DYNAMIC, threads=1, form=Form.CAST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "engine"
    made.mkdir()
    return made


@pytest.fixture
def engine(backend: TensorRtBackend, candidate: Candidate, folder: Path, tmp_path: Path) -> Path:
    """The engine of ``models.dense()``."""
    backend.compile(models.dense().write(tmp_path), candidate, folder)
    return folder
