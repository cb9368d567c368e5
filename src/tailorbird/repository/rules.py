"""What each verb of a repository's channels may record: pure decisions on what stands in the log.

Each is asked again when another writer was first, so nothing is decided on what was true a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from tailorbird.domain.errors import RepositoryError
from tailorbird.repository.channels import Entry, Standing, What
from tailorbird.repository.gc import UNFINISHED, Garbage
from tailorbird.repository.log import Draft


class Keep(msgspec.Struct, frozen=True):
    """What garbage collection must leave."""

    older_than: timedelta = timedelta(days=7)
    """Versions that were retired, or that a channel pointed at, within this time."""
    newest: int = 0
    """So many of each model's newest retired versions."""
    unfinished: timedelta = timedelta(days=1)
    """Unfinished things younger than this, where nothing else tells whether their owner lives."""


WHEREVER = -1
"""What a channel pointed at before, where that does not matter."""


def promoting(
    standing: Standing, model: str, version: int, channel: str, reason: str, before: int | None = WHEREVER
) -> Draft | Entry:
    """Let a channel point at a version; where it does, the entry by which. Refuses one retired or collected.

    Refuses, too, where a ``before`` is named and the channel no longer points there: somebody else has decided since.
    """
    _refuse_unserved(standing, model, version)
    pointer = standing.pointer(model, channel)
    if pointer and pointer.version == version:
        return pointer
    live = standing.live(model, channel)
    if before not in (WHEREVER, live):
        raise RepositoryError(f"channel '{channel}' of model '{model}' moved meanwhile", got=_pointed(live),
                              expected=_pointed(before), hint=f"promote version {version} by hand")  # fmt: skip
    return Draft(what=What.PROMOTE, model=model, version=version, channel=channel, reason=reason)


def _pointed(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def rolling_back(standing: Standing, model: str, channel: str, reason: str) -> Draft:
    """Let a channel point at what was live before; refuses where nothing that can be served was."""
    version = standing.before(model, channel)
    if version is None:
        live = standing.live(model, channel)
        got = f"version {live}, and no other before it" if live else "a channel that never pointed at a version"
        raise RepositoryError(f"channel '{channel}' of model '{model}' has nothing to go back to", got=got,
                              hint="promote a version there: tailorbird repo promote")  # fmt: skip
    return Draft(what=What.ROLLBACK, model=model, version=version, channel=channel, reason=reason)


def retiring(standing: Standing, model: str, version: int, reason: str) -> Draft:
    """Take a version out of service; refuses while a channel points at it."""
    _refuse_unserved(standing, model, version)
    if names := standing.names_at(model, version):
        raise RepositoryError(f"version {version} of model '{model}' is live", got=f"channel {', '.join(names)}",
                              expected="no channel that points at it",
                              hint="promote another version there, or roll back, and then retire it")  # fmt: skip
    return Draft(what=What.RETIRE, model=model, version=version, reason=reason)


def restoring(standing: Standing, model: str, version: int, reason: str) -> Draft:
    """Take back a retirement; refuses for a version that is not retired."""
    if (model, version) not in standing.retired:
        retired = ", ".join(str(number) for name, number in sorted(standing.retired) if name == model)
        raise RepositoryError(f"version {version} of model '{model}' is not retired",
                              hint=f"retired versions: {retired or 'none'}")  # fmt: skip
    return Draft(what=What.RESTORE, model=model, version=version, reason=reason)


def due(standing: Standing, model: str, versions: Iterable[int], keep: Keep) -> tuple[int, ...]:
    """Versions that nothing needs any more: retired long enough, no channel on them, none there lately."""
    edge = datetime.now(UTC) - keep.older_than
    retired = sorted(number for number in versions if (model, number) in standing.retired)
    kept = set(retired[len(retired) - keep.newest :]) if keep.newest else set()
    return tuple(number for number in retired if number not in kept and _rested(standing, model, number, edge))


def collecting(
    standing: Standing, garbage: Garbage, versions: Iterable[int], keep: Keep, digest: str
) -> Draft | Entry | None:
    """Remove this very version; its tombstone where it has one, None where it is needed by now."""
    model, version = garbage.model, garbage.version
    if (model, version) in standing.collected:
        return standing.collected[model, version]
    if garbage.kind not in UNFINISHED and version not in due(standing, model, versions, keep):
        return None
    if standing.names_at(model, version):  # whatever kind of garbage it is taken for
        return None
    return Draft(what=What.COLLECT, model=model, version=version, reason=garbage.kind, manifest=digest)


def _rested(standing: Standing, model: str, version: int, edge: datetime) -> bool:
    return all(moment <= edge for moment in _last_needed(standing, model, version))


def _last_needed(standing: Standing, model: str, version: int) -> Iterator[datetime]:
    yield standing.retired[model, version].time
    left = standing.left(model, version)
    if left is not None:
        yield left
    if standing.names_at(model, version):
        yield datetime.max.replace(tzinfo=UTC)


def _refuse_unserved(standing: Standing, model: str, version: int) -> None:
    if (model, version) in standing.collected:
        raise RepositoryError(f"version {version} of model '{model}' was removed",
                              got=f"its tombstone of {standing.collected[model, version].time:%Y-%m-%d %H:%M:%S} UTC",
                              hint="publish it again: it gets a new number")  # fmt: skip
    if (model, version) in standing.retired:
        raise RepositoryError(f"version {version} of model '{model}' is retired",
                              hint="take that back first: tailorbird repo restore")  # fmt: skip
