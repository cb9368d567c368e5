"""Metrics of the machine: from what the kernel says, under Triton's names."""

import os
import time
from pathlib import Path

import pytest

from tailorbird.service.observe.host_metrics import Host

MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    4000 kB\nHugePages_Total:       0\n"


def values(host: Host) -> dict[str, float]:
    return {sample.name: sample.value for family in host.families() for sample in family.samples}


def kernel(folder: Path, *ticks: int) -> Path:
    (folder / "stat").write_text("cpu  " + " ".join(map(str, ticks)) + "\ncpu0 1 1\nintr 5\n")
    (folder / "meminfo").write_text(MEMINFO)
    return folder


def test_utilisation_is_of_the_time_since_the_scrape_before(tmp_path: Path) -> None:
    host = Host(kernel(tmp_path, 100, 0, 100, 700, 100, 0, 0, 0, 50, 50))
    kernel(tmp_path, 130, 0, 120, 720, 110, 10, 5, 5, 50, 50)
    assert values(host)["nv_cpu_utilization"] == pytest.approx(0.7)  # 70 busy of 100 ticks
    kernel(tmp_path, 130, 0, 120, 820, 110, 10, 5, 5, 50, 50)
    assert values(host)["nv_cpu_utilization"] == 0
    assert "nv_cpu_utilization" not in values(host)  # no time has passed


def test_memory_is_what_cannot_be_had(tmp_path: Path) -> None:
    found = values(Host(kernel(tmp_path, 1, 2, 3, 4)))
    assert (found["nv_cpu_memory_total_bytes"], found["nv_cpu_memory_used_bytes"]) == (16000 << 10, 12000 << 10)


def test_a_machine_that_says_nothing_has_no_such_metrics(tmp_path: Path) -> None:
    assert not [name for name in values(Host(tmp_path)) if name.startswith("nv_")]


def test_this_machine_says_it() -> None:
    host = Host()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    found = values(host)
    assert 0 < found["nv_cpu_utilization"] <= 1
    assert 0 < found["nv_cpu_memory_used_bytes"] < found["nv_cpu_memory_total_bytes"]
    assert found["process_resident_memory_bytes"] > 10 << 20
    assert found["process_cpu_seconds_total"] == pytest.approx(sum(os.times()[:2]), abs=0.5)
