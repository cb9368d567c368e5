"""The contract, held to Inductor on the CPU and on a GPU. Each program is compiled once: a compiler takes seconds."""

import shutil
from pathlib import Path

import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Backend
from tailorbird.backends.inductor.backend import InductorBackend, InductorCudaBackend
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tests.contract import models
from tests.contract.backend_contract import BackendContract, candidate_of
from tests.contract.models import Case

programs = pytest.importorskip("tests.contract.programs")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


def remembering(kind: type[InductorBackend], compiled: Path) -> Backend:
    """The real one, which takes what it has compiled before in this run out of a folder."""

    class Remembering(kind):  # type: ignore[misc, valid-type]
        def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
            place = compiled / digest_bytes(f"{model.stem} {candidate}".encode())[:16]
            if model.suffix == ".onnx" or not place.exists():
                super()._compile(model, candidate, workdir)
                shutil.copytree(workdir, place, dirs_exist_ok=True)
            else:
                shutil.copytree(place, workdir, dirs_exist_ok=True)

    assert type(registry.backend(kind.name)) is kind
    return Remembering()


class InductorContract(BackendContract):
    kind: type[InductorBackend]
    types = (DType.BOOL, DType.UINT8, DType.INT8, DType.INT16, DType.INT32, DType.INT64, DType.FP16, DType.FP32,
             DType.FP64)  # fmt: skip
    times_layers = False
    fuses = False

    @pytest.fixture
    def backend(self, compiled: Path) -> Backend:
        return remembering(self.kind, compiled)

    def source(self, case: Case, folder: Path) -> Path:
        return Path(programs.write(case, folder))

    @pytest.mark.parametrize("content", [b"not a model", b"\x08\x08\x12\xff\xff"])
    def test_a_broken_model_is_a_backend_error(self, backend: Backend, tmp_path: Path, content: bytes) -> None:
        """It is told before torch looks at it."""
        model = tmp_path / "program.pt2"
        model.write_bytes(content)
        with pytest.raises(BackendError, match=r"^the file is no exported program: got File is not a zip file"):
            backend.compile(model, candidate_of(backend, models.dense(), ShapeMode.STATIC), tmp_path)

    test_a_profile_names_layers_with_their_times_and_nodes = None
    test_what_was_fused_is_named = None
    test_layers_come_in_execution_order = None


@pytest.mark.heavy
class TestInductor(InductorContract):
    kind = InductorBackend


@pytest.mark.gpu
class TestInductorCuda(InductorContract):
    kind = InductorCudaBackend
