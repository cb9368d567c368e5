"""NNCF on the OpenVINO graph: what runs quantised, what can be kept in float, and what is refused."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

pytest.importorskip("nncf")

from tailorbird.builder.quantise import nncf_package
from tailorbird.builder.quantise.methods import QuantiseArgs, Quantised, Unit
from tailorbird.builder.quantise.nncf_openvino import quantise
from tailorbird.domain.errors import BackendError, InputError, StepError, UsageError
from tailorbird.domain.quantisation import Ranges
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.nncf_graphs import (
    attention,
    fakes,
    files,
    huge,
    run,
    snr_db,
    stored,
    texts,
    written,
)
from tests.unit.builder.quantise.onnx_graphs import args, const, convolutions, encoder, images, node, numbers, words

IMAGES = [images(seed) for seed in range(2)]
TEXTS = [texts(seed, 4 + seed) for seed in range(4)]
WORDS = [words(seed, 3 + seed) for seed in range(4)]
MODELS = {
    "convolutions": (convolutions, IMAGES, images(9)),
    "attention": (attention, TEXTS, texts(9)),
    "encoder": (encoder, WORDS, words(9)),
}
EACH = pytest.mark.parametrize("name", MODELS)


def made_of(name: str, folder: Path, **changes: Any) -> tuple[QuantiseArgs, Quantised, Any]:
    make, samples, inputs = MODELS[name]
    call = args(make(), folder, "nncf", samples, **changes)
    return call, quantise(call), inputs


def keeping(call: QuantiseArgs, folder: Path, *kept: str) -> tuple[QuantiseArgs, Quantised]:
    """The same with units kept in float, made from what the first call wrote, without its samples."""
    out = folder / f"kept{sum(path.is_dir() for path in folder.iterdir())}"
    out.mkdir()
    wish = msgspec.structs.replace(call.quantisation, kept=kept)
    mixed = msgspec.structs.replace(call, quantisation=wish, base=call.folder, folder=str(out), samples=("no.npz",))
    return mixed, quantise(mixed)


@pytest.mark.parametrize("ranges", [Ranges.MINMAX, Ranges.PERCENTILE])
def test_a_convolutional_net_is_quantised(ranges: Ranges, tmp_path: Path) -> None:
    call, made, inputs = made_of("convolutions", tmp_path, ranges=ranges)
    assert made.model == "model.xml"
    assert files(call) == ["model.bin", "model.xml"]
    assert [(unit.operator, unit.weights) for unit in made.units if unit.weights > 8] == [
        ("Convolution", 216), ("Convolution", 576), ("MatMul", 32)
    ]  # fmt: skip
    assert [unit for unit in made.units if unit.operator == "BatchNormInference"] == []
    assert snr_db(call, inputs) > 20
    assert len(stored(written(call), "i8")) == 2


@EACH
def test_the_signature_is_that_of_the_source(name: str, tmp_path: Path) -> None:
    call, _, inputs = made_of(name, tmp_path)
    source, graph = onnx.load(call.model).graph, written(call)
    assert {port.get_any_name() for port in graph.inputs} == {port.name for port in source.input}
    assert {port.get_any_name() for port in graph.outputs} == {port.name for port in source.output}
    assert all(port.get_partial_shape()[0].is_dynamic for port in (*graph.inputs, *graph.outputs))
    assert {port.get_any_name(): port.get_element_type().to_dtype() for port in graph.inputs} == {
        key: array.dtype for key, array in inputs.items()
    }


def test_a_transformer_is_told_apart(tmp_path: Path) -> None:
    """Elementwise operations stay in float, and the wide channel is smoothed."""
    call, made, inputs = made_of("attention", tmp_path)
    assert made.notes[0] == "as a transformer: normalisation and sums stay in float"
    assert {unit.operator for unit in made.units} == {"MatMul", "ScaledDotProductAttention"}
    assert [unit.name for unit in made.units][:3] == ["project_q", "project_k", "project_v"]
    assert any("nncf_smooth_quant" in one.get_friendly_name() for one in written(call).get_ops())
    assert snr_db(call, inputs) > 15


@EACH
def test_with_every_unit_kept_it_is_the_float_model(name: str, tmp_path: Path) -> None:
    call, made, inputs = made_of(name, tmp_path)
    mixed, left = keeping(call, tmp_path, *(unit.name for unit in made.units))
    assert left.units == ()
    assert fakes(written(mixed)) == stored(written(mixed), "i8") == []
    assert snr_db(call, inputs) < 60 < snr_db(mixed, inputs)


@EACH
def test_one_kept_or_one_left(name: str, tmp_path: Path) -> None:
    """A lone quantised unit brings less error than all of them; a lone kept one leaves the others as they were."""
    call, made, inputs = made_of(name, tmp_path)
    for one in (made.units[0], made.units[-1]):
        others = tuple(unit for unit in made.units if unit != one)
        mixed, left = keeping(call, tmp_path, one.name)
        assert left.units == others
        mixed, left = keeping(call, tmp_path, *(unit.name for unit in others))
        assert left.units == (one,)
        assert snr_db(mixed, inputs) > snr_db(call, inputs)


def test_kept_weights_are_the_sources_own(tmp_path: Path) -> None:
    """Not the smoothed ones, and not those rounded to INT8."""
    call, _, _ = made_of("attention", tmp_path)
    mixed, _ = keeping(call, tmp_path, "project_k", "up")
    source = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(call.model).graph.initializer}
    floats = stored(written(mixed), "f32")
    assert sorted(array.size for array in floats) == [256, 512]
    for name, size in (("wk", 256), ("wide_w", 512)):
        (found,) = [array for array in floats if array.size == size]
        assert sorted(found.ravel()) == sorted(source[name].ravel())


def test_a_kept_units_bias_is_the_sources_own(tmp_path: Path) -> None:
    """NNCF corrects it for the error that quantising makes."""
    nodes = [node("Conv", "x k bias", "c", "conv", pads=[1, 1, 1, 1]), node("Relu", "c", "r"),
             node("Conv", "r last", "y", "last")]  # fmt: skip
    bias = numbers("bias", *range(1, 41))  # NNCF corrects none that it would multiply
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 3, 10, 10])],
                 [const("k", 40, 3, 3, 3), bias, const("last", 3, 40, 3, 3)])  # fmt: skip
    call = args(made, tmp_path, "nncf", [{"x": sample["x"] + 1} for sample in IMAGES])
    (first, _) = quantise(call).units
    mixed, _ = keeping(call, tmp_path, first.name)
    corrected, own = (next(array for array in stored(written(one), "f32") if array.size == 40) for one in (call, mixed))
    assert np.array_equal(own.ravel(), onnx.numpy_helper.to_array(bias))
    assert not np.array_equal(corrected, own)


def test_units_beside_a_kept_one_go_on_reading_quantised_values(tmp_path: Path) -> None:
    """Both products read one transposed value, quantised above the transposition."""
    nodes = [node("Transpose", "x", "t", "turn", perm=[0, 2, 1]), node("MatMul", "t a", "ta", "left"),
             node("MatMul", "t b", "tb", "right"), node("Concat", "ta tb", "y", "both", axis=-1)]  # fmt: skip
    made = model(nodes, [value("x", ["n", 16, 6])], [value("y", ["n", 6, 16])], [const("a", 16, 8), const("b", 16, 8)])
    samples = [{"x": np.random.default_rng(seed).standard_normal((2, 16, 6)).astype(np.float32)} for seed in range(4)]
    call = args(made, tmp_path, "nncf", samples)
    assert [unit.name for unit in quantise(call).units] == ["left", "right"]
    mixed, left = keeping(call, tmp_path, "left")
    assert left.units == (Unit("right", "MatMul", 128),)
    (whole,), (part,), (exact,) = (run(path, samples[0]) for path in (
        f"{call.folder}/model.xml", f"{mixed.folder}/model.xml", call.model))  # fmt: skip
    assert np.abs(part - exact)[..., :8].max() < 1e-5 < np.abs(whole - exact)[..., :8].max()
    assert np.array_equal(part[..., 8:], whole[..., 8:])


def test_an_unknown_unit_is_refused(tmp_path: Path) -> None:
    call, _, _ = made_of("attention", tmp_path)
    with pytest.raises(UsageError, match=r"no quantised unit 'projectq'\nHint: did you mean 'project_q'\?"):
        keeping(call, tmp_path, "projectq")
    with pytest.raises(UsageError, match=r"no quantised unit 'zzz'$"):
        keeping(call, tmp_path, "zzz")


def test_without_samples_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to calibrate on: got no sample"):
        quantise(args(convolutions(), tmp_path, "nncf", []))


def test_other_ranges_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nncf does not find ranges by entropy: expected minmax, percentile"):
        made_of("convolutions", tmp_path, ranges=Ranges.ENTROPY)


def test_the_vendors_refusal_is_ours(tmp_path: Path) -> None:
    samples = [{"x": np.zeros((1, 5, 12, 12), np.float32)}]
    with pytest.raises(BackendError, match=r"nncf could not quantise the model: got .*shape"):
        quantise(args(convolutions(), tmp_path, "nncf", samples))


def test_constants_that_are_not_finite_are_named(tmp_path: Path) -> None:
    made = convolutions()
    huge(made, "k1")
    with pytest.raises(
        StepError, match=r"quantising made a constant of '.*fq_weights.*' NaN or infinite: got \d+ such"
    ):
        quantise(args(made, tmp_path, "nncf", IMAGES))


def test_a_percentile_leaves_outliers_out(tmp_path: Path) -> None:
    def widest(ranges: Ranges) -> float:
        folder = tmp_path / ranges
        folder.mkdir()
        samples = [{"x": np.random.default_rng(seed).standard_normal((4, 3, 60, 60)).astype(np.float32)}
                   for seed in range(2)]  # fmt: skip
        for sample in samples:
            sample["x"][0, 0, 0, 0] = 1000
        made = model([node("Conv", "x k", "y", "conv")], [value("x", ["n", 3, "h", "w"])],
                     [value("y", ["n", 8, None, None])], [const("k", 8, 3, 3, 3)])  # fmt: skip
        call = args(made, folder, "nncf", samples, ranges=ranges)
        quantise(call)
        (fake,) = [one for one in written(call).get_ops() if one.get_type_name() == "FakeQuantize"]
        return float(fake.input_value(2).get_node().data.max())

    assert widest(Ranges.PERCENTILE) < 10
    assert widest(Ranges.MINMAX) > 900


@pytest.mark.parametrize(
    ("name", "saturates", "bits", "notes"),
    [
        ("convolutions", True, 7, ["weights in 7 bits: without VNNI this CPU saturates 8-bit products"]),
        ("convolutions", False, 8, []),
        (
            "attention",
            True,
            8,
            ["weights of the first layer in 7 bits: without VNNI this CPU saturates 8-bit products"],
        ),
    ],
)
def test_weights_use_seven_bits_where_sums_saturate(
    name: str, saturates: bool, bits: int, notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nncf_package, "seven_bits", lambda: saturates)
    call, made, _ = made_of(name, tmp_path)
    most = max(np.abs(array.astype(int)).max() for array in stored(written(call), "i8"))
    assert 2 ** (bits - 2) < most <= 2 ** (bits - 1)
    assert [note for note in made.notes if "bits" in note] == notes


def test_the_same_call_writes_the_same(tmp_path: Path) -> None:
    first, second = (args(attention(), tmp_path, "nncf", TEXTS) for _ in range(2))
    second = msgspec.structs.replace(second, model=first.model)
    assert quantise(first) == quantise(second)
    assert Path(first.folder, "model.bin").read_bytes() == Path(second.folder, "model.bin").read_bytes()
