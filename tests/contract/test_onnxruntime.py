"""The contract, held to ONNX Runtime."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tailorbird.backends import registry
from tailorbird.backends.base import Backend
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, InputError
from tests.contract import models
from tests.contract.backend_contract import BackendContract, Open
from tests.contract.models import Case

TEXT = np.array([b"", b"caf\xc3\xa9", b"a\0b", b"x"], object)


def quantised_dense() -> Case:
    """``models.dense`` with Q/DQ pairs around its product, weights per channel."""
    plain = models.dense()
    w = numpy_helper.to_array(plain.model.graph.initializer[0])
    scales = (np.abs(w).max(0) / 64).astype(np.float32)
    nodes = [
        models.node("QuantizeLinear", "x sx zx", "xq"),
        models.node("DequantizeLinear", "xq sx zx", "xf"),
        models.node("DequantizeLinear", "wq sw zw", "wf", axis=1),
        models.node("MatMul", "xf wf", "xw", name="product"),
        models.node("Relu", "xw", "y"),
    ]
    weights = {
        **{"sx": np.array(0.03, np.float32), "zx": np.array(128, np.uint8)},
        **{"wq": np.round(w / scales).astype(np.int8), "sw": scales, "zw": np.zeros(8, np.int8)},
    }
    return replace(plain, name="quantised_dense", model=models.model(nodes, plain.signature, **weights))


def quantised_convolution() -> Case:
    """``models.convolution`` as a quantised operator."""
    plain = models.convolution()
    w = numpy_helper.to_array(plain.model.graph.initializer[0])
    nodes = [
        models.node("QuantizeLinear", "image s z", "q"),
        models.node("QLinearConv", "q s z wq sw zw s z", "mq"),
        models.node("DequantizeLinear", "mq s z", "map"),
    ]
    weights = {
        **{"s": np.array(0.05, np.float32), "z": np.array(128, np.uint8)},
        **{"wq": np.round(w * 20).astype(np.int8), "sw": np.array(0.05, np.float32), "zw": np.array(0, np.int8)},
    }
    return replace(plain, name="quantised_convolution", model=models.model(nodes, plain.signature, **weights))


def dynamic_dense() -> Case:
    """``models.dense`` with its activations quantised at every run."""
    plain = models.dense()
    w = numpy_helper.to_array(plain.model.graph.initializer[0])
    nodes = [
        models.node("DynamicQuantizeLinear", "x", "xq sx zx"),
        models.node("MatMulInteger", "xq wq zx zw", "product"),
        models.node("Cast", "product", "xi", to=1),
        models.node("Mul", "sx sw", "s"),
        models.node("Mul", "xi s", "xw"),
        models.node("Relu", "xw", "y"),
    ]
    weights = {
        "wq": np.round(w * 20).astype(np.int8),
        "zw": np.array(0, np.int8),
        "sw": np.array(0.05, np.float32),
    }
    return replace(plain, name="dynamic_dense", model=models.model(nodes, plain.signature, **weights))


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

    def test_fused_kernels_count_as_int8_whatever_they_give_out(self, opened: Open) -> None:
        session = opened(quantised_dense())  # MatMulIntegerToFloat: INT8 in, float out
        assert "int8" in session.executed_precision().values()
        assert "fp32" not in {kind for name, kind in session.executed_precision().items() if "product" in name}

    def test_pairs_that_were_not_fused_run_in_float(self, opened: Open, backend: Backend) -> None:
        found = opened(quantised_dense(), options=backend.capabilities().oracle).executed_precision()
        assert {kind for name, kind in found.items() if "product" in name} == {"fp32"}
        assert "int8" not in found.values()
        assert "uint8" in found.values()

    def test_what_was_quantised_in_the_convolutional_style_is_int8(self, opened: Open) -> None:
        assert Counter(opened(quantised_convolution()).executed_precision().values())["int8"] == 1

    def test_a_dynamic_product_is_int8(self, opened: Open) -> None:
        assert "int8" in opened(dynamic_dense()).executed_precision().values()

    def test_a_profile_says_int8_and_names_the_quantised_node(self, opened: Open) -> None:
        case = quantised_dense()
        (product,) = (one for one in opened(case).profile([case.inputs], 2) if "product" in one.nodes)
        assert product.precision == "int8"
        case = dynamic_dense()
        assert "int8" in {layer.precision for layer in opened(case).profile([case.inputs], 2)}

    def test_text_can_be_profiled(self, opened: Open) -> None:
        layers = opened(models.same(DType.BYTES, TEXT)).profile([{"x": TEXT}], 1)
        assert {layer.precision for layer in layers} == {"string"}

    def test_whole_numbers_that_only_pass_keep_their_type(self, opened: Open) -> None:
        case = models.same(DType.INT8, np.array([-3, 4], np.int8))
        assert "int8" in set(opened(case).executed_precision().values())

    def test_it_reports_to_nobody(self, tmp_path: Path) -> None:
        # Telemetry starts with the import and leaves its marks in these two folders at once.
        silencers = ("ORT_", "CI")
        env = {name: value for name, value in os.environ.items() if not name.startswith(silencers)}
        env |= {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
        code = "from tailorbird.backends import registry; assert registry.backend('onnxruntime').probe().available"
        subprocess.run([sys.executable, "-c", code], check=True, env=env)
        assert not list(tmp_path.iterdir())
