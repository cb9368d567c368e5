"""Instances: rows of the latency table with several sessions of one engine side by side."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tailorbird.backends.host import usable_cores
from tailorbird.backends.isolate import Worker
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.search import steps
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.latency import LatencyRow

MOST_ON_A_DEVICE = 4
"""Sessions that share an accelerator: cores say nothing about it, and each takes its memory."""

_MEASURE = f"{steps.__name__}:{steps.measure_engine.__name__}"


def side_by_side(args: steps.StepArgs, worker: Callable[[], Worker], log: BuildLog) -> tuple[LatencyRow, ...]:
    """Rows with 2, 4, 8 ... instances, as far as this machine has cores for them; none of a candidate of several.

    Args:
        args: the engine, gated, with one instance.
        worker: makes a fresh process.
        log: receives each number of instances that was measured, or why it was not.
    """
    if args.candidate.instances > 1:
        return ()
    most = usable_cores() // args.candidate.threads
    if args.candidate.target.device != "cpu":
        most = min(most, MOST_ON_A_DEVICE)
    rows: list[LatencyRow] = []
    for instances in (1 << power for power in range(1, most.bit_length())):
        several = msgspec.structs.replace(args.candidate, instances=instances)
        rows += _measured(msgspec.structs.replace(args, candidate=several), worker, log)
    return tuple(rows)


def _measured(args: steps.StepArgs, worker: Callable[[], Worker], log: BuildLog) -> tuple[LatencyRow, ...]:
    instances = args.candidate.instances
    with worker() as process:
        try:
            rows = process.call(_MEASURE, args, steps.Measured).rows
        except TailorbirdError as error:  # the engine is chosen and gated; the server will run one instance of it
            log.write("not measured", instances=instances, reason=error.message)
            return ()
    log.write("side by side", instances=instances)
    return rows
