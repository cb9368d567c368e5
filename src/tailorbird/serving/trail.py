"""Trails: what one request went through inside the server, noted on its way for whoever traces it."""

from __future__ import annotations

import msgspec


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One run that a request had rows in. Times are of ``time.monotonic``, in seconds."""

    taken: float
    """When its rows were taken out of the queue; until then they waited."""
    began: float
    """When the engine was given them."""
    ended: float
    rows: int
    """Of the whole batch."""
    requests: int
    """How many had rows in it."""
    padding: int
    reason: str
    """Why the batch had that size."""
    failed: bool


class Trail:
    """The notes of one request; of one with more rows than a run takes there are several legs."""

    __slots__ = ("arrived", "engine", "legs", "version")

    def __init__(self) -> None:
        self.legs: list[Leg] = []
        self.arrived = 0.0
        """When it was handed to the model; 0 before."""
        self.engine = ""
        """What ran it, as its build named it."""
        self.version = 0
        """Who answered, or would have; 0 while that is not known."""
