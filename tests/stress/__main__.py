"""``make stress``: minutes of marked rows under kills, swaps and canaries; fails where one answer is not its own."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests import conftest  # noqa: F401 - keys and a cache of our own
from tests.stress.run import Plan, Result, stressed


def main() -> int:
    """Run in turn with engines in processes and in threads; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make stress")
    parser.add_argument("--minutes", type=float, default=6.0, help="of both isolations together")
    parser.add_argument("--pause-ms", type=float, default=0.0, help="of a client between two requests, on average")
    parser.add_argument("--kill-every-s", type=float, default=2.0)
    parser.add_argument("--swap-every-s", type=float, default=3.0)
    asked = parser.parse_args()
    good = True
    for isolation in ("process", "thread"):
        plan = Plan(
            seconds=asked.minutes * 30,
            isolation=isolation,
            pause_s=asked.pause_ms / 1e3,
            kill_every_s=asked.kill_every_s if isolation == "process" else 0.0,
            swap_every_s=asked.swap_every_s,
        )
        with tempfile.TemporaryDirectory(prefix="tailorbird-stress-") as folder:
            good &= _said(isolation, stressed(Path(folder), plan))
    return 0 if good else 1


def _said(isolation: str, result: Result) -> bool:
    sys.stdout.write(f"--- {isolation} ---\n{result}\n")
    for wrong in (*result.tally.mixed[:5], *result.tally.lost[:5]):
        sys.stdout.write(f"{wrong}\n")
    sys.stdout.flush()
    wrong = [
        kind for kind in result.tally.kinds if any(words in kind for words in (" 400", " 404", "INVALID", "outside"))
    ]
    return not (result.tally.mixed or result.tally.lost or wrong or result.exit_status)


if __name__ == "__main__":
    sys.exit(main())
