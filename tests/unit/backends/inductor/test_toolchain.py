"""The compiler trap: found once in a process of its own, kept, and said clearly. Compilers here are scripts."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailorbird.backends.inductor import toolchain
from tailorbird.backends.inductor.backend import InductorBackend
from tailorbird.backends.inductor.toolchain import TryArgs, Verdict
from tailorbird.domain.errors import BackendError, StepError

HERE = "tests.unit.backends.inductor.test_toolchain"


def crash(_: TryArgs) -> Verdict:
    """What loading a package did where the trap was found."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return Verdict()


def killed(_: TryArgs) -> Verdict:
    """What the system does when memory is short: no word on the compiler."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Verdict()


def fine(args: TryArgs) -> Verdict:
    counter = Path(os.environ["TRIALS"])
    counter.write_text(counter.read_text() + "tried ")
    return Verdict()


@pytest.fixture(autouse=True)
def second_gcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A compiler named by CXX, torch beside it, and a cache of its own."""
    compiler = tmp_path / "g++-other"
    compiler.write_text("#!/bin/sh\necho 'g++ (Other) 99.1'\n")
    compiler.chmod(0o755)
    (tmp_path / "trials").write_text("")
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TRIALS", str(tmp_path / "trials"))
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.setattr(toolchain, "torch_version", lambda: "2.13.0")
    yield compiler
    toolchain._version_line.cache_clear()


def test_a_crash_is_found_said_and_kept(second_gcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_TRY", f"{HERE}:crash")
    backend = InductorBackend()
    assert backend.probe().available  # nothing is known yet, and probing is quick
    with pytest.raises(BackendError) as refused:
        toolchain.check_toolchain()
    assert refused.value.message == (
        f"packages compiled by AOTInductor cannot be loaded here: got loading one ended in SIGSEGV; CXX names "
        f"'{second_gcc}' (g++ (Other) 99.1), expected the system's own C++ compiler, whose output shares its libstdc++ "
        f"with torch's\nHint: set CXX and CC to it, e.g. CXX=/usr/bin/g++ CC=/usr/bin/gcc"
    )
    found = backend.probe()
    assert not found.available
    assert "loading one ended in SIGSEGV; CXX names" in found.reason
    monkeypatch.setattr(toolchain, "_TRY", f"{HERE}:fine")
    with pytest.raises(BackendError, match="SIGSEGV"):  # kept
        toolchain.check_toolchain()


def test_it_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_TRY", f"{HERE}:fine")
    for _ in range(3):
        toolchain.check_toolchain()
    assert (tmp_path / "trials").read_text() == "tried "
    assert InductorBackend().probe().available


def test_another_compiler_is_another_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_TRY", f"{HERE}:fine")
    toolchain.check_toolchain()
    other = tmp_path / "g++"
    other.write_text("#!/bin/sh\necho 'g++ 14'\n")
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    toolchain.check_toolchain()
    assert (tmp_path / "trials").read_text() == "tried tried "


def test_being_killed_says_nothing_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_TRY", f"{HERE}:killed")
    with pytest.raises(BackendError, match="inductor could not compile a Linear layer: got step 'killed' crashed"):
        toolchain.check_toolchain()
    assert toolchain.known_fault() == ""


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    found = InductorBackend().probe()
    assert not found.available
    assert found.reason == "FileNotFoundError: no C++ compiler: CXX names '/nowhere/g++', and it is not there"
    assert "a C++ compiler (g++)" in found.install


def test_a_missing_torch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(toolchain, "version", _raise)
    found = InductorBackend().probe()
    assert found.reason == "ModuleNotFoundError: No module named 'torch'"
    assert found.install == InductorBackend.install


def _raise(name: str) -> str:
    raise toolchain.PackageNotFoundError(name)


@pytest.mark.heavy
def test_a_compiler_that_cannot_compile_is_no_crash() -> None:
    """For real, with a compiler that makes nothing: an error of Inductor's, and tried again the next time."""
    pytest.importorskip("torch")
    with pytest.raises(BackendError) as refused:
        toolchain.check_toolchain()
    assert refused.value.what == "inductor could not compile a Linear layer"
    assert isinstance(refused.value.__cause__, StepError)


def test_settings_that_a_release_does_not_have_are_left_out() -> None:
    """Torch 2.11 has no ``enable_line_tables``, and refuses what it does not know."""
    pytest.importorskip("torch")
    wanted = {"max_autotune": True, "aot_inductor.no_such": 1, "no_such.at_all": 2, "aot_inductor.debug_compile": False}
    assert toolchain.understood(wanted) == {"max_autotune": True, "aot_inductor.debug_compile": False}
