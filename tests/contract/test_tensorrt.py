"""The contract, held to our side of TensorRT: builder, runtime and device are stand-ins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tailorbird.backends.base import Backend
from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tests.contract import models
from tests.contract.backend_contract import BackendContract, candidate_of
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.installed import tensorrt_on


class TestTensorRt(BackendContract):
    types = (DType.BOOL, DType.UINT8, DType.INT8, DType.INT32, DType.INT64, DType.FP16, DType.FP32)
    fuses = False  # the stand-in runs node by node

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with tensorrt_on(CudaRuntime()):
            yield TensorRtBackend()

    def test_a_broken_or_missing_engine_is_a_backend_error(self, backend: Backend, tmp_path: Path) -> None:
        """Refused for what its first bytes and its record say, before the runtime reads it."""
        case, folder = models.dense(), tmp_path / "engine"
        folder.mkdir()
        candidate = candidate_of(backend, case)
        with pytest.raises(BackendError, match=r"^what the engine depends on cannot be read: got "):
            backend.open(folder, candidate, case.signature)
        backend.compile(case.write(tmp_path), candidate, folder)
        (folder / "model.plan").write_bytes((folder / "model.plan").read_bytes()[:20])
        with pytest.raises(BackendError, match=r"^the engine's plan is cut short: got 20 bytes"):
            backend.open(folder, candidate, case.signature)
