"""Sixteen floats doubled, JSON over HTTP: what a server itself costs."""

from __future__ import annotations

import numpy as np

from bench.servers.engines import DOUBLE, manifest
from bench.servers.rivals import Spec, oip_json
from bench.serving_parts.load import closed, settle, warm
from bench.serving_parts.plan import Clock, Contestant, Plan, Sheet, contest, in_turn, said, started, turn
from bench.serving_parts.results import Contest, Goal

NAME = "tiny"
MANY = 16
MANY_SECONDS, ONE_SECONDS = 1.5, 1.0
GOALS = {"thread": (1.5, 0.4), "process": (1.0, 0.7)}
"""Against Triton's Python backend: requests a second at least, and p50 at most, as multiples of its own."""


def run(plan: Plan) -> Contest:
    """All servers are up at once, and take turns."""
    clock = Clock()
    row = np.random.default_rng(7).standard_normal(16).round(4)
    spec = Spec("double", batch=MANY, wait=0.0)
    own = (oip_json(row, DOUBLE.name),)
    with started(plan, DOUBLE, own, spec, lambda rival: (rival.numbers(row),)) as (found, sheet):
        for one in found:
            with turn(one, sheet):
                warm(one.server, one.requests[0])
        for number, one in in_turn(plan.rounds, found):
            said(f"tiny, round {number + 1} of {plan.rounds}: {one.name}")
            _turn(plan, one, sheet)
    facts = {"engine": manifest(DOUBLE).candidate.name, "request": f"{len(own[0])} bytes, JSON",
             "connections": f"{MANY} and 1"}  # fmt: skip
    return contest(NAME, plan, clock, facts, {"servers": sheet.entries()}, goals(sheet))


def _turn(plan: Plan, one: Contestant, sheet: Sheet) -> None:
    settle()
    with turn(one, sheet):
        many = closed(one.server, one.requests[0], MANY, plan.seconds(MANY_SECONDS))
        single = closed(one.server, one.requests[0], 1, plan.seconds(ONE_SECONDS))
        sheet.note(one.name, rate=many.rate, p99_many_ms=many.p99_ms, cpu_many_us=many.cpu_ms * 1e3,
                   p50_us=single.p50_ms * 1e3, p99_us=single.p99_ms * 1e3, cpu_one_us=single.cpu_ms * 1e3)  # fmt: skip


def goals(sheet: Sheet) -> list[Goal]:
    """What issue 5 asks for, where Triton took part; a ratio is the median of the rounds' ratios."""
    found = []
    for isolation, (rate, latency) in GOALS.items():
        for figure, sign, wanted, words in (
            ("rate", ">=", rate, f"requests/s at {MANY} connections"),
            ("p50_us", "<=", latency, "p50 at one connection"),
        ):
            mine, theirs = sheet.figure(f"tailorbird {isolation}", figure), sheet.figure("triton", figure)
            if mine and theirs and len(mine.values) == len(theirs.values):
                what = f"{words}, {isolation} mode, against Triton's Python backend"
                found.append(Goal(what, mine.over(theirs).median, sign, wanted, "x"))
    return found
