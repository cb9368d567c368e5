"""What queueing alone makes of a run's time: first come, first served, by runs that always take as long."""

from __future__ import annotations

import heapq

import numpy as np

from tailorbird.load.arrivals import poisson


def floor(rate: float, seconds: float, seed: int, run_seconds: float, instances: int) -> float:
    """99th percentile, in seconds, of the time from arrival to answer: M/D/c, simulated.

    Args:
        rate: arrivals a second.
        seconds: simulated time.
        seed: of the arrivals.
        run_seconds: of every run, of one row.
        instances: runs at once.
    """
    free = [0.0] * instances
    taken = []
    for arrival in poisson(rate, seconds, seed):
        begun = max(arrival.at, heapq.heappop(free))
        heapq.heappush(free, begun + run_seconds)
        taken.append(begun + run_seconds - arrival.at)
    return float(np.percentile(taken, 99))
