"""The contract, held to OpenVINO."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Backend
from tailorbird.builder.quantise.nncf_package import load_nncf
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision
from tests.contract import models
from tests.contract.backend_contract import BackendContract, Open, candidate_of
from tests.contract.models import Case


def biased() -> Case:
    """``models.dense`` with a bias, whose nodes have names."""
    plain = models.dense()
    weight, bias = models.numbers(16, 8, seed=1), models.numbers(8, seed=2)
    nodes = [models.node("MatMul", "x w", "xw", name="product"), models.node("Add", "xw b", "s", name="bias"),
             models.node("Relu", "s", "y", name="relu")]  # fmt: skip
    made = models.model(nodes, plain.signature, w=weight, b=bias)
    return replace(plain, name="biased", model=made, expect=lambda x: {"y": np.maximum(x @ weight + bias, 0)})


def quantised(case: Case, folder: Path) -> Path:
    """The case's model as NNCF quantises it."""
    openvino = importlib.import_module("openvino")
    nncf = load_nncf()
    graph = openvino.Core().read_model(str(case.write(folder)))
    openvino.save_model(
        nncf.quantize(graph, nncf.Dataset([case.inputs])), str(folder / "q.xml"), compress_to_fp16=False
    )
    return folder / "q.xml"


class TestOpenVino(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return registry.backend("openvino")

    def test_bf16_asked_of_a_cpu_without_it_is_seen_to_run_fp32(self, opened: Open, backend: Backend) -> None:
        executed = opened(models.dense(), precision=Precision.BF16).executed_precision()
        able = Precision.BF16 in backend.capabilities().precisions
        assert ("bf16" if able else "fp32") in executed.values()
        assert ("bf16" in executed.values()) == able

    def test_a_product_under_a_bias_is_part_of_its_layer(self, opened: Open) -> None:
        """The runtime model names the layer after the bias, and the product not at all."""
        case = biased()
        layers = opened(case).profile([case.inputs], 2)
        (product,) = (layer for layer in layers if "product" in layer.nodes)
        assert product.kind == "FullyConnected"
        assert "bias" in product.nodes

    def test_what_nncf_quantised_is_int8_and_keeps_its_nodes(
        self, backend: Backend, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("nncf")
        case, folder = models.block(), tmp_path / "engine"
        folder.mkdir()
        candidate = candidate_of(backend, case)
        backend.compile(quantised(case, tmp_path), candidate, folder)
        with backend.open(folder, candidate, case.signature) as session:
            layers = session.profile([case.inputs], 2)
        capfd.readouterr()
        for name in ("first", "second"):
            (layer,) = (layer for layer in layers if name in layer.nodes)
            assert (layer.kind, layer.precision) == ("Convolution", "int8")

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
