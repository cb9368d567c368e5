"""The real TensorRT-RTX builder takes what our lowering writes, and plans it in the precision that was asked for.

No device is needed to build: the plans are not run here. ``make tensorrt`` does the same with every model of the zoo.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import tailorbird
from bench import zoo
from tailorbird.backends import registry
from tailorbird.backends.nvidia.plan import read_record
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.graph.normalise import normalise
from tailorbird.builder.precision.lower import lower
from tailorbird.builder.precision.records import LowerArgs
from tailorbird.builder.quantise.methods import QuantiseArgs
from tailorbird.builder.quantise.onnx_symmetric import quantise
from tailorbird.builder.sources.onnx_file import write_model
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.errors import NoEngineError
from tailorbird.domain.outcome import Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation, Ranges
from tailorbird.domain.signature import Shapes
from tailorbird.domain.target import Target
from tests.unit.builder import graphs
from tests.unit.builder.quantise import onnx_graphs

onnx = pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has no wheels for this platform")

ADA = Target.parse("tensorrt_rtx:cuda:sm89")
"""The first architecture with FP8."""

LOW = (Precision.FP16, Precision.BF16)
METHODS = {Precision.INT8: "qdq-symmetric", Precision.FP8: "qdq-fp8"}


class Network(msgspec.Struct):
    """A normalised model, two sets of its inputs, and the range of shapes it is built for."""

    model: Any
    samples: list[dict[str, Any]]
    profile: Profile


def around(shapes: Shapes) -> Profile:
    """From one row to four times as many."""
    small, large = ({name: (rows or dims[0] * 4, *dims[1:]) for name, dims in shapes.items()} for rows in (1, 0))
    return Profile(small, dict(shapes), large)


def convolutions() -> Network:
    samples = [onnx_graphs.images(seed) for seed in range(2)]
    return Network(onnx_graphs.convolutions(), samples, around({"x": samples[0]["x"].shape}))


def encoder() -> Network:
    samples = [onnx_graphs.words(seed) for seed in range(2)]
    return Network(onnx_graphs.encoder(), samples, around({name: array.shape for name, array in samples[0].items()}))


def of_zoo(name: str) -> Network:
    known = zoo.get(name)
    model = normalise(onnx.load(zoo.path(name))).model
    return Network(model, [known.sample(seed) for seed in range(2)], around(known.shapes))


def ppocr_cls() -> Network:
    return of_zoo("ppocr-cls")


def magika() -> Network:
    return of_zoo("magika")


def planned(network: Network, graph: Path, precision: Precision, folder: Path) -> dict[str, int]:
    """Layers by the precision that the builder planned them in."""
    backend, engine = registry.backend("tensorrt_rtx"), folder / "engine"
    engine.mkdir()
    candidate = Candidate(ADA, precision, network.profile, ShapeMode.DYNAMIC, threads=1, form=Form.CAST)
    backend.compile(graph, candidate, engine)
    return read_record(engine).planned


def lowered(network: Network, precision: Precision, folder: Path) -> Path:
    """The file that a candidate of that precision is compiled from."""
    source, out = folder / "model.onnx", folder / "lowered"
    write_model(network.model, source)
    out.mkdir()
    files = [str(folder / f"{number}.npz") for number in range(len(network.samples))]
    for file, sample in zip(files, network.samples, strict=True):
        save_set(Path(file), sample)
    if precision in LOW:
        return out / lower(LowerArgs(str(source), precision, tuple(files), str(out), 1)).model
    if precision in METHODS:
        asked = Quantisation(METHODS[precision], ranges=Ranges.MINMAX)
        return out / quantise(QuantiseArgs(asked, str(source), "", tuple(files), str(out), 1)).model
    return source


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("make", [convolutions, encoder], ids=lambda make: make.__name__)
def test_small_networks_run_in_what_was_asked_for(make: Any, precision: Precision, tmp_path: Path) -> None:
    network = make()
    found = planned(network, lowered(network, precision, tmp_path), precision, tmp_path)
    assert found[precision] > 0
    assert set(found) <= {precision, "fp32", "bool", "int64", "int32", "uint8"}  # the last: eight bits that are moved


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("make", [ppocr_cls, magika], ids=lambda make: make.__name__)
def test_models_of_the_zoo_run_in_what_was_asked_for(make: Any, precision: Precision, tmp_path: Path) -> None:
    network = make()
    found = planned(network, lowered(network, precision, tmp_path), precision, tmp_path)
    assert found[precision] > 0


def test_what_is_beside_int8_can_be_fp16(tmp_path: Path) -> None:
    network = convolutions()
    quantised = lowered(network, Precision.INT8, tmp_path)
    rest = tmp_path / "rest"
    rest.mkdir()
    files = tuple(str(tmp_path / f"{number}.npz") for number in range(2))
    model = lower(LowerArgs(str(quantised), Precision.FP16, files, str(rest), 1)).model
    found = planned(network, rest / model, Precision.INT8, tmp_path)
    assert found["int8"] > 0
    assert found["fp16"] > 0


def test_what_the_builder_refuses_is_a_row_with_its_reason(tmp_path: Path) -> None:
    """A determinant, which the parser does not know, in a whole build for a device that is not here."""
    nodes = [onnx_graphs.node("Det", "x", "y", "area")]
    inputs, outputs = [graphs.value("x", [3, 2, 2])], [graphs.value("y", [3])]
    source = graphs.save(graphs.model(nodes, inputs, outputs, []), tmp_path / "net.onnx")
    events: list[dict[str, Any]] = []
    with pytest.raises(NoEngineError) as nothing:
        tailorbird.build(
            source, target=str(ADA), precisions=("fp32",), options=("tf32=false",), observers=(events.append,)
        )
    assert {outcome.status for outcome in nothing.value.outcomes} == {Status.FAILED}
    for outcome in nothing.value.outcomes:
        assert outcome.reason.startswith("the runtime's parser refused the graph: got Det 'area': ")
    said = [event["messages"] for event in events if event["event"] == "said"]
    assert len(said) == len(nothing.value.outcomes)
    assert all(any(line.startswith("error: Det 'area'") for line in lines) for lines in said)
