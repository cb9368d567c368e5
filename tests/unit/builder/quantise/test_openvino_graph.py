"""Names that last, and what counts as quantised."""

from pathlib import Path

import pytest

pytest.importorskip("openvino")

from tailorbird.builder.quantise.openvino_graph import promise_of, read_onnx, units_of
from tailorbird.domain.errors import BackendError
from tests.unit.builder.graphs import linear, model, save, value
from tests.unit.builder.quantise.nncf_graphs import norm, norm_weights
from tests.unit.builder.quantise.onnx_graphs import const, convolutions, node


def test_names_do_not_depend_on_what_the_process_did_before(tmp_path: Path) -> None:
    nodes = [*norm("x", "n"), node("Gemm", "n w b", "g"), node("Relu", "g", "y")]
    made = model(nodes, [value("x", ["n", 16])], [value("y", ["n", 8])], [const("w", 16, 8), const("b", 8),
                 *norm_weights()])  # fmt: skip
    path = save(made, tmp_path / "model.onnx")
    first, second = ([one.get_friendly_name() for one in read_onnx(path, made).get_ordered_ops()] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)
    assert {"x", "y"} <= set(first)


def test_batch_norm_is_folded_and_the_signature_stays(tmp_path: Path) -> None:
    made = convolutions()
    graph = read_onnx(save(made, tmp_path / "model.onnx"), made)
    assert "BatchNormInference" not in {one.get_type_name() for one in graph.get_ops()}
    assert promise_of(graph).signature == ("x <Type: 'float32'> [?,3,12,12]", "y <Type: 'float32'> [?,4]")


def test_a_float_graph_has_no_units(tmp_path: Path) -> None:
    made = linear()
    assert units_of(read_onnx(save(made, tmp_path / "model.onnx"), made)) == ()


def test_what_openvino_cannot_read_is_a_backend_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(BackendError, match="openvino could not read the model: got"):
        read_onnx(path, linear())
