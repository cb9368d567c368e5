"""The contract, held to our side of TensorRT: builder, runtime and device are stand-ins."""

from collections.abc import Iterator

import pytest

from tailorbird.backends.base import Backend
from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.domain.dtype import DType
from tests.contract.backend_contract import BackendContract
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.installed import tensorrt_on


class TestTensorRt(BackendContract):
    types = (DType.BOOL, DType.UINT8, DType.INT8, DType.INT32, DType.INT64, DType.FP16, DType.FP32)
    fuses = False  # the stand-in runs node by node

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with tensorrt_on(CudaRuntime()):
            yield TensorRtBackend()
