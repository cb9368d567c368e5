"""Options that the user asks for: given to the candidates of every backend that has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from tailorbird.backends.base import Capabilities
from tailorbird.domain.candidate import Candidate, Option
from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.target import Target


def with_options(
    candidates: Sequence[Candidate], able: Sequence[Capabilities], texts: Sequence[str]
) -> list[Candidate]:
    """The candidates with the options asked for, each once.

    Where some would be tried just so, they alone of their target and precision stay; otherwise all are given it.

    Args:
        candidates: of all backends.
        able: what the backends can do, and which options each has.
        texts: ``name=value`` each.

    Raises:
        UsageError: a text is no option, or no backend to try has it.
    """
    asked = dict(map(_read, texts))
    known = {one.target: frozenset(one.options) for one in able}
    _check(asked, known)
    found = list(candidates)
    for name, value in asked.items():
        able_to = {one.target for one in candidates if name in known[one.target]}
        as_asked = {(one.target, one.precision) for one in found if one.options.get(name) == value}
        found = [
            msgspec.structs.replace(one, options=one.options | {name: value}) if one.target in able_to else one
            for one in found
            if (one.target, one.precision) not in as_asked or one.options.get(name) == value
        ]
    return list({one.name: one for one in found}.values())


def _read(text: str) -> tuple[str, Option]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError("cannot read an option", got=repr(text), expected="name=value")
    if value in {"true", "false"}:
        return name, value == "true"
    return name, int(value) if re.fullmatch(r"-?\d+", value) else value


def _check(asked: Mapping[str, Option], known: Mapping[Target, frozenset[str]]) -> None:
    every = tuple(sorted(frozenset[str]().union(*known.values())))
    for name in asked.keys() - set(every):
        close = nearest(name, every)
        raise UsageError(f"no backend to try has an option '{name}'", expected=", ".join(every) or "none",
                         hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
