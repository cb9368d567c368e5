"""The queue in front of the executors: levels of priority, buckets, and what the next batch is made of."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Generic, TypeVar

LAST = sys.maxsize
"""The rank of requests without a priority."""


class Reason(StrEnum):
    """Why a batch had the size it had."""

    FULL = "full"
    """No more rows fit, or not those of the next request."""
    IDLE = "idle"
    """An executor was idle: it took all there was."""
    WAITED = "waited"
    """All there was after waiting for more."""
    DEADLINE = "deadline"
    """All there was, as waiting any longer would have missed a deadline."""
    BUCKET = "bucket"
    """All there was of its bucket; others waited that cannot be joined with it."""
    ALONE = "alone"
    """Its rows may not be joined with others'."""
    ORDERING = "ordering"
    """The next request in order is of another bucket."""


class Piece:
    """What is queued: a request, or one part of a request with more rows than fit into a batch.

    Args:
        bucket: pieces of equal buckets may be joined.
        rows: how many it has.
        rank: smaller ones go first.
        order: the place in the order of arrival.
    """

    __slots__ = ("alone", "bucket", "order", "rank", "rows")

    def __init__(self, bucket: object, rows: int, rank: int, order: int) -> None:
        self.bucket = bucket
        self.rows = rows
        self.rank = rank
        self.order = order
        self.alone = False
        """Not to be joined with others."""


P = TypeVar("P", bound=Piece)
_Line = OrderedDict[int, P]
Price = Callable[[object, int, int], float]


class _Lane(Generic[P]):
    """The pieces of one bucket in one level."""

    __slots__ = ("pieces", "rows", "seconds")

    def __init__(self) -> None:
        self.pieces: _Line[P] = OrderedDict()
        self.rows = 0
        self.seconds = 0.0


class _Level(Generic[P]):
    """The pieces of one rank: all of them by age, and by bucket."""

    __slots__ = ("changed", "lanes", "pieces", "seconds")

    def __init__(self) -> None:
        self.pieces: _Line[P] = OrderedDict()
        self.lanes: dict[object, _Lane[P]] = {}
        self.seconds = 0.0
        self.changed: set[object] = set()
        """Buckets whose lanes have other pieces than when they were priced."""


class Queue(Generic[P]):
    """Pieces that wait. The oldest of the first level leads the next batch; others of its bucket join it.

    So no bucket starves: whatever is oldest goes next, however few share its shape. Adding and removing cost the same
    however many wait; what they change is priced when somebody asks how long a newcomer would wait.

    Args:
        price: seconds of work, of a bucket, that so many rows in so many pieces are.
        in_order: batches never reach past a piece of another bucket, and there is one level.
    """

    def __init__(self, price: Price, *, in_order: bool = False) -> None:
        self._price = price
        self._in_order = in_order
        self._levels: dict[int, _Level[P]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[P]:
        """All pieces, the first level's first, each level's by age."""
        for rank in sorted(self._levels):
            yield from self._levels[rank].pieces.values()

    def add(self, piece: P) -> None:
        """Queue it behind all of its rank."""
        level = self._levels.get(piece.rank)
        if level is None:
            level = self._levels[piece.rank] = _Level()
        lane = level.lanes.get(piece.bucket)
        if lane is None:
            lane = level.lanes[piece.bucket] = _Lane()
        level.pieces[piece.order] = lane.pieces[piece.order] = piece
        self._count += 1
        lane.rows += piece.rows
        level.changed.add(piece.bucket)

    def put_back(self, pieces: Iterable[P]) -> None:
        """Queue pieces that were taken in front of all others of their rank, in their order."""
        for piece in sorted(pieces, key=lambda one: -one.order):
            self.add(piece)
            level = self._levels[piece.rank]
            for line in (level.pieces, level.lanes[piece.bucket].pieces):
                line.move_to_end(piece.order, last=False)

    def remove(self, piece: P) -> bool:
        """Take one out; False when it does not wait."""
        level = self._levels.get(piece.rank)
        if level is None or level.pieces.pop(piece.order, None) is None:
            return False
        self._count -= 1
        lane = level.lanes[piece.bucket]
        del lane.pieces[piece.order]
        lane.rows -= piece.rows
        level.changed.add(piece.bucket)
        if not lane.pieces:
            level.seconds -= lane.seconds
            del level.lanes[piece.bucket]
        if not level.pieces:
            del self._levels[piece.rank]
        return True

    def leader(self) -> P:
        """The piece that goes next; the queue must not be empty."""
        return next(iter(self._levels[min(self._levels)].pieces.values()))

    def joinable(self) -> int | None:
        """Rows that wait when all could be one batch; None where some are of another bucket or alone."""
        lead = self.leader()
        if lead.alone or any(len(level.lanes) > 1 or lead.bucket not in level.lanes for level in self._levels.values()):
            return None
        return sum(level.lanes[lead.bucket].rows for level in self._levels.values())

    def take(self, most: int) -> tuple[list[P], Reason]:
        """Take the next batch out, of at most so many rows unless its leader alone has more.

        Returns:
            At least one piece, and why there are no more: FULL, IDLE, BUCKET, ALONE or ORDERING.
        """
        lead = self.leader()
        batch, reason = ([lead], Reason.ALONE) if lead.alone else self._joined(lead, most)
        for piece in batch:
            self.remove(piece)
        return batch, Reason.BUCKET if reason is Reason.IDLE and self._count else reason

    def ahead(self, rank: int, bucket: object) -> tuple[float, float, int]:
        """What goes before a newcomer.

        Returns:
            Seconds of work in earlier levels and in other buckets of its own level; then seconds and rows in its
            own bucket.
        """
        for level in self._levels.values():
            self._reprice(level)
        seconds = sum(level.seconds for other, level in self._levels.items() if other < rank)
        own = self._levels.get(rank)
        lane = own.lanes.get(bucket) if own else None
        if own is None or lane is None:
            return seconds + (own.seconds if own else 0.0), 0.0, 0
        return seconds + own.seconds - lane.seconds, lane.seconds, lane.rows

    def _joined(self, lead: P, most: int) -> tuple[list[P], Reason]:
        batch, room = [lead], most - lead.rows
        for piece in self._after(lead):
            if room <= 0:
                break
            if self._in_order and piece.bucket != lead.bucket:
                return batch, Reason.ORDERING
            if piece.rows > room or piece.alone:
                return batch, Reason.ALONE if piece.alone else Reason.FULL
            batch.append(piece)
            room -= piece.rows
        return batch, Reason.FULL if room <= 0 else Reason.IDLE

    def _after(self, lead: P) -> Iterator[P]:
        """Those that may join, the first level's first, by age."""
        if self._in_order:
            lines = [level.pieces for level in self._levels.values()]
        else:
            levels = [self._levels[rank] for rank in sorted(self._levels)]
            lines = [level.lanes[lead.bucket].pieces for level in levels if lead.bucket in level.lanes]
        for line in lines:
            yield from (piece for piece in line.values() if piece is not lead)

    def _reprice(self, level: _Level[P]) -> None:
        for bucket in level.changed:
            lane = level.lanes.get(bucket)
            if lane is not None:
                before, lane.seconds = lane.seconds, self._price(bucket, lane.rows, len(lane.pieces))
                level.seconds += lane.seconds - before
        level.changed.clear()
