"""The passes on small models: what each finds, and that nothing changes but the graph."""

import warnings

import pytest
import torch

from tailorbird.backends.inductor.kernels import operators
from tailorbird.backends.inductor.kernels.fuse import fused
from tailorbird.backends.inductor.restructure import restructured
from tailorbird.domain.precision import Precision
from tests.unit.backends.inductor import small_models

MAKERS = {"bert": small_models.bert, "vit": small_models.vit, "resnet": small_models.resnet}


@pytest.fixture(scope="module")
def programs():
    torch.manual_seed(0)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in MAKERS.items():
            module, examples = make()
            found[name] = module, examples, small_models.exported(module, examples)
    return found


def rows(examples, batch):
    """Other inputs of the same kind, more of them."""
    torch.manual_seed(batch)
    return [
        small_models.mask(batch, 16) if name == "mask"
        else torch.randint(0, 50, (batch, 16)) if name == "ids"
        else torch.randn(batch, *value.shape[1:])
        for name, value in examples.items()
    ]  # fmt: skip


def answers(module, tensors):
    with torch.no_grad():
        found = module(*tensors)
    return list(found) if isinstance(found, tuple) else [found]


def error(module, graph, tensors):
    """The largest relative error of an output, and that shapes and types are the same."""
    worst = 0.0
    for wanted, got in zip(answers(module, tensors), answers(graph, tensors), strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        worst = max(worst, float((got.double() - wanted.double()).norm() / wanted.double().norm()))
    return worst


@pytest.mark.parametrize("name", MAKERS)
def test_any_shape_computes_the_same(programs, name):
    module, examples, program = programs[name]
    graph = restructured(program, "cpu", Precision.FP32)
    for batch in (2, 3, 5):
        assert error(module, graph, rows(examples, batch)) < 1e-6


@pytest.mark.parametrize("name", MAKERS)
def test_one_shape_computes_the_same_fused_or_not(programs, name):
    module, examples, program = programs[name]
    given = rows(examples, 3)
    graph = restructured(program, "cpu", Precision.FP32, given)
    assert error(module, graph, rows(examples, 3)) < 1e-6
    assert error(module, fused(graph), given) < 1e-6


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("precision", "limit"), [(Precision.FP16, 3e-3), (Precision.BF16, 2e-2)])
def test_half_precision_keeps_the_types_of_inputs_and_outputs(programs, name, precision, limit):
    module, examples, program = programs[name]
    given = rows(examples, 2)
    graph = fused(restructured(program, "cpu", precision, given))
    assert error(module, graph, given) < limit
    kinds = {value.dtype for value in graph.state_dict().values() if value.is_floating_point()}
    assert kinds == {torch.float16 if precision is Precision.FP16 else torch.bfloat16}


def test_what_is_found_in_a_transformer(programs):
    _, examples, program = programs["bert"]
    found = fused(restructured(program, "cpu", Precision.FP32, rows(examples, 3))).meta["matches"]
    assert found["linear layers joined"] == 4  # two of three products in each of two layers
    assert found["masks always true"] == 1
    assert found["lookups made reshapes"] == 1
    assert found["embeddings fused"] == 1
    assert found["attention fused"] == 2
    assert found["norms fused"] == 4
    assert found["linear layers fused"] == 5  # packed products, activations, the pooler


def test_a_fused_transformer_is_made_of_fused_operators_alone(programs):
    _, examples, program = programs["bert"]
    graph = fused(restructured(program, "cpu", Precision.FP32, rows(examples, 3)))
    left = [str(node.target) for node in graph.graph.nodes if node.op == "call_function" and "aten" in str(node.target)]
    assert left == ["aten.select.int"]


def test_the_mask_is_read_from_the_numbers_that_it_came_as(programs):
    _, examples, program = programs["bert"]
    graph = fused(restructured(program, "cpu", Precision.FP32, rows(examples, 3)))
    attention = next(node for node in graph.graph.nodes if node.target is operators.attention)
    assert attention.args[1].op == "placeholder"


def test_a_row_without_any_key_is_the_same(programs):
    module, examples, program = programs["bert"]
    ids, mask = rows(examples, 3)
    mask[1] = 0
    graph = fused(restructured(program, "cpu", Precision.FP32, [ids, mask]))
    assert error(module, graph, [ids, mask]) < 1e-6


def test_what_is_found_in_a_residual_network(programs):
    _, examples, program = programs["resnet"]
    graph = fused(restructured(program, "cpu", Precision.FP32, rows(examples, 2)))
    found = graph.meta["matches"]
    assert found["batch norms folded"] == 12
    assert found["convolutions fused"] == 10  # stem, two for each of three blocks, two pairs, one with its residual
    assert found["pictures fused"] == 2
    names = [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]
    assert names.count("conv_pair") == 2
    assert names[0] == "conv_first"
    assert not [name for name in names if name.startswith("aten")]


def test_a_sum_that_goes_on_is_given_out_beside_its_norm(programs):
    _, examples, program = programs["vit"]
    graph = fused(restructured(program, "cpu", Precision.FP32, rows(examples, 2)))
    names = [getattr(node.target, "__name__", "") for node in graph.graph.nodes]
    assert names.count("linear_sum_norm") == 1
    assert names.count("linear_norm") == 1


def test_a_pass_can_be_left_out(programs):
    module, examples, program = programs["bert"]
    given = rows(examples, 2)
    graph = restructured(program, "cpu", Precision.FP32, given, without=("linear layers joined",))
    assert "linear layers joined" not in graph.meta["matches"]
    assert fused(graph).meta["matches"]["attention fused"] == 0
    assert error(module, graph, given) < 1e-6


class Overwriting(torch.nn.Module):
    """Writes into a view of a tensor that is used again: nothing may be moved past that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, 0].add_(1)
        return y + x


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, 1)


@pytest.mark.parametrize("module", [Overwriting(), Plain()], ids=["overwriting", "plain"])
def test_what_the_passes_do_not_know_passes_through(module):
    x = torch.randn(3, 4)
    with torch.no_grad():
        program = torch.export.export(module, (x,), strict=False)
    for examples in (None, [x]):
        assert torch.equal(restructured(program, "cpu", Precision.FP32, examples)(x)[0], module(x))


def test_the_program_is_left_as_it_was(programs):
    module, examples, program = programs["bert"]
    given = rows(examples, 2)
    before = {name: value.clone() for name, value in program.state_dict.items()}
    restructured(program, "cpu", Precision.FP16, given)
    assert all(torch.equal(before[name], value) for name, value in program.state_dict.items())
    assert all(value.dtype == torch.float32 for value in module.state_dict().values())
