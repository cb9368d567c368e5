"""Cases that travel: inputs and reference outputs kept beside an engine, so that another machine can judge it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tailorbird.builder.gate.judge import Case
from tailorbird.domain.errors import BundleError

CASES = "tailorbird/cases"
"""The folder of an unqualified version that holds them."""
MOST_BYTES = 256 << 20
"""What they may take. Every place keeps its first set, whatever its size: without it the gate would be blind there."""

MOST_SETS = 512
"""The same for their number: a bundle holds so many files at most."""

_RECORD = "cases.json"


class Travelling(msgspec.Struct, frozen=True):
    """What is judged, by which metric; files are named relative to the folder."""

    cases: tuple[Case, ...]
    metric: str
    left: int = 0
    """Sets of inputs that stayed behind."""


_record = msgspec.json.Decoder(Travelling)  # made at import, see domain/manifest.py


def send(cases: Sequence[Case], metric: str, folder: Path, most_bytes: int = MOST_BYTES) -> Travelling:
    """Copy cases and their arrays into a new folder, as many as there is room for.

    Args:
        cases: in the gate's order.
        metric: what scores labels; empty without.
        folder: is made.
        most_bytes: see :data:`MOST_BYTES`.

    Returns:
        What travels.
    """
    folder.mkdir(parents=True)
    kept = bounded(cases, most_bytes)
    for case in kept:
        for file in _files(case):
            shutil.copyfile(file, folder / file.name)
    found = Travelling(tuple(map(_relative, kept)), metric, len(cases) - len(kept))
    (folder / _RECORD).write_bytes(msgspec.json.encode(found))
    return found


def receive(folder: Path) -> Travelling:
    """Cases of a verified version, with their files in ``folder``.

    Raises:
        BundleError: there are none, or they cannot be read.
    """
    try:
        found = _record.decode((folder / _RECORD).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError("the bundle holds nothing to judge its engine by", got=error, expected=f"{CASES}/{_RECORD}",
                          hint="build it again: tailorbird build --target, or --no-qualify") from None  # fmt: skip
    return msgspec.structs.replace(found, cases=tuple(_placed(case, folder) for case in found.cases))


def bounded(cases: Sequence[Case], most_bytes: int) -> list[Case]:
    """The first set of every place, then the second of every place and so on while there is room; in their order."""
    seen: Counter[str] = Counter()
    ranks = []
    for case in cases:
        ranks.append(seen[case.place.edge])
        seen[case.place.edge] += 1
    kept: set[int] = set()
    spent = 0
    for number in sorted(range(len(cases)), key=lambda one: (ranks[one], one)):
        size = sum(file.stat().st_size for file in _files(cases[number]))
        room = len(kept) < MOST_SETS and spent + size <= most_bytes
        if ranks[number] == 0 or room:
            kept.add(number)
            spent += size
    return [case for number, case in enumerate(cases) if number in kept]


def _files(case: Case) -> list[Path]:
    return [Path(text) for text in (case.inputs, case.outputs, case.labels) if text]


def _relative(case: Case) -> Case:
    return _renamed(case, None)


def _placed(case: Case, folder: Path) -> Case:
    return _renamed(case, folder)


def _renamed(case: Case, folder: Path | None) -> Case:
    def moved(text: str) -> str:
        name = Path(text).name  # whatever a record says, nothing outside the folder is read
        return text and (str(folder / name) if folder else name)

    return msgspec.structs.replace(case, inputs=moved(case.inputs), outputs=moved(case.outputs),
                                   labels=moved(case.labels))  # fmt: skip
