"""The engine without coverage: seeded mutations of valid messages, and of their mutants. Nothing to install."""

import faulthandler
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import Target
from tests.fuzz.world import SECONDS, Finding

KEPT = 200
"""Mutants that are kept to be changed further; random ones give way."""
HANG_S = 120.0


class Run(NamedTuple):
    """What came of a run."""

    cases: int
    seconds: float
    slowest: float
    grown_kb: int
    """Resident memory, from a quarter of the cases to the end."""
    findings: list[tuple[str, bytes]]


def run(target: Target, cases: int, seed: int, stop: Callable[[], bool] = lambda: False) -> Run:
    """So many cases, or fewer where told to stop; the same seed makes the same cases."""
    mutator, valid = Mutator(seed), target.seeds()
    kept, findings, slowest, early = list(valid), [], 0.0, 0
    began = time.monotonic()
    for number in range(cases):
        if number == cases // 4:
            early = resident_kb()
        if number % 64 == 0:
            faulthandler.dump_traceback_later(HANG_S, exit=True)  # a loop without end says where it is
            if stop():
                cases = number
                break
        case = valid[number] if number < len(valid) else target.mutate(mutator.chance.choice(kept), mutator)
        took, found = _tried(target, case)
        slowest = max(slowest, took)
        if found:
            findings.append((found, case))
            if len(findings) == 10:
                break
        elif len(case) < 20_000 and mutator.often(0.05):
            kept[len(valid) :] = [*kept[len(valid) :], case][-KEPT:]
    faulthandler.cancel_dump_traceback_later()
    grown = resident_kb() - early if early else 0
    return Run(cases, time.monotonic() - began, slowest, grown, findings)


def _tried(target: Target, case: bytes) -> tuple[float, str]:
    began = time.monotonic()
    try:
        target.one(case)
    except Finding as error:
        return 0.0, str(error)
    except Exception as error:
        return 0.0, f"{type(error).__name__}: {error}"
    took = time.monotonic() - began
    return took, f"{took:.1f} s" if took > SECONDS else ""


def resident_kb() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4
