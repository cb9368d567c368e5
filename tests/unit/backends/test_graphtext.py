"""No text of a program's graph runs, and graphs as people write them are let through."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends.graphtext import check_graph, is_operator
from tailorbird.backends.program import Names, load_program, save_program
from tailorbird.domain.errors import BackendError
from tests.unit.backends.archives import members, rewritten, saved
from tests.unit.backends.inductor import small_models

torch = pytest.importorskip("torch")

Record = dict[str, Any]
ROWS = torch.export.Dim.AUTO


def renamed(tree: Any, old: str, new: str) -> Any:
    """The tree with another name wherever the old one stood, as key or as value."""
    if isinstance(tree, dict):
        return {new if key == old else key: renamed(value, old, new) for key, value in tree.items()}
    if isinstance(tree, list):
        return [renamed(one, old, new) for one in tree]
    return new if tree == old else tree


def graph(record: Record) -> Record:
    found: Record = record["graph_module"]["graph"]
    return found


def signature(record: Record) -> Record:
    found: Record = record["graph_module"]["module_call_graph"][0]["signature"]
    return found


def call(target: str, *arguments: Record) -> Record:
    return {"target": target, "name": "more", "inputs": [{"name": "", "arg": one, "kind": 1} for one in arguments],
            "outputs": [{"as_tensor": {"name": "more"}}], "metadata": {}}  # fmt: skip


def called(target: str, *arguments: Record) -> Callable[[Record, str], None]:
    """With a call in front of all others; ``CODE`` stands for the text that would be code."""

    def edit(record: Record, code: str) -> None:
        values = graph(record)["tensor_values"]
        values["more"] = copy.deepcopy(next(iter(values.values())))
        graph(record)["nodes"].insert(0, renamed(call(target, *arguments), "CODE", code))

    return edit


def in_the_place_of(name: str, pattern: str) -> Callable[[Record, str], None]:
    def edit(record: Record, code: str) -> None:
        record.update(renamed(record, name, pattern.replace("CODE", code)))

    return edit


def argument_name(record: Record, code: str) -> None:
    signature(record)["forward_arg_names"] = [f"x={code}"]


def keyword(record: Record, code: str) -> None:
    graph(record)["nodes"][0]["inputs"][0]["name"] = f"x={code}, y"


def weight(record: Record, code: str) -> None:
    """FX writes ``getattr(self, "...")`` for what is no identifier."""
    for spec in record["graph_module"]["signature"]["input_specs"]:
        if "parameter" in spec:
            spec["parameter"]["parameter_name"] = f'w"),{code},getattr(self,"w'


def context(record: Record, _: str) -> None:
    spec = json.loads(signature(record)["in_spec"])
    spec[1]["children_spec"][1]["context"] = json.dumps([{"__enum__": True, "fqn": "this:x", "name": "y"}])
    signature(record)["in_spec"] = json.dumps(spec)


def source(record: Record, code: str) -> None:
    graph(record)["nodes"][0]["metadata"]["from_node"] = json.dumps([{"name": code}])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (in_the_place_of("x", "x=CODE"), "a name that is none: got"),
        (in_the_place_of("linear", "linear=CODE;linear"), "a name that is none: got"),
        (argument_name, "a name that is none: got"),
        (keyword, "a name that is none: got"),
        (weight, "a text that is none of an exported program's: got 'w\"),__import__"),
        (context, 'a container that is none: got \'[{"__enum__"'),
        (source, "a text that is none of an exported program's: got"),
        (called("torch.os.system", {"as_string": "CODE"}),
         "an operator that is none of PyTorch's on tensors and sizes: got 'torch.os.system', expected ATen's\nHint"),
        (called("torch.ops.higher_order.wrap", {"as_operator": "torch.os.popen"}), "an operator"),
        (called("torch.ops.higher_order.cond", {"as_operator": "torch.os.popen"}), "an object or a function as"),
        (called("torch.ops.aten.from_file.default", {"as_string": "/etc/passwd"}), "an operator that is none"),
        (called("torch.ops.aten.save.default", {"as_string": "CODE"}), "an operator that is none"),
        (called("torch.ops.aten.add.overloads"), "an operator that is none"),
        (called("torch.ops.aten.__class__.mro"), "an operator that is none"),
        (called("_operator.attrgetter", {"as_string": "x"}), "an operator that is none"),
        (called("math.sumprod"), "an operator that is none"),
        (called("#space:operator"), "an operator that is none"),
        (called("torch.ops.aten._assert_async.msg", {"as_string": '"), system("ls'}), "a string that ends itself: got"),
    ],
)  # fmt: skip
def test_no_text_of_a_graph_runs(edit: Callable[[Record, str], None], said: str, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", saved(tmp_path)
    code = f'__import__("pathlib").Path("{ran}").touch()'
    rewritten(path, lambda record: edit(record, code))
    with pytest.raises(BackendError) as refused:
        load_program(path)
    assert refused.value.message.startswith("the exported program holds ")
    assert said in refused.value.message
    assert not ran.exists()
    assert "this" not in sys.modules


def test_operators_that_only_a_newer_torch_has_are_left_to_torch(tmp_path: Path) -> None:
    path = saved(tmp_path)
    record = json.loads(members(path)["p/models/model.json"])
    record["torch_version"] = "9.9.0"
    called("torch.ops.aten.shimmer.default")(record, "")
    check_graph(record)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        (("aten", "add", "Tensor"), True),
        (("aten", "__and__", "Tensor"), True),
        (("prims", "convert_element_type", "default"), True),
        (("aten", "add", "nothing"), False),
        (("aten", "add", "op"), False),
        (("aten", "name", "upper"), False),
        (("aten", "from_file", "out"), False),
    ],
)
def test_operators(name: tuple[str, str, str], good: bool) -> None:
    assert is_operator(*name) is good


class Odd(torch.nn.Module):  # type: ignore[misc]
    """Branches, regions, sizes that are computed, a size that depends on data, and names that the format has, too."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleDict({"a b:3x+": torch.nn.Linear(4, 4)})
        self.dropout, self.places = torch.nn.Dropout(), torch.nn.Embedding(9, 4)

    def forward(self, name: Any, target: dict[str, Any], *, input: Any) -> Any:  # noqa: A002
        rows = name.shape[0]
        wide = torch.einsum("ij,kj->ik", name, self.dropout(self.parts["a b:3x+"](name)))
        wide = torch.nn.functional.interpolate(wide[None, None], scale_factor=1.7, mode="bilinear")[0, 0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = name @ target["type"].T
        with torch.no_grad():
            branch = torch.cond(name.sum() > 0, torch.sin, torch.cos, (name,))
        kept = torch.nn.functional.scaled_dot_product_attention(branch[None], name[None], input[None])
        count = input.sum().to(torch.int64).item()
        torch._check(count >= 2)
        torch._check(count < 100)
        return wide, half.float(), kept, torch.zeros(max(rows // 2 + 1, int(rows * 0.5), 3)), torch.zeros(count), rows


def odd() -> Any:
    x = torch.ones(6, 4)
    shapes = {"name": {0: ROWS}, "target": {"type": {0: ROWS}}, "input": {0: ROWS}}
    return torch.export.export(Odd(), (x, {"type": x}), {"input": x}, dynamic_shapes=shapes, strict=False)


def comes_back(program: Any, path: Path) -> Any:
    asked, given = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    names = Names(tuple(f"in{at}" for at in range(len(asked))), tuple(f"out{at}" for at in range(len(given))))
    save_program(program, names, path)
    back, found = load_program(path)
    assert found == names
    return back


@pytest.mark.parametrize("family", ["bert", "vit", "resnet"])
def test_models_as_they_are_written_come_back(family: str, tmp_path: Path) -> None:
    module, examples = getattr(small_models, family)()
    program = small_models.exported(module, examples)
    back = comes_back(program, tmp_path / "p.pt2")
    with torch.no_grad():
        torch.testing.assert_close(back.module()(**examples), module(**examples))


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_what_a_program_may_do_besides_comes_back(tmp_path: Path) -> None:
    program = odd()
    back = comes_back(program, tmp_path / "p.pt2")
    x = torch.ones(6, 4)
    torch.testing.assert_close(back.module()(x, {"type": x}, input=x)[1], torch.full((6, 6), 4.0))
    targets = {str(node.target) for node in back.graph.nodes if node.op == "call_function"}
    assert {"cond", "wrap_with_autocast"} <= targets
    comes_back(program.run_decompositions(), tmp_path / "decomposed.pt2")


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["Bert", "ResNet"])
def test_models_of_the_bench_come_back(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, dict[str, Any]] = {
        "Bert": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "return_dict": False},
    }
    made = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**sizes[family])).eval()
    made.config.return_dict = False
    x = torch.ones(2, 16, dtype=torch.int64) if family == "Bert" else torch.ones(2, 3, 64, 64)
    for shapes in (None, ({0: ROWS},)):
        comes_back(torch.export.export(made, (x,), dynamic_shapes=shapes, strict=False), tmp_path / "p.pt2")
