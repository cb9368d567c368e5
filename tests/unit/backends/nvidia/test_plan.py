"""A plan on disk: what of it is read before anything is deserialised, and every reason not to load it."""

from pathlib import Path

import msgspec
import pytest

from tailorbird.backends.cuda import Device
from tailorbird.backends.nvidia.plan import (
    PLAN,
    RECORD,
    PlanRecord,
    check_device,
    check_plan,
    header_version,
    read_record,
    write_record,
)
from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.backends.tensorrt_rtx import TensorRtRtxBackend
from tailorbird.domain.errors import BackendError

TRT, RTX = TensorRtBackend.flavour, TensorRtRtxBackend.flavour
REBUILD = "\nHint: build it again on this device, or keep the build kit beside it and load with --rebuild-stale"
DEVICE = Device("RTX 3060", "sm86", 12 << 30, 12040)
PLAIN = PlanRecord("tensorrt", "10.16.1.11", ("sm86",), 64, driver=12040)


def plan(folder: Path, version: tuple[int, ...] = (10, 16, 1, 11), magic: bytes = b"ftrt", size: int = 64) -> Path:
    made = folder / PLAN
    made.write_bytes((magic + bytes(20) + bytes(version)).ljust(64, b"\0")[:size])
    return made


def test_a_record_comes_back(tmp_path: Path) -> None:
    record = msgspec.structs.replace(PLAIN, planned={"fp16": 3}, hardware="ampere_plus")
    write_record(record, tmp_path)
    assert read_record(tmp_path) == record


def test_the_header_names_its_version(tmp_path: Path) -> None:
    assert header_version(plan(tmp_path), TRT) == "10.16.1.11"
    assert header_version(plan(tmp_path, (1, 7, 1, 116), b"vtrt"), RTX) == "1.7.1.116"


def refusal(folder: Path, record: PlanRecord = PLAIN, here: str = "10.16.1.11") -> str:
    write_record(record, folder)
    with pytest.raises(BackendError) as refused:
        check_plan(folder, TRT, here)
    return refused.value.message


def test_a_header_that_is_cut_short(tmp_path: Path) -> None:
    plan(tmp_path, size=20)
    assert refusal(tmp_path) == f"the engine's plan is cut short: got 20 bytes, expected at least 28{REBUILD}"


def test_a_plan_that_is_cut_short(tmp_path: Path) -> None:
    plan(tmp_path, size=60)
    assert refusal(tmp_path) == f"the engine's plan is cut short: got 60 bytes, expected 64 bytes{REBUILD}"


def test_a_plan_that_grew(tmp_path: Path) -> None:
    plan(tmp_path)
    record = msgspec.structs.replace(PLAIN, size=63)
    assert refusal(tmp_path, record) == f"the engine's plan was altered: got 64 bytes, expected 63 bytes{REBUILD}"


def test_something_else_under_its_name(tmp_path: Path) -> None:
    plan(tmp_path, magic=b"vtrt")
    assert refusal(tmp_path) == f"the engine is no plan of TensorRT's: got b'vtrt', expected b'ftrt'{REBUILD}"


def test_another_version(tmp_path: Path) -> None:
    plan(tmp_path, (10, 13, 0, 35))
    assert refusal(tmp_path) == (
        f"the engine was built with another version of TensorRT: got 10.13.0.35, expected 10.16.1.11{REBUILD}"
    )


@pytest.mark.parametrize(
    ("written", "compatible", "loads"),
    [
        ((10, 16, 1, 99), False, True),  # the fourth part is a build's number
        ((10, 13, 0, 35), True, True),
        ((10, 17, 0, 0), True, False),  # forward compatibility only
        ((9, 3, 0, 1), True, False),
    ],
)
def test_a_version_compatible_plan_loads_into_later_ones_of_its_major(
    tmp_path: Path, written: tuple[int, ...], compatible: bool, loads: bool
) -> None:
    plan(tmp_path, written)
    record = msgspec.structs.replace(PLAIN, version_compatible=compatible)
    if loads:
        write_record(record, tmp_path)
        assert check_plan(tmp_path, TRT, "10.16.1.11") == record
    else:
        assert "another version of TensorRT" in refusal(tmp_path, record)


def test_no_plan_and_no_record(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("the engine's plan cannot be read: got [Errno 2]")
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(BackendError) as refused:
        read_record(tmp_path)
    assert refused.value.message == (
        f"what the engine depends on cannot be read: got Input data was truncated{REBUILD}"
    )


def test_the_device_it_was_built_for_runs_it() -> None:
    check_device(PLAIN, DEVICE)
    check_device(msgspec.structs.replace(PLAIN, architectures=("sm80", "sm86")), DEVICE)
    check_device(PLAIN, msgspec.structs.replace(DEVICE, driver=13000))
    check_device(PLAIN, msgspec.structs.replace(DEVICE, driver=12020))  # minor versions are compatible


@pytest.mark.parametrize(("arch", "runs"), [("sm86", True), ("sm90", True), ("sm120", True), ("sm75", False)])
def test_hardware_compatibility_reaches_from_ampere_on(arch: str, runs: bool) -> None:
    assert msgspec.structs.replace(PLAIN, hardware="ampere_plus").runs_on(arch) is runs


def test_another_architecture() -> None:
    with pytest.raises(BackendError) as refused:
        check_device(PLAIN, Device("H100", "sm90", 80 << 30, 13000))
    assert refused.value.message == (
        f"the engine was built for another architecture: got sm86, expected sm90 (H100){REBUILD}"
    )


def test_an_older_driver() -> None:
    with pytest.raises(BackendError) as refused:
        check_device(PLAIN, msgspec.structs.replace(DEVICE, driver=11080))
    assert refused.value.message == (
        "the driver is older than the one the engine was built with: got CUDA 11.8, expected CUDA 12.4 or newer\n"
        "Hint: install a newer NVIDIA driver"
    )
