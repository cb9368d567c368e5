"""Metrics of the machine and of the server's own process, under Triton's names and Prometheus' usual ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

_PROC = Path("/proc")


class Host:
    """What the kernel says, at each scrape. Nothing where it says nothing.

    Args:
        proc: where the kernel says it.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._process = ProcessCollector(registry=CollectorRegistry())
        self._busy, self._all = self._ticks()

    def families(self) -> Iterator[Metric]:
        """``nv_cpu_*`` of the machine, and ``process_*`` of the server without its instances' processes."""
        yield from self._processors()
        yield from self._memory()
        yield from self._process.collect()

    def _processors(self) -> Iterator[Metric]:
        """Since the scrape before: Triton's is of the last moment, too."""
        busy, total = self._ticks()
        if total > self._all:
            share = (busy - self._busy) / (total - self._all)
            yield GaugeMetricFamily("nv_cpu_utilization", "Of all cores since the scrape before, 0 to 1", share)
        self._busy, self._all = busy, total

    def _memory(self) -> Iterator[Metric]:
        found = {name: int(words[0]) << 10 for line in self._lines("meminfo")
                 for name, *words in [line.replace(":", " ").split()] if len(words) == 2}  # fmt: skip
        if "MemTotal" in found and "MemAvailable" in found:
            total = found["MemTotal"]
            yield GaugeMetricFamily("nv_cpu_memory_total_bytes", "Of the machine", total)
            yield GaugeMetricFamily("nv_cpu_memory_used_bytes", "Of the machine", total - found["MemAvailable"])

    def _ticks(self) -> tuple[int, int]:
        """Busy and all ticks of all cores. Source: Linux, ``Documentation/filesystems/proc.rst``, ``/proc/stat``."""
        for line in self._lines("stat"):
            name, *ticks = line.split()
            if name == "cpu":
                values = [int(one) for one in ticks[:8]]  # what is behind them is in user and nice already
                return sum(values) - sum(values[3:5]), sum(values)
        return 0, 0

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._proc / name).read_text("ascii").splitlines()
        except OSError:
            return []
