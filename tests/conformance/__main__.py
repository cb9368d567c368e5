"""``python -m tests.conformance PAGE``: the suite against both servers, and what was seen as a page."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.conformance import running, servers
from tests.conformance.differences import expected_of_triton
from tests.conformance.report import page
from tests.conformance.suite import CHECKS


def main():
    arguments = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    arguments.add_argument("page", type=Path, help="where the page goes")
    target = arguments.parse_args().page
    ours, triton = (_made(name) for name in ("ours", "triton"))
    surprises = [*_surprises(ours, lambda one: one.expected), *_surprises(triton, expected_of_triton)]
    if surprises:
        sys.exit("\n".join(["Not as the suite and its list of differences say:", *surprises]))
    target.write_text(page(ours, triton, datetime.now(UTC).date().isoformat()))
    sys.stdout.write(f"{target}: as the suite and its list of differences say\n")


def _made(name):
    done = 0

    def told(*_):
        nonlocal done
        done += 1
        if done % 50 == 0 or done == len(CHECKS):
            sys.stderr.write(f"{name}: {done} of {len(CHECKS)} checks\n")

    return running.run(getattr(servers, name), told)


def _surprises(found, expected):
    return [
        f"{found.server}: {one.key}: {found.seen[one.key]}, expected {expected(one)}"
        for one in CHECKS
        if found.seen[one.key] != expected(one)
    ]


if __name__ == "__main__":
    main()
