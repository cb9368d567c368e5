"""``make memory``: is memory flat under mixed traffic? Of the server and its instances together.

What is sampled is the proportional set size (``/proc/PID/smaps_rollup``) of the server and of every process below it,
without pages of files, which cannot leak: what is shared counts once. Swaps come and go with processes, so what counts
is the server and the median instance, once for each model, and of each window of time the median sample. The growth is
the Theil–Sen slope of these (the median of the slopes of all pairs: Sen 1968, J. Am. Stat. Assoc. 63), times the time
measured, in per cent of the median; the first quarter is warm-up.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests import conftest  # noqa: F401 - keys and a cache of our own
from tests.stress import models
from tests.stress.run import Plan, stressed
from tests.stress.server import Server

WARM_UP = 0.25
"""The share of the time that does not count."""
GROWTH = 2.0
"""Per cent, at most."""
SAMPLE_S = 2.0
WINDOWS = 40


class Sample(msgspec.Struct, frozen=True):
    """One look at the processes; kilobytes."""

    seconds: float
    server: int
    instance: int
    """The median of the processes below it: one that is starting, or leaving, does not count."""
    processes: int
    """How many these are."""
    descriptors: int
    """Of the server."""
    resident: int = 0
    """Of all, pages of files included."""

    @property
    def total(self) -> int:
        """Of the server and an instance for each model."""
        return self.server + self.instance * len(models.TURNS)


class Sampler:
    """Looks at a server again and again."""

    def __init__(self, every_s: float = SAMPLE_S) -> None:
        self.samples: list[Sample] = []
        self._every = every_s

    def __call__(self, server: Server, stop: threading.Event) -> None:
        """Until told to stop."""
        began = time.monotonic()
        while not stop.wait(self._every):
            try:
                own = look(server.pid)
                descriptors = sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir())
            except OSError:
                return
            there = [found for pid in server.children() if (found := _look_or_none(pid))]
            self.samples.append(
                Sample(
                    seconds=time.monotonic() - began,
                    server=own[0],
                    instance=statistics.median_low([one for one, _ in there] or [0]),
                    processes=len(there),
                    descriptors=descriptors,
                    resident=own[1] + sum(whole for _, whole in there),
                )
            )


def look(pid: int) -> tuple[int, int]:
    """Proportional set size in kilobytes, without pages of files, and whole.

    Raises:
        OSError: there is no such process.
    """
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0])
    return found.get("Pss_Anon", 0) + found.get("Pss_Shmem", 0), found.get("Pss", 0)


def pss(pid: int) -> int:
    """The whole of it."""
    return look(pid)[1]


def _look_or_none(pid: int) -> tuple[int, int] | None:
    try:
        return look(pid)
    except OSError:  # it has just ended
        return None


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """Per cent by which ``values`` grow over ``times``, by the Theil–Sen slope; 0 for fewer than two."""
    slopes = [(values[b] - values[a]) / (times[b] - times[a]) for a, b in itertools.combinations(range(len(times)), 2)]
    if not slopes:
        return 0.0
    return 100 * statistics.median(slopes) * (times[-1] - times[0]) / (statistics.median(values) or 1)


def windows(samples: Sequence[Sample], count: int = WINDOWS) -> list[Sample]:
    """After the warm-up, of each stretch of time the median one."""
    end = samples[-1].seconds
    late = [one for one in samples if one.seconds > WARM_UP * end]
    width = (1 - WARM_UP) * end / count
    parts = itertools.groupby(late, key=lambda one: int((one.seconds - WARM_UP * end) / width))
    return [_middle(sorted(part, key=lambda one: one.total)) for _, part in parts]


def _middle(samples: list[Sample]) -> Sample:
    return samples[len(samples) // 2]


def main() -> int:
    """Run, sample, judge; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make memory")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pause-ms", type=float, default=40.0, help="of a client between two requests, on average")
    parser.add_argument("--kill-every-s", type=float, default=0.0)
    parser.add_argument("--swap-every-s", type=float, default=10.0)
    parser.add_argument("--isolation", choices=("process", "thread"), default="process")
    parser.add_argument("--out", type=Path, help="a file for the samples, as JSON lines")
    asked = parser.parse_args()
    plan = Plan(seconds=asked.minutes * 60, isolation=asked.isolation, pause_s=asked.pause_ms / 1e3,
                kill_every_s=asked.kill_every_s, swap_every_s=asked.swap_every_s)  # fmt: skip
    sampler = Sampler()
    with tempfile.TemporaryDirectory(prefix="tailorbird-memory-") as folder:
        result = stressed(Path(folder), plan, [sampler, _writer(sampler, asked.out)])
    sys.stdout.write(f"{result}\n{table(sampler.samples)}\n")
    flat = grown(sampler.samples) <= GROWTH
    return 0 if flat and not result.tally.mixed and not result.tally.lost else 1


def grown(samples: Sequence[Sample]) -> float:
    """Per cent, of all processes together."""
    parts = windows(samples)
    return growth([one.seconds for one in parts], [one.total for one in parts])


def table(samples: Sequence[Sample], rows: int = 12) -> str:
    """A dozen rows of the curve, and the growth of each part."""
    parts = windows(samples)
    times = [one.seconds for one in parts]
    lines = [f"{'minute':>7} {'server MB':>10} {'instance MB':>12} {'processes':>10} {'descriptors':>12} {'PSS MB':>8}"]
    for one in parts[:: max(1, len(parts) // rows)]:
        lines.append(
            f"{one.seconds / 60:7.1f} {one.server / 1024:10.1f} {one.instance / 1024:12.1f} {one.processes:10} "
            f"{one.descriptors:12} {one.resident / 1024:8.1f}"
        )
    for name in ("server", "instance", "total", "descriptors"):
        lines.append(f"growth of {name}: {growth(times, [getattr(one, name) for one in parts]):+.2f} %")
    lines.append(f"allowed of total: {GROWTH:.1f} %, after a warm-up of {WARM_UP * samples[-1].seconds / 60:.1f} min")
    return "\n".join(lines)


def _writer(sampler: Sampler, out: Path | None) -> "_Writer":
    return _Writer(sampler, out)


class _Writer:
    """Writes the samples as they come, so that a run cut short says something too."""

    def __init__(self, sampler: Sampler, out: Path | None) -> None:
        self._sampler = sampler
        self._out = out

    def __call__(self, _: Server, stop: threading.Event) -> None:
        written = 0
        while self._out is not None and not stop.wait(SAMPLE_S):
            fresh = self._sampler.samples[written:]
            with self._out.open("a") as file:
                file.writelines(json.dumps(msgspec.to_builtins(one)) + "\n" for one in fresh)
            written += len(fresh)


if __name__ == "__main__":
    sys.exit(main())
