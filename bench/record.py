"""``bench-output/engines.json``: rows by model, each with its machine and date, so that it can be made in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.figures import Row
from tailorbird.domain.errors import UsageError

PATH = Path("bench-output") / "engines.json"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    rows: tuple[Row, ...] = ()


def load(path: Path = PATH) -> tuple[Row, ...]:
    """The rows of the file; none where there is no file.

    Raises:
        UsageError: the file is not one of ours, or was written by an older benchmark.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record).rows
    except FileNotFoundError:
        return ()
    except msgspec.DecodeError as error:
        raise UsageError(f"cannot read {path}", got=error, hint="measure anew without --append") from None


def merged(known: Sequence[Row], fresh: Sequence[Row], order: Sequence[str]) -> tuple[Row, ...]:
    """Known rows, each replaced by a fresh one of the same model, in the order given; others come last."""
    rows = {row.model: row for row in (*known, *fresh)}
    place = {name: number for number, name in enumerate(order)}
    return tuple(sorted(rows.values(), key=lambda row: place.get(row.model, len(place))))


def save(rows: Sequence[Row], path: Path = PATH) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".unfinished")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(Record(tuple(rows))), indent=2))
    aside.replace(path)
