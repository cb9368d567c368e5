"""Which file a candidate is compiled from, when its precision is in the graph: made once, kept, told."""

import importlib.metadata
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.lowering.lowering import Lowering, Material
from tailorbird.builder.recall import Recall
from tailorbird.builder.sources.onnx_file import source_digest
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation, Ranges
from tailorbird.domain.target import Target
from tests.unit.builder.graphs import linear, model, save, value
from tests.unit.builder.quantise.onnx_graphs import convolutions, images, node

pytest.importorskip("onnxruntime")

SYMMETRIC = Quantisation("qdq-symmetric", ranges=Ranges.MINMAX)


def candidate(precision: Precision, quantisation: Quantisation | None = None, form: Form = Form.CAST) -> Candidate:
    shapes = {"x": (2, 3, 12, 12)}
    return Candidate(Target("tensorrt", "cuda", "sm90"), precision, Profile(shapes, shapes, shapes), ShapeMode.STATIC,
                     1, {}, quantisation, 1, form)  # fmt: skip


class Workshop:
    """A lowering of one model in a directory; several of them share a cache."""

    def __init__(self, folder: Path, made: onnx.ModelProto, calibrated: bool = True, kit: str = "") -> None:
        source = save(made, folder / "normalised.onnx")
        files = [folder / f"sample{index}.npz" for index in range(3)]
        for index, file in enumerate(files):
            save_set(file, images(index))
        samples = tuple(map(str, files))
        self.events: list[dict[str, Any]] = []
        self.work = folder / f"work{sum(path.is_dir() for path in folder.iterdir())}"
        self.work.mkdir()
        log = BuildLog(self.work / "build.jsonl", self.events.append)
        material = Material(str(source), source_digest(source), samples if calibrated else (), "data", 1, 0, samples,
                            kit=kit)  # fmt: skip
        recall = Recall(folder / "cache", log, self.work, "net")
        self.lowering = Lowering(material, Limits(), self.work, recall, log)

    def told(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]


def inner_types(path: Path) -> set[int]:
    made = onnx.load(path)
    convs = [name for one in made.graph.node if one.op_type == "Conv" for name in one.output]
    return {one.type.tensor_type.elem_type for one in made.graph.value_info if one.name in convs}


def test_fp32_and_other_forms_take_the_normalised_graph(tmp_path: Path) -> None:
    lowering = Workshop(tmp_path, convolutions()).lowering
    assert lowering.graph(candidate(Precision.FP32)) == lowering.normalised
    assert lowering.graph(candidate(Precision.FP16, form=Form.GRAPH)) == lowering.normalised


def test_low_precisions_are_cast_once_and_kept(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, convolutions())
    half, brain = (shop.lowering.graph(candidate(one)) for one in (Precision.FP16, Precision.BF16))
    assert (inner_types(half), inner_types(brain)) == ({TensorProto.FLOAT16}, {TensorProto.BFLOAT16})
    assert shop.lowering.graph(candidate(Precision.FP16)) == half
    first, second = shop.told("lowered")
    assert (first["precision"], first["method"], first["kept"], first["cached"]) == ("fp16", "", (), False)
    assert first["nodes"] == second["nodes"] == 8
    assert first["snr_db"] > 60 > second["snr_db"] > 35
    assert second["notes"] == ("operator set 22 instead of 17",)
    again = Workshop(tmp_path, convolutions())
    assert again.lowering.graph(candidate(Precision.FP16)) == half
    assert [one["cached"] for one in again.told("lowered")] == [True]
    assert again.told("lowering") == []


def test_quantised_graphs_are_cast_for_their_rest(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, convolutions())
    rests = (Precision.FP32, Precision.FP16)
    plain, half = (
        shop.lowering.graph(candidate(Precision.INT8, Quantisation("qdq-symmetric", rest, Ranges.MINMAX)))
        for rest in rests
    )
    assert plain.parent != half.parent
    kinds = [{one.op_type for one in onnx.load(path).graph.node} for path in (plain, half)]
    assert [("QuantizeLinear" in one, "Cast" in one) for one in kinds] == [(True, False), (True, True)]
    assert inner_types(half) == {TensorProto.FLOAT16}
    assert [one["event"] for one in shop.events if one["event"] in ("quantised", "lowered")] == ["quantised", "lowered"]
    assert shop.told("lowered")[0]["method"] == "qdq-symmetric"


def test_a_graph_with_units_in_float_is_cast_for_the_search_and_thrown_away(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, convolutions())
    kept = Quantisation("qdq-symmetric", Precision.FP16, Ranges.MINMAX, ("second",))
    file = shop.lowering.graph(candidate(Precision.INT8, kept))
    assert file.is_relative_to(shop.work)
    assert shop.told("lowered")[0]["method"] == "qdq-symmetric kept1"
    shop.lowering.discard(kept)
    assert not file.exists()
    assert shop.lowering.graph(candidate(Precision.INT8, kept)).exists()


def test_without_samples_the_cases_inputs_are_looked_at(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, convolutions(), calibrated=False)
    shop.lowering.graph(candidate(Precision.FP16))
    assert shop.told("lowered")[0]["snr_db"] > 50


def test_a_refusal_is_kept(tmp_path: Path) -> None:
    made = model([node("Neg", "x", "y")], [value("x", [3], TensorProto.INT32)], [value("y", [3], TensorProto.INT32)])
    shop = Workshop(tmp_path, made)
    for _ in range(2):
        with pytest.raises(TailorbirdError):
            shop.lowering.graph(candidate(Precision.FP16))
    assert len(shop.told("lowering")) == 1


def test_what_was_made_elsewhere_is_taken(tmp_path: Path) -> None:
    """A build kit brings its graphs along: neither data nor a quantiser is needed on the device."""
    shop = Workshop(tmp_path, convolutions())
    wanted = [candidate(Precision.FP16), candidate(Precision.INT8, Quantisation("qdq-symmetric", Precision.FP16,
                                                                               Ranges.MINMAX))]  # fmt: skip
    files = [shop.lowering.graph(one) for one in wanted]
    (tmp_path / "there").mkdir()
    other = Workshop(tmp_path / "there", convolutions())
    other.lowering.take(shop.lowering.made())
    assert [other.lowering.graph(one) for one in wanted] == files
    assert other.events == []


def test_a_kit_does_not_calibrate_on_the_few_samples_it_holds(tmp_path: Path) -> None:
    shop, asked = Workshop(tmp_path, convolutions(), kit="sha256:kit"), candidate(Precision.INT8, SYMMETRIC)
    with pytest.raises(TailorbirdError) as caught:
        shop.lowering.graph(asked)
    assert caught.value.message == (
        "the build kit does not hold the calibrated graph: got qdq-symmetric\nHint: make the kit again"
    )
    assert not shop.told("quantising")
    whole = Workshop(tmp_path, convolutions())
    whole.lowering.graph(asked)
    assert [one["cached"] for one in whole.told("quantised")] == [False], "nothing was kept under the full data's key"


def test_a_runtime_whose_version_is_not_told_does_not_end_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def told(package: str) -> str:  # as where its distribution has another name: onnxruntime-gpu
        if package == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", told)
    assert Workshop(tmp_path, convolutions()).lowering.graph(candidate(Precision.FP16)).exists()


def test_there_is_no_program_of_an_onnx_source(tmp_path: Path) -> None:
    lowering = Workshop(tmp_path, linear()).lowering
    with pytest.raises(TailorbirdError, match="there is no program to compile: expected a PyTorch source"):
        lowering.graph(candidate(Precision.FP32, form=Form.PROGRAM))
