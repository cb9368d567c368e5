"""From the start of a server to its first answer, with an engine of 100 MB."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from bench import rawload
from bench.servers import ours
from bench.servers.engines import RESNET_FP32, manifest
from bench.servers.process import Server
from bench.servers.rivals import RIVALS
from bench.serving_parts.plan import Clock, Plan, Sheet, attempt, contest, fresh, in_turn, said
from bench.serving_parts.resnet import own_requests, pictures, spec_of
from bench.serving_parts.results import Contest, Goal

NAME = "start"
SECONDS = 2.0
"""What is asked for, at most."""

RIVALS_ROUNDS = 2
"""They are there for comparison only, and some take long to start."""


def run(plan: Plan) -> Contest:
    """Everybody starts alone, in turn; the files are in the page cache from the second round on."""
    clock, sheet = Clock(), Sheet()
    images = pictures(RESNET_FP32, 1)
    names = [*(f"tailorbird {one}" for one in ours.ISOLATIONS), *(one.name for one in plan.taking_part(("triton",)))]
    for number, name in in_turn(plan.rounds, names):
        if number >= RIVALS_ROUNDS and not name.startswith("tailorbird"):
            continue
        said(f"start, round {number + 1} of {plan.rounds}: {name}")
        request = _request(name, images)
        with attempt(name, sheet):
            sheet.note(name, **_first_answer(_start(name, fresh(plan.folder, name)), request))
    size = RESNET_FP32.bundle.stat().st_size / 1e6
    facts = {"engine": f"{manifest(RESNET_FP32).candidate.name}, {size:.0f} MB"}
    return contest(NAME, plan, clock, facts, {"servers": sheet.entries()}, _goals(sheet))


def _start(name: str, folder: Path) -> AbstractContextManager[Server]:
    if name.startswith("tailorbird"):
        return ours.served(RESNET_FP32.bundle, name.split()[1], folder)
    rival = next(one for one in RIVALS if one.name == name)
    server: AbstractContextManager[Server] = rival.start(spec_of(RESNET_FP32), folder)
    return server


def _request(name: str, images: list[object]) -> bytes:
    if name.startswith("tailorbird"):
        return own_requests(RESNET_FP32, images)[0]
    return next(one for one in RIVALS if one.name == name).tensor(images[0])


def _first_answer(start: AbstractContextManager[Server], request: bytes) -> dict[str, float]:
    """Seconds until it says that it is ready, and those of the first request after that; and what CPU it took."""
    with start as server:
        first = rawload.run("127.0.0.1", server.port, request, 1, 1e-3).seconds
        return {"seconds": server.started + first, "cpu_s": server.cpu_seconds()}


def _goals(sheet: Sheet) -> list[Goal]:
    return [
        Goal(f"start to first answer, {isolation} mode", found.median, "<=", SECONDS, " s")
        for isolation in ours.ISOLATIONS
        if (found := sheet.figure(f"tailorbird {isolation}", "seconds"))
    ]
