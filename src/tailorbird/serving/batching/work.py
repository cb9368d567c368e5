"""Work: how long what waits will take, by the engine's costs and with all executors that are alive."""

from __future__ import annotations

import math

from tailorbird.serving.batching.costs import CostTable
from tailorbird.serving.batching.executors import Slots
from tailorbird.serving.batching.forms import Bucket, Form, Rules
from tailorbird.serving.batching.queueing import Queue
from tailorbird.serving.batching.requests import Part


class Work:
    """Estimates in seconds; 0 where the table says nothing.

    Args:
        rules: what runs take.
        table: what they cost.
        slots: the executors.
    """

    def __init__(self, rules: Rules, table: CostTable, slots: Slots) -> None:
        self._rules = rules
        self._slots = slots
        self.known = table.known

    def seconds(self, bucket: object, rows: int, count: int) -> float:
        """Of one executor, for ``count`` requests of a bucket with so many rows in all."""
        if not self.known or not rows or not isinstance(bucket, Bucket):
            return 0.0
        busy = self._slots.alive
        if not self._rules.joins:
            return count * bucket.costs.seconds(math.ceil(rows / count), busy)
        full, rest = divmod(rows, self._rules.most)
        most = full * bucket.costs.seconds(self._rules.most, busy) if full else 0.0
        return most + (bucket.costs.seconds(rest, busy) if rest else 0.0)

    def alone(self, form: Form) -> float:
        """Until the answer to a request that nobody is before, usually."""
        full, rest = self._runs(form.rows)
        costs = form.bucket.costs
        seconds = costs.seconds(rest, self._slots.busy + 1)
        if not full:
            return seconds
        return seconds + full * costs.seconds(self._rules.most, self._slots.alive) / max(1, self._slots.alive)

    def behind(self, form: Form, rank: int, queue: Queue[Part]) -> float:
        """Until the answer to a request behind what is queued: the work ahead, and at most what its own run takes.

        Ahead of it are earlier levels, other buckets of its own level, and the full batches of its own bucket;
        what is left of those rows runs with it.
        """
        costs, busy = form.bucket.costs, self._slots.alive
        others, own, rows = queue.ahead(rank, form.bucket)
        if not self._rules.joins:
            return self._slots.start_after(others + own) + costs.at_most(form.rows, busy)
        full, rest = self._runs(rows + form.rows)
        work = others + full * costs.seconds(self._rules.most, busy)
        return self._slots.start_after(work) + costs.at_most(rest, busy)

    def _runs(self, rows: int) -> tuple[int, int]:
        """Full batches before the last one, and the rows of the last."""
        if not self._rules.joins:
            return 0, rows
        full = (rows - 1) // self._rules.most
        return full, rows - full * self._rules.most
