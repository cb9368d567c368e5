"""One engine, compiled for real by AOTInductor on the CPU, and all that may happen to it afterwards."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Backend, Session
from tailorbird.backends.inductor import record, toolchain
from tailorbird.backends.inductor.record import read_record, write_record
from tailorbird.domain.candidate import Candidate, Form
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, InputError
from tests.contract import models
from tests.contract.backend_contract import agree, candidate_of, frozen, unaligned

programs = pytest.importorskip("tests.contract.programs")

pytestmark = pytest.mark.timeout(400)

CASE = models.choice()  # three inputs of three types, one a scalar; three outputs


@pytest.fixture(scope="module")
def backend() -> Backend:
    found = registry.backend("inductor")
    if not found.probe().available:
        pytest.skip(found.probe().reason)
    return found


@pytest.fixture(scope="module")
def candidate(backend: Backend) -> Candidate:
    return candidate_of(backend, CASE, form=Form.PROGRAM)


@pytest.fixture(scope="module")
def engine(backend: Backend, candidate: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one compilation of this file: twenty seconds of a C++ compiler."""
    folder = tmp_path_factory.mktemp("inductor")
    (folder / "engine").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toolchain, "check_toolchain", lambda: None)  # what follows tries it, and fails as loudly
        backend.compile(programs.write(CASE, folder), candidate, folder / "engine")
    return folder / "engine"


@pytest.fixture
def session(backend: Backend, candidate: Candidate, engine: Path) -> Iterator[Session]:
    with backend.open(engine, candidate, CASE.signature) as opened:
        yield opened


def test_it_writes_what_triton_loads_and_a_record(backend: Backend, engine: Path) -> None:
    assert {path.name for path in engine.iterdir()} == {backend.capabilities().format.filename, record.RECORD}
    assert read_record(engine).inputs == ("which", "a", "scale")


def test_it_answers_at_every_edge(session: Session) -> None:
    for rows in (3, 1, 6, 2):
        inputs = {"which": np.arange(rows) % 2 == 0, "a": models.numbers(rows), "scale": np.array(1.5, np.float32)}
        agree(CASE, session.run(inputs), inputs)


def test_any_memory_layout_gives_the_same_answer(session: Session) -> None:
    plain = CASE.inputs["a"]
    for array in (np.repeat(plain, 2)[::2], frozen(plain.copy()), unaligned(plain)):
        agree(CASE, session.run({**CASE.inputs, "a": array}))


def test_outputs_belong_to_the_caller(session: Session) -> None:
    first = session.run(CASE.inputs)
    kept = {name: array.copy() for name, array in first.items()}
    session.run({**CASE.inputs, "scale": np.array(9, np.float32)})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array[...] = 1
    agree(CASE, session.run(CASE.inputs))


def test_shapes_outside_the_profile_never_reach_the_code(session: Session) -> None:
    """Compiled code does not look at shapes: it would read beyond its inputs."""
    long = {"which": np.zeros(7, bool), "a": np.zeros(7, np.float32), "scale": CASE.inputs["scale"]}
    with pytest.raises(InputError, match="lies outside the engine's profile: got 7, expected 1 to 6"):
        session.run(long)


def test_it_runs_in_another_thread_than_it_was_opened_in(session: Session) -> None:
    import threading

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(session.run(CASE.inputs)))
    thread.start()
    thread.join()
    agree(CASE, found[0])


def test_it_says_what_each_operator_computes_in(session: Session) -> None:
    executed = session.executed_precision()
    assert set(executed.values()) == {"fp32", "bool"}


def test_an_open_engine_has_no_files_elsewhere(
    backend: Backend, candidate: Candidate, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed would leave them: a package unpacks itself, weights and all."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with backend.open(engine, candidate, CASE.signature) as session:
        agree(CASE, session.run(CASE.inputs))
        assert [path.name for path in tmp_path.iterdir()] == []
    assert os.environ["TMPDIR"] == str(tmp_path)


def test_a_second_session_of_it_is_independent(backend: Backend, candidate: Candidate, engine: Path) -> None:
    one = backend.open(engine, candidate, CASE.signature)
    with backend.open(engine, candidate, CASE.signature) as two:
        one.close()
        agree(CASE, two.run(CASE.inputs))


@pytest.fixture
def copied(engine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(engine, tmp_path / "engine"))


@pytest.mark.parametrize("name", ["model.pt2", record.RECORD])
@pytest.mark.parametrize("left", [0, 20, 0.5])
def test_a_file_cut_short_is_an_error_and_no_crash(
    backend: Backend, candidate: Candidate, copied: Path, name: str, left: float
) -> None:
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[: int(left * len(data)) if left < 1 else int(left)])
    with pytest.raises(BackendError, match="inductor could not open the engine: got"):
        backend.open(copied, candidate, CASE.signature)


def test_another_release_of_torch_is_refused_before_the_code_is_loaded(
    backend: Backend, candidate: Candidate, copied: Path
) -> None:
    write_record(msgspec.structs.replace(read_record(copied), torch="2.9.1"), copied)
    (copied / "model.pt2").write_bytes(b"never looked at")
    for refusing in (
        lambda: backend.check(copied, candidate),
        lambda: backend.open(copied, candidate, CASE.signature),
    ):
        with pytest.raises(BackendError, match=r"compiled with another release of torch: got .*, expected 2\.9\.1"):
            refusing()


def test_a_cpu_without_its_instructions_is_refused(backend: Backend, candidate: Candidate, copied: Path) -> None:
    write_record(msgspec.structs.replace(read_record(copied), needs=("avx9000",)), copied)
    with pytest.raises(BackendError, match="for another CPU: this one lacks avx9000"):
        backend.open(copied, candidate, CASE.signature)


def test_text_is_refused(backend: Backend, candidate: Candidate, engine: Path) -> None:
    text = models.same(DType.BYTES, np.array([b"a"], object)).signature
    with pytest.raises(BackendError, match="inductor cannot open the engine: got text tensors"):
        backend.open(engine, candidate, text)


def test_an_unknown_compiler_is_refused(backend: Backend, candidate: Candidate, tmp_path: Path) -> None:
    odd = msgspec.structs.replace(candidate, options={"compiler": "magic"})
    with pytest.raises(BackendError, match="unknown compiler 'magic': expected jit or kernels, or none for AOTInd"):
        backend.compile(tmp_path / "program.pt2", odd, tmp_path)
