"""Options that the user asks for: given to the candidates of every backend that has them."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import msgspec

from tailorbird.backends.base import Capabilities
from tailorbird.domain.candidate import Candidate, Option
from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.target import Target


def with_options(
    candidates: Sequence[Candidate], able: Sequence[Capabilities], texts: Sequence[str]
) -> list[Candidate]:
    """The candidates with the options asked for, each once.

    Where some of a target would be tried just so, they alone of their precision stay, and other precisions as they are;
    otherwise all are given it.

    Args:
        candidates: of all backends.
        able: what the backends can do, and which options each has.
        texts: ``name=value`` each.

    Raises:
        UsageError: a text is no option, or no backend to try has it, or may have that value.
    """
    found = list(candidates)
    for name, value in dict(map(_read, texts)).items():
        _check(name, value, able)
        takers = {one.target for one in able if name in one.options and _fits(value, one.options[name])}
        found = _with_one(found, name, value, takers)
    return list({one.name: one for one in found}.values())


def _with_one(found: Sequence[Candidate], name: str, value: Option, takers: Container[Target]) -> list[Candidate]:
    """One option given to these targets' candidates, or those picked that have it."""
    just_so = {(one.target, one.precision) for one in found if one.target in takers and one.options.get(name) == value}
    targets = {target for target, _ in just_so}
    return [
        one if one.target in targets or one.target not in takers else _given(one, name, value)
        for one in found
        if (one.target, one.precision) not in just_so or one.options.get(name) == value
    ]


def _given(one: Candidate, name: str, value: Option) -> Candidate:
    return msgspec.structs.replace(one, options=one.options | {name: value})


def _read(text: str) -> tuple[str, Option]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError("cannot read an option", got=repr(text), expected="name=value")
    if value in {"true", "false"}:
        return name, value == "true"
    return name, int(value) if re.fullmatch(r"-?\d+", value) else value


def _check(name: str, value: Option, able: Sequence[Capabilities]) -> None:
    every = sorted({known for one in able for known in one.options})
    if name not in every:
        close = nearest(name, tuple(every))
        raise UsageError(f"no backend to try has an option '{name}'", expected=", ".join(every) or "none",
                         hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    choices = [one.options[name] for one in able if name in one.options]
    if not any(_fits(value, one) for one in choices):
        words = dict.fromkeys(_word(choice) for one in choices for choice in one)
        close = nearest(_word(value), tuple(words))
        raise UsageError(f"option '{name}' cannot be that", got=_word(value), expected=" or ".join(words),
                         hint=f"did you mean '{close}'?" if close else None)  # fmt: skip


def _fits(value: Option, choices: Sequence[Option]) -> bool:
    """Whether it is one of them, or there are none to choose from; a truth value is no number."""
    return not choices or any(type(value) is type(one) and value == one for one in choices)


def _word(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
