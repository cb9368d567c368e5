"""What a machine must have to load an engine, and what it is told when it has not."""

from pathlib import Path

import msgspec
import pytest

from tailorbird.backends.inductor import record as room
from tailorbird.backends.inductor.record import EngineRecord, check_record, read_record, write_record
from tailorbird.domain.errors import BackendError

RECORD = EngineRecord("2.13.0+cpu", "cpu", ("avx2", "avx512f"), "/usr/bin/g++: 13", ("x",), ("y",), (0,), {"l": "fp32"})


@pytest.fixture(autouse=True)
def torch_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "torch_version", lambda: "2.13.1+cu130")


def test_it_comes_back(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path)
    assert read_record(tmp_path) == RECORD


def test_the_same_release_on_a_machine_that_has_more() -> None:
    check_record(RECORD, {"avx2", "avx512f", "amx_int8"}, "CPU")


def test_another_release_of_torch() -> None:
    with pytest.raises(BackendError) as refused:
        check_record(msgspec.structs.replace(RECORD, torch="2.11.0"), {"avx2", "avx512f"}, "CPU")
    assert refused.value.message == (
        "the engine was compiled with another release of torch: got 2.13.1+cu130, expected 2.11.0\n"
        "Hint: pip install 'torch==2.11.*', or build again"
    )


def test_a_cpu_that_lacks_instructions() -> None:
    with pytest.raises(BackendError) as refused:
        check_record(RECORD, {"avx2"}, "CPU")
    assert refused.value.message == (
        "the engine was compiled for another CPU: this one lacks avx512f: got avx2, expected avx2 avx512f\n"
        "Hint: build on a machine with this CPU"
    )


def test_another_gpu() -> None:
    with pytest.raises(BackendError, match="for another GPU: this one lacks sm90: got sm86, expected sm90"):
        check_record(msgspec.structs.replace(RECORD, device="cuda", needs=("sm90",)), {"sm86"}, "GPU")
