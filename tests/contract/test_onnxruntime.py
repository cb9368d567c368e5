"""The contract, held to ONNX Runtime."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Backend
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, InputError
from tests.contract import models
from tests.contract.backend_contract import BackendContract, Open

TEXT = np.array([b"", b"caf\xc3\xa9", b"a\0b", b"x"], object)


class TestOnnxRuntime(BackendContract):
    types = tuple(dtype for dtype in BackendContract.types if dtype is not DType.BF16)

    @pytest.fixture
    def backend(self) -> Backend:
        return registry.backend("onnxruntime")

    def test_text_goes_in_and_comes_out_as_bytes(self, opened: Open) -> None:
        session = opened(models.same(DType.BYTES, TEXT))
        assert session.run({"x": TEXT})["y"].tolist() == TEXT.tolist()
        assert set(session.executed_precision().values()) == {"string"}

    @pytest.mark.parametrize("element", [b"\xff", "text", 3, None])
    def test_what_is_not_text_is_refused(self, opened: Open, element: Any) -> None:
        session = opened(models.same(DType.BYTES, TEXT))
        with pytest.raises(InputError, match=r"^input 'x' is not text: got .*, expected bytes that are UTF-8$"):
            session.run({"x": np.array([element] * 4, object)})

    def test_its_python_interface_has_no_bfloat16(self, opened: Open) -> None:
        bits = np.array([0x3F80], np.uint16)
        with pytest.raises(BackendError, match=r"expected: \(tensor\(bfloat16\)\)"):
            opened(models.same(DType.BF16, bits)).run({"x": bits})

    def test_unoptimised_gives_the_same_answer(self, opened: Open, backend: Backend) -> None:
        case = models.dense()
        oracle = backend.capabilities().oracle
        assert oracle == {"optimise": False}
        plain = opened(case, options=oracle)
        np.testing.assert_allclose(plain.run(case.inputs)["y"], case.expected()["y"], rtol=1e-5, atol=1e-5)

    def test_it_reports_to_nobody(self, tmp_path: Path) -> None:
        # Telemetry starts with the import and leaves its marks in these two folders at once.
        silencers = ("ORT_", "CI")
        env = {name: value for name, value in os.environ.items() if not name.startswith(silencers)}
        env |= {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
        code = "from tailorbird.backends import registry; assert registry.backend('onnxruntime').probe().available"
        subprocess.run([sys.executable, "-c", code], check=True, env=env)
        assert not list(tmp_path.iterdir())
