"""The contract, held to OpenVINO."""

import subprocess
import sys

import numpy as np
import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Backend
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision
from tests.contract import models
from tests.contract.backend_contract import BackendContract, Open


class TestOpenVino(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return registry.backend("openvino")

    def test_bf16_asked_of_a_cpu_without_it_is_seen_to_run_fp32(self, opened: Open, backend: Backend) -> None:
        executed = opened(models.dense(), precision=Precision.BF16).executed_precision()
        able = Precision.BF16 in backend.capabilities().precisions
        assert ("bf16" if able else "fp32") in executed.values()
        assert ("bf16" in executed.values()) == able

    def test_text_is_refused_before_it_can_crash(self, opened: Open) -> None:
        text = np.array([b"a"], object)
        with pytest.raises(BackendError) as refused:
            opened(models.same(DType.BYTES, text))
        assert refused.value.message == ("openvino cannot open the engine: got text tensors\nHint: use another backend")


def test_importing_openvino_reports_to_nobody() -> None:
    """In a fresh process: its telemetry package, where it is installed, is never loaded."""
    program = (
        "import sys; from tailorbird.backends import registry; registry.backend('openvino').capabilities();"
        "print(sys.modules.get('openvino_telemetry'), 'openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["None", "True"]
