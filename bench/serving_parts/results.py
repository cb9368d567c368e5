"""Results: figures round by round, the contests they belong to, and the file that keeps them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tailorbird.domain.errors import UsageError

PATH = Path("bench-output") / "serving.json"


class Figure(msgspec.Struct, frozen=True):
    """One quantity, in every round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the interquartile range; 0 of a single round."""
        if len(self.values) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / 2

    def over(self, other: Figure) -> Figure:
        """The ratios to another's values, round by round: what disturbed both disturbs them little."""
        return Figure(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


class Entry(msgspec.Struct, frozen=True):
    """What was found of one contestant, by the name of the figure."""

    name: str
    figures: dict[str, Figure] = {}
    note: str = ""
    """Why figures are absent, or what they stand on."""


class Goal(msgspec.Struct, frozen=True):
    """A number that was aimed for."""

    what: str
    got: float
    sign: str
    """``>=`` or ``<=``."""
    wanted: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.got >= self.wanted if self.sign == ">=" else self.got <= self.wanted

    def __str__(self) -> str:
        word = "met" if self.met else "NOT met"
        return f"{self.what}: {self.got:.3g}{self.unit} ({self.sign} {self.wanted:g}{self.unit}: {word})"


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer."""

    name: str
    date: str
    seconds: float
    """What the contest took."""
    device: dict[str, str]
    versions: dict[str, str]
    rounds: int
    facts: dict[str, str] = {}
    """What it stands on: engine, threads, rates."""
    tables: dict[str, tuple[Entry, ...]]
    goals: tuple[Goal, ...] = ()
    load: float = 0.0
    """The machine's load average when it began: above about 0.3 somebody else was at work."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    contests: tuple[Contest, ...] = ()


def load(path: Path = PATH) -> tuple[Contest, ...]:
    """The contests of the file; none where there is no file.

    Raises:
        UsageError: the file is not one of ours, or was written by an older benchmark.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record).contests
    except FileNotFoundError:
        return ()
    except msgspec.DecodeError as error:
        raise UsageError(f"cannot read {path}", got=error, hint="remove it to measure anew") from None


def merged(known: Sequence[Contest], fresh: Contest, order: Sequence[str]) -> tuple[Contest, ...]:
    """Known contests with a fresh one in the place of the old one, in the order given."""
    found = {one.name: one for one in (*known, fresh)}
    return tuple(sorted(found.values(), key=lambda one: order.index(one.name) if one.name in order else len(order)))


def save(contests: Sequence[Contest], path: Path = PATH) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".unfinished")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(Record(tuple(contests))), indent=2))
    aside.replace(path)
