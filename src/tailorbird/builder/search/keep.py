"""How much to keep in float: a prediction from each group's error, and a bracket that closes on the least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


def predicted(noises: Sequence[Mapping[str, float]], allowed: float) -> int:
    """The fewest groups to keep so that the errors of the others add up to no more than is allowed.

    Args:
        noises: of each group alone, the guiltiest first: energy of the error over that of the signal, by output.
            Errors of different layers are nearly independent, so their energies add.
        allowed: the most that the sum may be, for each output.

    Returns:
        At least one, because keeping none was refused, and less than all of them.
    """
    for count in range(1, len(noises)):
        rest = noises[count:]
        if all(sum(one[name] for one in rest) <= allowed for name in rest[0]):
            return count
    return max(1, len(noises) - 1)


class Bracket(msgspec.Struct, frozen=True):
    """``few`` groups were too few to hold the budget; ``many`` hold it, or make it too slow to be of use."""

    few: int
    many: int

    def with_result(self, count: int, refused: bool) -> Bracket:
        """The bracket once ``count`` was tried."""
        return Bracket(count, self.many) if refused else Bracket(self.few, count)

    def following(self, refused: bool) -> int | None:
        """What to try next, None when nothing is left between.

        Predictions are near the mark, so after a refusal the next step is short; after a success it is half-way.
        """
        gap = self.many - self.few
        if gap < 2:
            return None
        return self.few + max(1, gap // 3) if refused else self.few + gap // 2
