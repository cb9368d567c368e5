"""The repository: versions of models, and channels that point at them. The promises, whatever the store.

A version appears whole or not at all, and stays; its number is never used again. Public methods are here, once;
a store (a folder: ``store.py``; object storage: ``remote.py``) writes the hooks of ``hooks.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import BundleError, ModelNotFound, RepositoryError, TailorbirdError, VersionNotFound
from tailorbird.domain.files import reason
from tailorbird.domain.manifest import Manifest, decode_manifest
from tailorbird.repository import layout, rules
from tailorbird.repository.channels import Entry, Live, Standing
from tailorbird.repository.gc import UNFINISHED, Garbage
from tailorbird.repository.hooks import Hooks
from tailorbird.repository.incoming import copied, settled
from tailorbird.repository.log import Draft, Log, checked_reason
from tailorbird.repository.machine import check_qualified
from tailorbird.repository.objects import Objects
from tailorbird.repository.rules import Keep
from tailorbird.repository.served import in_service, latest_of
from tailorbird.repository.signing.trust import verified

_BEHIND_HINT = "do not repeat it; make room, or let the place be written: the next change mends config.pbtxt"
_PUBLISH_HINT = "nothing half-published is left; see that the repository's disk has room and can be written"


class VersionCheck(msgspec.Struct, frozen=True):
    """What became of verifying one version: a problem's whole text, or none."""

    model: str
    version: int
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether every file is what the manifest says."""
        return not self.problem


class Repository(Hooks):
    """Versions by model, and channels. Safe for many processes.

    Every method raises :class:`RepositoryError` when the store cannot be read or written, or its log is damaged.

    Args:
        place: what messages call it.
        objects: where its log is.
        allow_unsigned: for local experiments: versions without a trusted signature are taken as well.
    """

    def __init__(self, place: str, objects: Objects, *, allow_unsigned: bool = False) -> None:
        self.place = place
        self._objects = objects
        self._log = Log(objects)
        self._allow_unsigned = allow_unsigned

    # --- what is there ---

    def models(self) -> tuple[str, ...]:
        """Names of all models that have a version."""
        with self._border("read the repository"):
            return tuple(self._versions())

    def versions(self, model: str) -> tuple[int, ...]:
        """Versions of a model, ascending, the retired ones among them.

        Raises:
            ModelNotFound: the repository has no such model.
            UsageError: this is no model's name.
        """
        layout.model_name(model)
        with self._border(f"read model '{model}'"):
            known = self._versions()
        if model not in known:
            raise ModelNotFound(model, tuple(known))
        return known[model]

    def retired(self, model: str) -> tuple[int, ...]:
        """Versions of a model that are retired, ascending; raises as :meth:`versions`."""
        known, standing = self.versions(model), self._standing()
        return tuple(version for version in known if not standing.serves(model, version))

    def latest(self, model: str) -> int:
        """The newest version that is not retired.

        Raises:
            ModelNotFound: the repository has no such model.
            RepositoryError: every version of it is retired.
        """
        known, standing = self.versions(model), self._standing()
        found = latest_of(standing, model, known)
        if found is None:
            raise RepositoryError(f"every version of model '{model}' is retired", expected="one that can be served",
                                  hint="publish one, or restore one: tailorbird repo restore")  # fmt: skip
        return found

    def serving(self, channel: str = "") -> dict[str, int]:
        """The version of each model that is in service; models without one are left out.

        Args:
            channel: what it points at; without one what ``production`` points at, otherwise the latest version.
        """
        if channel:
            layout.channel_name(channel)
        with self._border("read the repository"):
            known, standing = self._versions(), self._log.standing()
        found = ((name, in_service(standing, name, versions, channel)) for name, versions in known.items())
        return {name: version for name, version in found if version is not None}

    def version_dir(self, model: str, version: int | None = None) -> Path:
        """A local folder that holds a version, the latest when none is named.

        Raises:
            ModelNotFound: the repository has no such model.
            VersionNotFound: the model has no such version.
            RepositoryError: no version is named, and every one is retired.
        """
        chosen = self._chosen(model, version)
        with self._border(f"read version {chosen} of model '{model}'"):
            return self._fetched(model, chosen)

    def location(self, model: str, version: int) -> str:
        """Where a version is, as people write it: a path, or ``s3://bucket/prefix/model/version``."""
        return f"{self.place}/{layout.model_name(model)}/{version}"

    def manifest(self, model: str, version: int | None = None) -> Manifest:
        """The manifest of a version, its files unchecked.

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
            BundleError: the manifest cannot be read.
        """
        chosen = self._chosen(model, version)
        with self._border(f"read version {chosen} of model '{model}'"):
            return decode_manifest(self._manifest_bytes(model, chosen))

    def verify(self, model: str | None = None, version: int | None = None) -> tuple[VersionCheck, ...]:
        """Check every file and the signature of one version, of all versions of a model, or of all.

        Raises:
            ModelNotFound: the repository has no such model.
            VersionNotFound: the model has no such version.
        """
        if model is not None and version is not None:
            return (self._checked(model, self._chosen(model, version)),)
        models = self.models() if model is None else (model,)
        return tuple(self._checked(name, number) for name in models for number in self.versions(name))

    # --- versions in and out ---

    def publish(self, source: Path, model: str | None = None, *, again: bool = False) -> int:
        """Add a bundle as the next version of a model.

        Args:
            source: a ``.engine`` file or a version folder; it is read only.
            model: the name to publish under; the manifest's own when None.
            again: add it also where the latest version is this very bundle; otherwise that one is the answer.

        Returns:
            The version's number.

        Raises:
            BundleError: the bundle is incomplete, altered, foreign, not signed by a trusted key, or not qualified.
            UsageError: the model's name is not one, or differs from another model's by case alone.
            RepositoryError: the repository could not be written; nothing of the bundle is visible then.
        """
        if model is not None:
            layout.model_name(model)
        with self._border("publish", _PUBLISH_HINT), self._mending(), self._staging() as place:
            version_dir = copied(source, place)
            found = verified(version_dir, allow_unsigned=self._allow_unsigned).manifest
            check_qualified(found)
            name = layout.model_name(model or found.model)
            # By the staged folder's name a sweeper knows which model a killed publisher was at.
            return self._added(settled(version_dir, place / name), name, again)

    def gc(self, keep: Keep | None = None, *, dry_run: bool = False) -> tuple[Garbage, ...]:
        """Remove retired versions that nothing needs, and what killed processes left.

        Args:
            keep: what must stay.
            dry_run: only say what would go.

        Returns:
            What went, or would go.

        Raises:
            RepositoryError: the store could not be written; whatever went until then went whole.
        """
        keep = keep or Keep()
        with self._border("collect garbage"):
            found = (*self._retired_garbage(keep), *self._litter(keep))
            if dry_run:
                return found
            with self._mending():
                return tuple(one for one in found if self._collected(one, keep))

    # --- channels ---

    def promote(
        self, model: str, version: int, channel: str, reason: str = "", before: int | None = rules.WHEREVER
    ) -> Entry:
        """Let a channel point at a version; where ``before`` is named, only while it still points there.

        Returns:
            The log's entry; the standing one where the channel points there already.

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
            BundleError: the version does not verify.
            RepositoryError: it is retired, or the channel moved meanwhile.
            UsageError: the channel's name or the reason is not one.
        """
        layout.channel_name(channel)
        text = checked_reason(reason)
        with self._border("promote"), self._mending():
            self._check_known(model, version)
            rules.promoting(self._log.standing(), model, version, channel, text, before)  # the cheap refusals first
            self._check_promotable(model, version)
            return self._log.append(lambda standing: rules.promoting(standing, model, version, channel, text, before))

    def rollback(self, model: str, channel: str, reason: str = "") -> Entry:
        """Let a channel point at what was live before; versions retired since are passed over.

        Raises:
            ModelNotFound: the repository has no such model.
            RepositoryError: nothing was live before.
            BundleError: that version does not verify.
            UsageError: the channel's name or the reason is not one.
        """
        layout.channel_name(channel)
        text = checked_reason(reason)
        checked: set[int] = set()

        def decide(standing: Standing) -> Draft:
            draft = rules.rolling_back(standing, model, channel, text)
            if draft.version not in checked:
                self._check_promotable(model, draft.version)
                checked.add(draft.version)
            return draft

        with self._border("roll back"), self._mending():
            self._check_known(model)
            return self._log.append(decide)

    def retire(self, model: str, version: int, reason: str = "") -> Entry:
        """Take a version out of service: no longer the latest, no longer served, still listed.

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
            RepositoryError: a channel points at it, or it is retired already.
            UsageError: the reason is not one.
        """
        text = checked_reason(reason)
        with self._border("retire"), self._mending():
            self._check_known(model, version)
            return self._log.append(lambda standing: rules.retiring(standing, model, version, text))

    def restore(self, model: str, version: int, reason: str = "") -> Entry:
        """Take back a retirement; raises as :meth:`retire`, and when the version is not retired."""
        text = checked_reason(reason)
        with self._border("restore"), self._mending():
            self._check_known(model, version)
            return self._log.append(lambda standing: rules.restoring(standing, model, version, text))

    def live(self, model: str, channel: str) -> int | None:
        """The version that a model's channel points at, or None."""
        return self._standing().live(model, layout.channel_name(channel))

    def channels(self, model: str | None = None) -> tuple[Live, ...]:
        """Every channel of one model, or of all."""
        return self._standing().channels(model)

    def log(self, model: str | None = None) -> tuple[Entry, ...]:
        """The log's entries in order, of one model or of all."""
        with self._border("read the log"):
            return tuple(entry for entry in self._log.entries() if model in (None, entry.model))

    def live_at(self, when: datetime, model: str | None = None) -> tuple[Live, ...]:
        """What every channel pointed at, at a moment; an entry of that very moment counts.

        From now on it is what is live, though a clock that once ran ahead dated the entries later.
        """
        now = when >= datetime.now(UTC)
        return Standing(entry for entry in self.log() if now or entry.time <= when).channels(model)

    # --- shared steps ---

    def _standing(self) -> Standing:
        with self._border("read the log"):
            return self._log.standing()

    def _versions(self) -> dict[str, tuple[int, ...]]:
        """Versions of every model that has one. Those collected but not yet gone are gone.

        The store first, then the log: what vanishes from the store has its tombstone by then.
        """
        present = self._present()
        gone = self._log.standing().collected
        left = {name: tuple(n for n in numbers if (name, n) not in gone) for name, numbers in present.items()}
        return {name: numbers for name, numbers in sorted(left.items()) if numbers}

    def _chosen(self, model: str, version: int | None) -> int:
        if version is None:
            return self.latest(model)
        self._check_known(model, version)
        return version

    def _check_known(self, model: str, version: int | None = None) -> None:
        known = self.versions(model)
        if version is not None and version not in known:
            raise VersionNotFound(model, version, known)

    def _check_promotable(self, model: str, version: int) -> None:
        """What a version must be to be live: intact, signed, and qualified, also where somebody else put it there."""
        check_qualified(verified(self._fetched(model, version), allow_unsigned=self._allow_unsigned).manifest)

    def _checked(self, model: str, version: int) -> VersionCheck:
        try:
            with self._border(f"read version {version} of model '{model}'"), self._original(model, version) as folder:
                verified(folder, allow_unsigned=self._allow_unsigned)
        except BundleError as error:
            return VersionCheck(model, version, error.message)
        return VersionCheck(model, version)

    @contextmanager
    def _mending(self) -> Iterator[None]:
        """Around every change: what it, and whoever was killed at it before, left to do for other servers.

        The models of all entries from the one that was last before the change get a new ``config.pbtxt``.
        """
        self._swept()
        before = len(self._log.entries())
        try:
            yield
        except BaseException:
            with suppress(TailorbirdError, OSError):  # the first error is the one to tell
                self._described_since(before)
            raise
        with self._afterwards():
            self._described_since(before)

    @contextmanager
    def _afterwards(self) -> Iterator[None]:
        """Around what follows a change that stands already: no error may read as if it did not."""
        try:
            yield
        except (TailorbirdError, OSError) as error:
            got = reason(error) if isinstance(error, OSError) else error.what
            raise RepositoryError("the change is made, but config.pbtxt could not be written after it", got=got,
                                  expected="what the repository's log says", hint=_BEHIND_HINT) from error  # fmt: skip

    def _described_since(self, before: int) -> None:
        touched = self._log.entries()[max(0, before - 1) :]
        for model in sorted({entry.model for entry in touched}):
            self._describe(model)

    def _retired_garbage(self, keep: Keep) -> Iterator[Garbage]:
        found = self._versions()  # before the log, which then has the tombstone of whatever vanished meanwhile
        standing = self._log.standing()
        for model, versions in found.items():
            for version in rules.due(standing, model, versions, keep):
                place, size = self.location(model, version), self._bytes_of(model, version)
                yield Garbage("retired version", place, size, model, version)

    def _collected(self, garbage: Garbage, keep: Keep) -> bool:
        """Remove one thing; False where it is needed again by now. A version gets its tombstone first."""
        model, version = garbage.model, garbage.version
        if not version:
            self._discard(garbage)
            return True
        digest = "" if garbage.kind in UNFINISHED else digest_bytes(self._manifest_bytes(model, version))

        def decide(standing: Standing) -> Draft | Entry | None:
            return rules.collecting(standing, garbage, self._versions().get(model, ()), keep, digest)

        if self._log.append(decide) is None:
            return False
        self._removed(model, version)
        return True
