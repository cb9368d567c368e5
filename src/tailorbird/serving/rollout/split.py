"""The split: which requests go to a canary. As many as its weight says, and chosen so that both sides can be compared.

Requests are dealt out in groups, one after another. In each, one request goes to the side that gets fewer, and which
one is left to chance: as close to the weight as whole requests can be at any moment, and yet no client whose requests
come in a rhythm has all of one kind answered by the canary. A plain counter or error diffusion would do that to it.
"""

from __future__ import annotations

import random

import msgspec

COMPARED = 32
"""Requests of a group that are compared, at most: the odd one and others, chosen by chance."""


class Seat(msgspec.Struct, frozen=True, gc=False):
    """Where one request of a group goes."""

    canary: bool
    odd: bool
    """The one of its group that goes to the side that gets fewer."""
    compared: bool


class Split:
    """Deals out requests.

    Args:
        weight: the canary's share of the requests, 0 to 1. At any moment it has had its share of all requests so
            far, but for one request.
        chance: where the choice in each group comes from.
    """

    def __init__(self, weight: float, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()
        self.canary_is_odd = weight <= 0.5
        self._rare = min(weight, 1 - weight)
        self._usual = Seat(not self.canary_is_odd, odd=False, compared=False)
        self._other = Seat(not self.canary_is_odd, odd=False, compared=True)
        self._odd = Seat(self.canary_is_odd, odd=True, compared=True)
        self._seats: list[Seat] = []
        self._groups = 0
        self._dealt = 0
        self.size = 0
        """How many requests of the present group are compared."""

    @property
    def begins(self) -> bool:
        """Whether the next request begins a group."""
        return not self._seats

    def seat(self) -> Seat:
        """Where the next request goes."""
        if not self._rare:
            return self._usual
        if not self._seats:
            self.deal()
        return self._seats.pop()

    def deal(self) -> None:
        """Begin a group, if there are any."""
        if not self._rare:
            return
        self._groups += 1
        end = int(self._groups / self._rare + 1e-9)
        length, self._dealt = end - self._dealt, end
        self.size = min(length, COMPARED)
        if length > COMPARED:
            seats = [self._usual] * length
            for place in self._chance.sample(range(length), COMPARED):
                seats[place] = self._other
            seats[place] = self._odd  # the last of those places: any of them is as likely
        else:
            seats = [self._other] * length
            seats[self._chance.randrange(length)] = self._odd
        self._seats = seats
