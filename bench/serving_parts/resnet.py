"""ResNet-50: how much of an engine's own throughput is left behind a server, and what its clients feel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bench import rawload
from bench.servers.engines import RESNET, Served, manifest, unpacked
from bench.servers.rivals import Spec
from bench.serving_parts import load
from bench.serving_parts.offline import Alone, alone
from bench.serving_parts.plan import Clock, Contestant, Plan, Sheet, contest, in_turn, said, started, turn
from bench.serving_parts.queueing import floor
from bench.serving_parts.results import Contest, Goal
from tailorbird.backends.host import usable_cores
from tailorbird.domain.manifest import Manifest
from tailorbird.load import payloads

NAME = "resnet"
MANY = 16
CLOSED_SECONDS, ONE_SECONDS, POISSON_SECONDS, OVER_SECONDS = 3.0, 1.5, 5.0, 5.0
STEADY, OVER = 0.7, 2.0
"""Rates of the open loops, as multiples of the engine's own throughput."""
SLO = 5.0
"""Of the overload: answers count that come within so many single-request latencies."""
PICTURES = 4
PAYS = 0.95
"""Rows are joined by rivals where that makes a row cost at most this much of what it costs alone."""
OFFLINE = "engine alone"


def run(plan: Plan) -> Contest:
    """A closed loop, Poisson arrivals at 70 %, and twice what the engine can do."""
    clock = Clock()
    images, spec = pictures(RESNET, PICTURES), spec_of(RESNET)
    own = own_requests(RESNET, images)
    tensors = {one.name: tuple(map(one.tensor, images)) for one in plan.taking_part()}
    with (
        alone(RESNET, plan.folder / "alone") as engine,
        started(plan, RESNET, own, spec, lambda rival: tensors[rival.name], ("triton",)) as (found, sheet),
    ):
        _closed(plan, engine, found, sheet)
        best = sheet.figure(OFFLINE, "rate")
        assert best is not None
        steady = Sheet()
        _poisson(plan, found, best.median * STEADY, steady)
        over = Sheet()
        slo = SLO * _single(sheet)
        _overload(plan, found, best.median * OVER, slo, over, images)
    facts = _facts(best.median, slo, spec) | {"floor": _floor(best.median, plan)}
    tables = {"closed": sheet.entries(), "poisson": steady.entries(), "overload": over.entries()}
    return contest(NAME, plan, clock, facts, tables, _goals(sheet, steady, over))


def pictures(served: Served, count: int) -> list[Any]:
    """One row each."""
    return [next(iter(served.inputs(seed, 1).values()))[0] for seed in range(count)]


def own_requests(served: Served, images: Sequence[Any], timeout_ms: float = 0.0) -> tuple[bytes, ...]:
    """Requests to our server: binary tensors, with a deadline where one is given."""
    name = manifest(served).signature.inputs[0].name
    found = []
    for image in images:
        payload = payloads.binary({name: image[None]}, {name: "FP32"})
        headers, body = dict(payload.headers), payload.body
        if timeout_ms:
            headers, body = _with_timeout(headers, body, round(timeout_ms * 1e3))
        found.append(rawload.post(f"/v2/models/{served.name}/infer", body, {"Content-Type": "application/octet-stream",
                                  **{key.title(): value for key, value in headers.items()}}))  # fmt: skip
    return tuple(found)


def _with_timeout(headers: dict[str, str], body: bytes, micros: int) -> tuple[dict[str, str], bytes]:
    length = int(headers["inference-header-content-length"])
    head = msgspec.json.decode(body[:length])
    head["parameters"]["timeout"] = micros
    encoded = msgspec.json.encode(head)
    return headers | {"inference-header-content-length": str(len(encoded))}, encoded + body[length:]


def spec_of(served: Served) -> Spec:
    """The same files, in the same runtime, with the same settings, for those who serve them without us."""
    found = manifest(served)
    candidate, spec = found.candidate, found.signature.inputs[0]
    rest = candidate.quantisation.rest if candidate.quantisation else candidate.precision
    hints = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
    config = {"INFERENCE_NUM_THREADS": candidate.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
              "INFERENCE_PRECISION_HINT": hints[str(rest)], **candidate.options}  # fmt: skip
    return Spec(
        runtime=found.format.backend,
        model=str(unpacked(served) / found.format.filename),
        threads=candidate.threads,
        config=config if found.format.backend == "openvino" else {},
        input=spec.name,
        row=tuple(candidate.profile.opt[spec.name][1:]),
        dtype=str(spec.dtype.numpy),
        batch=joined(found),
        wait=0.0,
        workers=instances(found),
    )


def instances(found: Manifest) -> int:
    """As many as our server starts of it."""
    return max(1, min(found.candidate.instances, usable_cores()))


def joined(found: Manifest) -> int:
    """How many rows are best joined, by the engine's own latency table; 1 where it does not pay."""
    costs = {row.rows: row.latency.median / row.rows for row in found.latency
             if row.instances == found.candidate.instances}  # fmt: skip
    best = min(costs, key=lambda rows: costs[rows], default=1)
    return best if 1 in costs and costs[best] <= PAYS * costs[1] else 1


def _closed(plan: Plan, engine: Alone, found: list[Contestant], sheet: Sheet) -> None:
    for one in found:
        with turn(one, sheet):
            load.warm(one.server, one.requests[0], MANY)
    engine.run(1, _count(), 0.3)
    for number, one in in_turn(plan.rounds, [None, *found]):
        said(f"resnet, closed loop, round {number + 1} of {plan.rounds}: {one.name if one else OFFLINE}")
        load.settle()
        if one is None:
            _alone(plan, engine, sheet)
            continue
        with turn(one, sheet):
            many = load.closed(one.server, one.requests[0], MANY, plan.seconds(CLOSED_SECONDS))
            single = load.closed(one.server, one.requests[0], 1, plan.seconds(ONE_SECONDS))
            sheet.note(one.name, rate=many.rate, p50_ms=many.p50_ms, p99_ms=many.p99_ms, cpu_ms=many.cpu_ms,
                       single_ms=single.p50_ms)  # fmt: skip


def _alone(plan: Plan, engine: Alone, sheet: Sheet) -> None:
    """As its build recommends it; rows joined as well, where its table says that this pays."""
    runs = {rows: engine.run(rows, _count(), plan.seconds(CLOSED_SECONDS)) for rows in {1, joined(manifest(RESNET))}}
    best = max(runs.values(), key=lambda one: one.rate)
    single = engine.run(1, 1, plan.seconds(ONE_SECONDS))
    sheet.note(OFFLINE, rate=best.rate, single_ms=single.run_ms)


def _count() -> int:
    return instances(manifest(RESNET))


def _poisson(plan: Plan, found: list[Contestant], rate: float, sheet: Sheet) -> None:
    answers: dict[str, list[float]] = {}
    for number, one in in_turn(plan.rounds, found):
        said(f"resnet, Poisson at {rate:.1f}/s, round {number + 1} of {plan.rounds}: {one.name}")
        load.settle()
        with turn(one, sheet):
            got = load.opened(one.server, one.requests, rate, plan.seconds(POISSON_SECONDS), number)
            answers.setdefault(one.name, []).extend(got.answered)
            sheet.note(one.name, p50_ms=load.percentile(got.answered, 50), failed=got.failed + len(got.refused),
                       cpu_ms=got.cpu_ms, late_ms=got.late_ms)  # fmt: skip
    for name, pooled in answers.items():
        sheet.note(name, pooled_p99_ms=load.percentile(pooled, 99), answers=len(pooled))


def _overload(
    plan: Plan, found: list[Contestant], rate: float, slo: float, sheet: Sheet, images: Sequence[Any]
) -> None:
    """Our requests name their deadline; the rivals know of none, and get fewer rounds: their queues empty slowly."""
    own = own_requests(RESNET, images, slo)
    for number, one in in_turn(plan.rounds, found):
        ours = one.name.startswith("tailorbird")
        if not ours and number:
            continue
        said(f"resnet, {rate:.1f}/s, round {number + 1} of {plan.rounds}: {one.name}")
        with turn(one, sheet):
            got = load.opened(one.server, own if ours else one.requests, rate, plan.seconds(OVER_SECONDS), number)
            sheet.note(one.name, goodput=got.within(slo), answered=len(got.answered) / got.elapsed,
                       p99_ms=load.percentile(got.answered, 99), refused=len(got.refused) / got.seconds,
                       failed=got.failed, cpu_ms=got.cpu_ms, refusal_p50_ms=load.percentile(got.refused, 50),
                       refusal_p99_ms=load.percentile(got.refused, 99))  # fmt: skip


def _single(sheet: Sheet) -> float:
    """A lone request's milliseconds at our slower isolation, over HTTP."""
    found = [sheet.figure(f"tailorbird {one}", "single_ms") for one in ("thread", "process")]
    return max((one.median for one in found if one), default=1000.0)


def _facts(rate: float, slo: float, spec: Spec) -> dict[str, str]:
    found = manifest(RESNET)
    return {
        "engine": found.candidate.name,
        "threads, instances": f"{found.candidate.threads} x {spec.workers}",
        "rivals join rows": f"at most {spec.batch}" if spec.batch > 1 else "no: a row costs the same in a batch",
        "rates": f"70 %: {rate * STEADY:.1f}/s, 200 %: {rate * OVER:.1f}/s",
        "SLO": f"{slo:.0f} ms",
        "connections": str(MANY),
    }


def _floor(rate: float, plan: Plan) -> str:
    """What no server of this engine that answers in order of arrival can be better than, at the same arrivals."""
    count = _count()
    times = [floor(rate * STEADY, plan.seconds(POISSON_SECONDS) * 50, seed, count / rate, count) for seed in range(5)]
    ratio = sorted(times)[len(times) // 2] / (count / rate)
    return f"with runs of always {count / rate * 1e3:.1f} ms on {count} instance(s), p99 at 70 % is {ratio:.1f}x a run"


def _goals(sheet: Sheet, steady: Sheet, over: Sheet) -> list[Goal]:
    found = []
    offline = sheet.figure(OFFLINE, "rate")
    for isolation in ("thread", "process"):
        name, mode = f"tailorbird {isolation}", f"{isolation} mode"
        rate, single = sheet.figure(name, "rate"), sheet.figure(name, "single_ms")
        tail, good = steady.figure(name, "pooled_p99_ms"), over.figure(name, "goodput")
        refusal = over.figure(name, "refusal_p50_ms")
        if rate and offline:
            found.append(Goal(f"closed loop of the engine's own throughput, {mode}", rate.median / offline.median,
                              ">=", 0.95, "x"))  # fmt: skip
        if tail and single:
            found.append(
                Goal(f"p99 at 70 % of a lone request's p50, {mode}", tail.median / single.median, "<=", 3, "x")
            )
        if good and rate:
            found.append(Goal(f"goodput at 200 % of the closed loop's rate, {mode}", good.median / rate.median,
                              ">=", 0.9, "x"))  # fmt: skip
        if refusal:
            found.append(Goal(f"median refusal at 200 %, {mode}", refusal.median, "<=", 5, " ms"))
    return found + _ahead(sheet, steady)


def _ahead(sheet: Sheet, steady: Sheet) -> list[Goal]:
    """Against each rival: throughput in the closed loop, and p99 at the same arrivals."""
    found = []
    for name in sheet.figures:
        if name == OFFLINE or name.startswith("tailorbird"):
            continue
        for isolation in ("thread", "process"):
            mine = f"tailorbird {isolation}"
            pairs = ((sheet, "rate", ">="), (steady, "pooled_p99_ms", "<="))
            for where, figure, sign in pairs:
                a, b = where.figure(mine, figure), where.figure(name, figure)
                if a and b:
                    words = "throughput" if sign == ">=" else "p99 at 70 %"
                    found.append(Goal(f"{words} against {name}, {isolation} mode", a.median / b.median, sign, 1.0, "x"))
    return found
