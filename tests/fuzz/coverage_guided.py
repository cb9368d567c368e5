"""The engine with coverage: atheris (libFuzzer). Half of its mutants are ours, which know the grammars.

libFuzzer ends the process when it is done, so each target runs in a process of its own::

    python -m tests.fuzz.coverage_guided TARGET CORPUS RUNS SECONDS SEED
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SLOW_S = 20


class Guided(NamedTuple):
    """What came of a run."""

    cases: int
    seconds: float
    edges: int
    """Branches of the package that were reached at least once."""
    per_second: int
    finding: str


def run(target: str, corpus: Path, cases: int, seconds: float, seed: int) -> Guided:
    """One target in a process of its own; the corpus grows by what reached something new."""
    corpus.mkdir(parents=True, exist_ok=True)
    arguments = [target, str(corpus), str(cases), str(int(seconds)), str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", __name__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode("utf-8", "replace")
    ended = re.findall(r"Done (\d+) runs in (\d+) second", said)
    edges = re.findall(r"cov: (\d+)", said)
    runs, took = (int(ended[-1][0]), float(ended[-1][1])) if ended else (_last_number(said), 0.0)
    finding = "" if done.returncode == 0 else said[-4000:]
    return Guided(runs, took, int(edges[-1]) if edges else 0, round(runs / took) if took else 0, finding)


def _last_number(said: str) -> int:
    numbers = re.findall(r"^#(\d+)\t", said, re.M)
    return int(numbers[-1]) if numbers else 0


def main() -> None:
    """In the process of its own; does not return."""
    import atheris

    name, corpus, cases, seconds, seed = sys.argv[1:6]
    with atheris.instrument_imports(include=["tailorbird"]):
        from tests import conftest  # noqa: F401 - keys and a cache of our own
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.mutate import Mutator

    target = TARGETS[name]
    for number, case in enumerate(target.seeds()):
        Path(corpus, f"seed-{number:03}").write_bytes(case)

    def mutated(data: bytes, most: int, number: int) -> bytes:
        """Ours and libFuzzer's in turn: the one keeps to the grammar, the other knows what branches compare with."""
        if number % 2:
            return bytes(atheris.Mutate(data, most))
        return target.mutate(data, Mutator(number))[:most]

    flags = [f"-runs={cases}", f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=20000", f"-timeout={SLOW_S}",
             "-rss_limit_mb=3000", "-print_final_stats=0", f"-artifact_prefix={corpus}/../{name}-"]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, corpus], target.one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
