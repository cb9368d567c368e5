"""Dynamic batching: what joining requests is worth, with and without, on a large model and on small ones.

"Without" is the same engine's files under a manifest whose profile ends at one row, so that the batcher has nothing to
join. Clients send one row each; BERT's are of mixed lengths, and only rows of one length can be joined.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench import rawload
from bench.servers import ours
from bench.servers.engines import BERT, LENGTHS, MAGIKA, RANKER, Served, manifest
from bench.serving_parts import load
from bench.serving_parts.offline import alone
from bench.serving_parts.plan import Clock, Contestant, Plan, Sheet, attempt, contest, fresh, in_turn, said
from bench.serving_parts.results import Contest, Goal
from tailorbird.domain.bundle import seal
from tailorbird.domain.bundlefile import pack, unpack
from tailorbird.domain.manifest import Manifest
from tailorbird.load import payloads
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.signing.sign import sign_version

NAME = "batching"
MANY = 16
MIX = 64
"""Requests in rotation."""
ROWS = (1, 2, 4, 8)
STEPS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0)
"""Rates of the open loops, as multiples of what the closed loop gave without batching."""
BOUND = 4.0
"""p99 allowed in the open loops, as a multiple of a lone client's p99."""
WANTED = 1.5


@dataclass(frozen=True)
class Case:
    """One model's traffic."""

    served: Served
    lengths: tuple[int, ...] = ()
    """Of sentences, in equal shares; none where the model has no such dim."""
    seconds: float = 3.0

    def shapes(self, rows: int, length: int) -> dict[str, tuple[int, ...]]:
        """Shapes of one set of inputs."""
        opt = self.served.shapes[1].items()
        return {name: (rows, length) if length else (rows, *dims[1:]) for name, dims in opt}

    def requests(self) -> tuple[bytes, ...]:
        """What its clients send, in a seeded order."""
        order = np.random.default_rng(3).permutation(MIX)
        lengths = self.lengths or (0,)
        sets = [self.served.sample(self.shapes(1, lengths[one % len(lengths)]), int(one)) for one in order]
        return tuple(_request(self.served, one) for one in sets)


CASES = (Case(BERT, LENGTHS, 6.0), Case(RANKER), Case(MAGIKA))


def run(plan: Plan) -> Contest:
    """Each model in turn; with and without batching side by side."""
    clock, goals = Clock(), list[Goal]()
    costs = Sheet()
    loops = Sheet()
    for case in CASES:
        _costs(plan, case, costs)
        goals += _with_and_without(plan, case, loops)
    tables = {"costs": costs.entries(), "loops": loops.entries()}
    facts = {"connections": str(MANY), "BERT's lengths": ", ".join(map(str, LENGTHS)),
             "p99 bound": f"{BOUND:g} times a lone client's p99"}  # fmt: skip
    facts |= {case.served.name: manifest(case.served).candidate.name for case in CASES}
    return contest(NAME, plan, clock, facts, tables, goals)


def one_row(served: Served, folder: Path) -> Path:
    """The same engine with a manifest that allows one row a run, sealed and signed."""
    version = unpack(served.bundle, folder / "unpacked")
    found = manifest(served)
    profile = found.candidate.profile
    narrow = msgspec.structs.replace(
        profile, max={name: (1, *shape[1:]) for name, shape in profile.max.items()}
    )  # fmt: skip
    rows = tuple(row for row in found.latency if row.rows == 1)
    changed = msgspec.structs.replace(
        found, candidate=msgspec.structs.replace(found.candidate, profile=narrow), latency=rows, files={}
    )
    return _packed(version, changed, folder / f"{served.name}.engine")


def _packed(version: Path, changed: Manifest, out: Path) -> Path:
    sealed = seal(version, changed)
    sign_version(version)
    pack(version, out, config_pbtxt(sealed))
    shutil.rmtree(version.parent, ignore_errors=True)
    return out


def _request(served: Served, tensors: dict[str, Any]) -> bytes:
    dtypes = {one.name: str(one.dtype) for one in manifest(served).signature.inputs}
    payload = payloads.binary(tensors, dtypes)
    headers = {key.title(): value for key, value in payload.headers}
    return rawload.post(f"/v2/models/{served.name}/infer", payload.body, headers)


def _costs(plan: Plan, case: Case, sheet: Sheet) -> None:
    """Milliseconds a row, by the rows of a run: whether there is anything to gain."""
    with alone(case.served, fresh(plan.folder, f"alone {case.served.name}")) as engine:
        for length in case.lengths or (0,):
            name = f"{case.served.name}, {length} tokens" if length else case.served.name
            said(f"batching, the engine alone: {name}")
            for number, rows in in_turn(min(3, plan.rounds), ROWS):
                sets = {
                    f"{length}-{rows}-{seed}": case.served.sample(case.shapes(rows, length), seed) for seed in (1, 2)
                }
                got = engine.run(rows, 1, plan.seconds(0.6), sets)
                if number or plan.rounds < 2:
                    sheet.note(name, **{f"rows{rows}": got.run_ms / rows})


def _with_and_without(plan: Plan, case: Case, sheet: Sheet) -> list[Goal]:
    requests = case.requests()
    folder = fresh(plan.folder, f"batching {case.served.name}")
    bundles = {"without": one_row(case.served, folder), "with": case.served.bundle}
    with ExitStack() as stack:
        found = [
            Contestant(f"{case.served.name}, {name} batching",
                       stack.enter_context(ours.served(bundle, "process", fresh(folder, name), "--max-queue", "1024")),
                       requests)
            for name, bundle in bundles.items()
        ]  # fmt: skip
        for one in found:
            load.rotating(one.server, requests, MANY, plan.seconds(1.0))
        for number, one in in_turn(plan.rounds, found):
            said(f"batching, closed loop, round {number + 1} of {plan.rounds}: {one.name}")
            _loop(plan, case, one, sheet)
        _ladder(plan, case, found, sheet)
    return _goals(found, sheet)


def _loop(plan: Plan, case: Case, one: Contestant, sheet: Sheet) -> None:
    load.settle()
    with attempt(one.name, sheet):
        many = load.rotating(one.server, one.requests, MANY, plan.seconds(case.seconds))
        single = load.rotating(one.server, one.requests, 1, plan.seconds(case.seconds / 2))
        sheet.note(one.name, rate=many.rate, p50_ms=many.p50_ms, p99_ms=many.p99_ms, cpu_ms=many.cpu_ms,
                   single_p50_ms=single.p50_ms, single_p99_ms=single.p99_ms)  # fmt: skip


def _ladder(plan: Plan, case: Case, found: list[Contestant], sheet: Sheet) -> None:
    """Poisson arrivals, faster and faster, for each until its p99 is beyond the bound."""
    base, lone = sheet.figure(found[0].name, "rate"), sheet.figure(found[0].name, "single_p99_ms")
    if base is None or lone is None:
        return
    bound, climbing = BOUND * lone.median, list(found)
    held = dict.fromkeys((one.name for one in found), (0.0, 0.0))
    for step in STEPS:
        for one in list(climbing):
            rate = step * base.median
            said(f"batching, Poisson at {rate:.1f}/s, p99 within {bound:.1f} ms: {one.name}")
            got = load.opened(one.server, one.requests, rate, plan.seconds(case.seconds), round(step * 100))
            tail = load.percentile(got.answered, 99)
            if got.failed or got.refused or tail > bound:
                climbing.remove(one)
            else:
                held[one.name] = (len(got.answered) / got.elapsed, tail)
    for name, (rate, tail) in held.items():
        sheet.note(name, bound_ms=bound, held_rate=rate, held_p99_ms=tail)


def _goals(found: list[Contestant], sheet: Sheet) -> list[Goal]:
    goals = []
    for figure, words in (("rate", f"throughput at {MANY} connections"), ("held_rate", "rate at an equal p99 bound")):
        off, on = (sheet.figure(one.name, figure) for one in found)
        if off and on and off.median > 0:
            name = found[0].name.partition(",")[0]
            goals.append(
                Goal(f"{name}: {words}, with batching over without", on.median / off.median, ">=", WANTED, "x")
            )
    return goals
