"""The machine as probed."""

from pathlib import Path

import pytest

from tailorbird.backends import host
from tailorbird.domain.target import Target


def test_every_fact_is_there() -> None:
    facts = host.cpu_facts()
    assert set(facts) == {"cpu", "arch", "cores", "isa", "memory_gib", "system", "python"}
    assert all(value for name, value in facts.items() if name != "isa")
    assert int(facts["cores"]) >= 1
    assert float(facts["memory_gib"]) > 0


@pytest.mark.parametrize(
    ("flags", "arch"),
    [
        ({"avx2"}, "avx2"),
        ({"avx2", "avx512f"}, "avx512"),
        ({"avx2", "avx512f", "amx_tile"}, "amx"),
        (set(), "riscv64"),
    ],
)
def test_the_widest_instruction_set_names_the_architecture(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], arch: str
) -> None:
    monkeypatch.setattr(host, "_flags", lambda: frozenset(flags))
    monkeypatch.setattr(host.platform, "machine", lambda: "RISCV64")
    assert host.cpu_arch() == arch
    assert Target.parse(f"reference:cpu:{arch}").arch == arch


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1), ("max 100000\n", None), ("", None)],
)
def test_a_containers_quota_counts_in_whole_cores(tmp_path: Path, text: str, cores: int | None) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text(text)
    assert host._quota_cores(limit) == cores
    assert host._quota_cores(tmp_path / "none") is None


def test_fewer_cores_are_used_than_there_are_when_the_quota_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(64)))
    for quota, cores in ((2, 2), (None, 64), (500, 64)):
        monkeypatch.setattr(host, "_quota_cores", lambda path, quota=quota: quota)
        assert host.usable_cores() == cores


@pytest.mark.parametrize(
    ("facts", "exact"),
    [
        ({"system": "Linux x86_64", "isa": "avx2 fma"}, False),
        ({"system": "Linux x86_64", "isa": "avx2 avx_vnni"}, True),
        ({"system": "Linux x86_64", "isa": "avx512f amx_int8"}, True),
        ({"system": "Linux aarch64", "isa": "asimddp"}, True),
    ],
)
def test_sums_of_int8_overflow_on_x86_without_vnni(facts: dict[str, str], exact: bool) -> None:
    assert host.sums_int8_exactly(facts) is exact


NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:10:14 UTC 2025\nGCC version: 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build\n"


@pytest.mark.parametrize(("driver", "version"), [(NVRM, "580.65.06"), (OPEN, "575.57.08"), ("nonsense", "")])
def test_the_kernel_tells_of_the_driver(
    tmp_path: Path, driver: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = tmp_path / "proc/driver/nvidia"
    card = folder / "gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (folder / "version").write_text(driver)
    (card / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 18\n")
    told = {"gpu": "NVIDIA H100 80GB HBM3"} | ({"gpu_driver": version} if version else {})
    assert host.gpu_facts(tmp_path) == told


@pytest.mark.parametrize(("said", "told"), [("1", "1"), ("", "none")])
def test_which_devices_a_process_may_use_is_told_where_there_is_one(
    tmp_path: Path, said: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert host.gpu_facts(tmp_path) == {}
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: NVIDIA H100 80GB HBM3\n")
    assert host.gpu_facts(tmp_path) == {"gpu": "NVIDIA H100 80GB HBM3", "gpu_visible": told}


def test_a_jetson_is_told_by_its_board_and_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, text in (
        ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3\nmore\n"),
        ("proc/device-tree/model", "NVIDIA Jetson AGX Orin\0"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert host.gpu_facts(tmp_path) == {"gpu": "NVIDIA Jetson AGX Orin", "gpu_driver": "R36 (release), REVISION: 4.3"}


def test_without_a_device_nothing_is_told(tmp_path: Path) -> None:
    assert host.gpu_facts(tmp_path) == {}
