"""``make fuzz``: a million cases over all doors, shared out by what each costs.

With ``--engine atheris`` (extra ``fuzz``) coverage leads the way; ``--engine seeded`` needs nothing installed.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

from tests import conftest  # noqa: F401 - keys and a cache of our own
from tests.fuzz import coverage_guided, seeded
from tests.fuzz.targets import TARGETS, Target

CORPUS = Path("bench-output", "fuzz")
HOUR = 3600.0


def main() -> int:
    """Run them one after another; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--target", choices=tuple(TARGETS), action="append", help="only this one; repeatable")
    parser.add_argument("--engine", choices=("atheris", "seeded"), default=_installed())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where atheris keeps what it found")
    asked = parser.parse_args()
    chosen = [TARGETS[name] for name in asked.target or TARGETS]
    whole = sum(target.share for target in chosen)
    sys.stdout.write(f"{'target':12} {'cases':>9} {'per second':>11}  {asked.engine}\n")
    good = True
    for target in chosen:
        cases = round(asked.cases * target.share / whole)
        good &= _guided(target, cases, asked) if asked.engine == "atheris" else _seeded(target, cases, asked.seed)
    return 0 if good else 1


def _guided(target: Target, cases: int, asked: argparse.Namespace) -> bool:
    began = time.monotonic()
    found = coverage_guided.run(target.name, asked.corpus / target.name, cases, 4 * HOUR, asked.seed)
    rate = found.cases / max(0.001, time.monotonic() - began)
    _say(target.name, found.cases, rate, f"{found.edges} branches reached")
    if found.finding:
        sys.stdout.write(f"{found.finding}\n")
    return not found.finding


def _seeded(target: Target, cases: int, seed: int) -> bool:
    found = seeded.run(target, cases, seed)
    _say(target.name, found.cases, found.cases / found.seconds,
         f"slowest {found.slowest * 1e3:.0f} ms, memory {found.grown_kb:+} kB")  # fmt: skip
    for words, case in found.findings:
        sys.stdout.write(f"{words}\n  case {case!r}\n")
    return not found.findings


def _say(name: str, cases: int, rate: float, words: str) -> None:
    sys.stdout.write(f"{name:12} {cases:9,} {rate:11,.0f}  {words}\n")
    sys.stdout.flush()


def _installed() -> str:
    return "atheris" if importlib.util.find_spec("atheris") else "seeded"


if __name__ == "__main__":
    sys.exit(main())
