"""Engines of fused operators: written, opened again, refused where they do not belong. Here they run as PyTorch."""

import json
import warnings

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from tailorbird.backends.inductor import kernels
from tailorbird.backends.inductor.kernels import graphfile
from tailorbird.backends.inductor.kernels.engine import open_engine, prepare
from tailorbird.backends.inductor.kernels.launching import LIBRARY, Options, problem
from tailorbird.backends.inductor.kernels.tuning import Tuned, Tuning, _chosen, problems
from tailorbird.backends.inductor.restructure import restructured
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision
from tests.unit.backends.inductor import small_models


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    module, examples = small_models.bert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module, list(examples.values()), small_models.exported(module, examples)


def error(found, expected):
    return max(
        float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_an_engine_opens_and_answers_as_the_program_does(bert, tmp_path, precision):
    module, given, program = bert
    kernels.build(restructured(program, "cpu", precision, given), given, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "graph.json", "weights.safetensors", "tuned.json", "options.json"}  # fmt: skip
    found = open_engine(tmp_path, "cpu")(list(given))
    with torch.no_grad():
        expected = module(*given)
    assert error(found, expected) < (1e-6 if precision is Precision.FP32 else 3e-3)
    assert all(one.dtype == torch.float32 for one in found)


def test_outputs_leave_in_fp32_without_a_cast_of_their_own(bert):
    _, given, program = bert
    graph = prepare(restructured(program, "cpu", Precision.FP16, given), Options())
    assert graph.meta["matches"]["outputs fused"] == 2
    assert "aten.to" not in graph.code


def test_gelu_may_be_fast_in_half_precision_only(bert):
    _, given, program = bert
    for precision, fast in ((Precision.FP16, True), (Precision.FP32, False)):
        code = prepare(restructured(program, "cpu", precision, given), Options()).code
        assert ("gelu_fast" in code) is fast


def test_large_layers_run_in_eight_bits(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.GELU(), torch.nn.Linear(512, 256)).eval()
    x = torch.randn(300, 256)
    with torch.no_grad():
        program, expected = torch.export.export(module, (x,), strict=False), module(x)
    graph = restructured(program, "cpu", Precision.FP16, [x])
    kernels.build(graph, [x], tmp_path, Options(eight_bits=True))
    assert graph.meta["matches"]["layers in eight bits"] == 2
    found = open_engine(tmp_path, "cpu")([x])
    assert 1e-3 < error(found, [expected]) < 0.06  # three bits of fraction
    kinds = {str(value.dtype) for value in graph.state_dict().values()}
    assert "torch.float8_e4m3fn" in kinds


def test_an_engine_of_another_gpu_is_refused(bert, tmp_path, monkeypatch):
    _, given, program = bert
    kernels.build(restructured(program, "cpu", Precision.FP32, given), given, tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Another")
    monkeypatch.setattr(graphfile, "load", lambda folder, device: None)
    with pytest.raises(BackendError, match="tuned on another GPU: got NVIDIA Another, expected cpu"):
        kernels.open(tmp_path)


def test_only_operators_are_written_and_read(tmp_path):
    graph = torch.fx.Graph()
    graph.output(graph.call_function(print, (graph.placeholder("x"),)))
    with pytest.raises(BackendError, match="the graph holds what cannot be written"):
        graphfile.save(torch.fx.GraphModule(torch.nn.Module(), graph), tmp_path)
    nodes = [["call_function", "a", "os::system", [], {"items": {}}]]
    (tmp_path / "graph.json").write_bytes(msgspec.json.encode(nodes))
    save_file({"nothing": torch.zeros(1)}, str(tmp_path / "weights.safetensors"))
    with pytest.raises(BackendError, match="names an operator that is not PyTorch's: got os::system"):
        graphfile.load(tmp_path, "cpu")


X = ["placeholder", "x", "x", [], {"items": {}}]
CODE = '__import__("pathlib").Path("ran").touch()'


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (["placeholder", "y", f"y={CODE}", [], {"items": {}}], "a name that is none: got 'y=__import__"),
        (["placeholder", f"y={CODE}", "y", [], {"items": {}}], "a name that is none: got 'y=__import__"),
        (["call_function", "y", "aten::relu.default", [], {"items": {f"self={CODE}": {"node": "x"}}}],
         "the graph holds a name that is none: got 'self=__import__"),
        (["get_attr", "y", "y", [], {"items": {}}], "the graph holds what is never written: got 'get_attr y'"),
        (["call_method", "y", "numpy", [{"node": "x"}], {"items": {}}], "is never written: got 'call_method y'"),
        (["call_function", "y", "aten::from_file.default", ["/etc/passwd"], {"items": {}}],
         "names an operator that is not PyTorch's: got aten::from_file.default"),
        (["call_function", "y", "aten::__class__.mro", [], {"items": {}}], "names an operator that is not PyTorch's"),
        (["call_function", "y", "tailorbird::none", [], {"items": {}}], "names an operator that is not PyTorch's"),
        (["call_function", "y", "tailorbird::linear", [{"node": "x"}, {"node": "x"}, None, "load"], {"items": {}}],
         "names an activation that is none: got 'load', expected gelu, gelu_fast, gelu_tanh, relu, tanh"),
        (["call_function", "y", "aten::relu.default", [{"dtype": "os"}], {"items": {}}], "never written: got 'dtype"),
        (["call_function", "y", "aten::relu.default", [{"module": "os"}], {"items": {}}], "never written: got 'module"),
        (["call_function", "y"], "the graph cannot be read: got Expected `array` of length 5"),
    ],
)  # fmt: skip
def test_no_text_of_a_graph_runs(node, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graph.json").write_bytes(msgspec.json.encode([X, node]))
    save_file({"nothing": torch.zeros(1)}, str(tmp_path / "weights.safetensors"))
    with pytest.raises(BackendError) as refused:
        graphfile.load(tmp_path, "cpu")
    assert said in refused.value.message
    assert not (tmp_path / "ran").exists()


def test_a_problem_is_told_by_shapes_and_the_two_half_types_are_one(bert):
    _, given, program = bert
    keys = {
        precision: {
            one.key for one in problems(prepare(restructured(program, "cpu", precision, given), Options()), given)
        }
        for precision in (Precision.FP16, Precision.BF16)
    }
    assert keys[Precision.FP16] == keys[Precision.BF16]
    assert json.loads(problem("mean_pool", (torch.zeros(1, 2),))) == ["mean_pool", ["float32[1x2]"]]


def test_the_library_is_taken_where_it_gains_enough():
    ours = ("tile", 64)
    assert _chosen({LIBRARY: 10.0, ours: 10.4}, {}).config == ours
    assert _chosen({LIBRARY: 10.0, ours: 10.6}, {}).config == LIBRARY
    assert _chosen({LIBRARY: 10.0}, {"out of resource": 3}) == Tuned(LIBRARY, 10.0, 10.0, 1, {"out of resource": 3})


def test_earlier_answers_are_read_where_the_gpu_is_the_same(tmp_path, monkeypatch):
    from tailorbird.backends.inductor.kernels.engine import remembered

    known = Tuning("a GPU", {"key": Tuned(LIBRARY, 1.0, 1.0, 1)}, 2.0)
    (tmp_path / "tuned.json").write_bytes(msgspec.json.encode(known))
    monkeypatch.setenv("TAILORBIRD_TUNED", str(tmp_path / "tuned.json"))
    assert remembered("a GPU") == known
    assert remembered("another GPU") == Tuning("another GPU")
