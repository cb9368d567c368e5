"""Exported programs in build kits: made here, for a device that is elsewhere, and compiled without the user's code."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tailorbird
from tailorbird.backends import registry
from tailorbird.backends.program import load_program
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.kit.ground import EXPORTED, KitGround
from tailorbird.builder.lowering.lowering import Lowering, Material
from tailorbird.builder.recall import Recall
from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.config import Limits
from tailorbird.domain.digest import digest_file
from tailorbird.domain.errors import BundleError, UsageError
from tailorbird.domain.kit import decode_kit, pack_kit, unpack_kit
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target
from tailorbird.repository.signing.trust import verified_kit
from tests.integration.places import own_place
from tests.integration.test_build import cli, network
from tests.unit.builder.graphs import save

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

_PROGRAM = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4)

    def forward(self, x):
        return {"y": self.two(torch.relu(self.one(x)))}

def make():
    torch.manual_seed(0)
    return Net(), {"x": torch.ones(2, 16)}
"""
ON_GPU = "inductor_cuda:cuda:sm90"


X = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache and keys of this module's own."""
    with own_place(tmp_path_factory.mktemp("programs")) as folder:
        yield folder


@pytest.fixture(scope="module")
def program(place: Path) -> str:
    """A PyTorch source, importable in this folder and nowhere else."""
    (place / "kit_nets.py").write_text(_PROGRAM)
    return "kit_nets:make"


@pytest.fixture(scope="module")
def program_kit(place: Path, program: str) -> Path:
    """For a GPU that is not here."""
    return tailorbird.make_kit(program, "program.kit", target=ON_GPU)


def called(rows: Any) -> Any:
    scope: dict[str, Any] = {}
    exec(_PROGRAM, scope)
    with torch.inference_mode():
        return scope["make"]()[0](torch.from_numpy(rows))["y"].numpy()


def test_a_program_travels_as_a_graph_for_a_gpu_that_is_not_here(program_kit: Path, tmp_path: Path) -> None:
    found = verified_kit(unpack_kit(program_kit, tmp_path / "out"))
    assert found.manifest.config.target == ON_GPU
    assert found.manifest.provenance.ingredients["torch version"] == torch.__version__
    graph, names = load_program(found.folder / EXPORTED)
    np.testing.assert_allclose(graph.module()(torch.from_numpy(X))[0].detach().numpy(), called(X), atol=1e-6)
    assert names.inputs == ("x",)
    with zipfile.ZipFile(found.folder / EXPORTED) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    assert b"kit_nets" not in text
    assert b"Net" not in text
    with pytest.raises(UsageError, match=f"the build kit is for {ON_GPU}, which this machine is not: got ."):
        tailorbird.build(program_kit)


def test_candidates_are_compiled_from_the_kits_program(program_kit: Path, tmp_path: Path) -> None:
    """Nothing looks for the source: the material names none."""
    found = verified_kit(unpack_kit(program_kit, tmp_path / "out"))
    log = BuildLog(tmp_path / "build.jsonl")
    ground, recall = KitGround(found, log), Recall(tmp_path / "cache", log, tmp_path, "net")
    prepared, cases = ground.lay()
    material = Material(str(ground.normalised), prepared.normalised_digest, (), "", 1, 0, kit=ground.kit)
    lowering = Lowering(material, Limits(), tmp_path, recall, log)
    assert ground.has_program
    ground.lower(lowering)
    candidate = Candidate(Target.parse(ON_GPU), Precision.FP16, cases.profile, ShapeMode.STATIC, 1, form=Form.PROGRAM)
    assert lowering.graph(candidate) == found.folder / EXPORTED


def test_an_altered_program_is_refused_before_torch_reads_it(program_kit: Path, tmp_path: Path) -> None:
    folder = unpack_kit(program_kit, tmp_path / "out")
    whole = (folder / EXPORTED).read_bytes()
    (folder / EXPORTED).write_bytes(whole.replace(b"aten.relu", b"aten.tanh"))
    pack_kit(folder, tmp_path / "evil.kit")
    with pytest.raises(BundleError, match=r"'program/program.pt2' of .* was altered"):
        tailorbird.build(tmp_path / "evil.kit")


def test_a_graph_has_no_program_to_compile(tmp_path: Path) -> None:
    source = save(network(rows=2), tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="no backend takes this model: got inductor_cuda: compiles PyTorch programs"):
        tailorbird.make_kit(source, tmp_path / "net.kit", target=ON_GPU)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_a_program_is_compiled_and_gated_in_another_place(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder, another cache, another process: the user's module is nowhere to be found."""
    if not registry.backend("inductor").probe().available:
        pytest.skip("there is no C++ compiler")
    kit = tailorbird.make_kit(program, tmp_path / "net.kit", backends=["inductor"], precisions=["fp32"], threads=[1])
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setenv("TAILORBIRD_CACHE", str(there / "cache"))
    done = cli("build", kit, "-o", "net.engine", "--keep-kit", "--json", cwd=there, timeout=400)
    assert done.returncode == 0, done.stderr
    engine = there / "net.engine"
    manifest = bundlefile.manifest_of(engine)
    assert (manifest.qualified, manifest.format.platform) == (True, "torch_aoti")
    with tailorbird.open(engine) as loaded:
        (found,) = loaded.run({"x": X}).values()
    np.testing.assert_allclose(found, called(X), atol=1e-5)
    kept = bundlefile.unpack(engine, tmp_path / "opened") / bundle.KEPT_KIT
    before = unpack_kit(kit, tmp_path / "before")
    assert digest_file(kept / EXPORTED) == digest_file(before / EXPORTED)
    assert decode_kit((kept / bundle.MANIFEST).read_bytes()).config.backends == ("inductor",)
