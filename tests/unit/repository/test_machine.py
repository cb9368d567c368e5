"""A local repository against a model of it, by random walks over its verbs."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tailorbird.domain.errors import RepositoryError, VersionNotFound
from tailorbird.repository.channels import Entry
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.rules import Keep
from tailorbird.repository.store import LocalRepository
from tests import bundles

CHANNELS = st.sampled_from(["production", "canary"])
PICKS = st.integers(0, 3)
"""Which version, counted from the newest; past the oldest stands for one that there is not."""


class Walk(RuleBasedStateMachine):
    """``history`` holds, for each channel, what it pointed at, the present last."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.sources = [bundles.version(self.folder / str(n), candidate=bundles.candidate(threads=n)) for n in (1, 2)]
        self.contents: dict[int, int] = {}
        self.retired: set[int] = set()
        self.gone: set[int] = set()
        self.history: dict[str, list[int]] = {"production": [], "canary": []}
        self.entries: list[tuple[str, int]] = []

    @property
    def store(self) -> LocalRepository:
        """A new one for each step, as a new process has it."""
        return LocalRepository(self.folder / "repository")

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def live(self, channel: str) -> int | None:
        return self.history[channel][-1] if self.history[channel] else None

    def picked(self, pick: int) -> int:
        known = sorted(self.contents, reverse=True)
        return known[pick] if pick < len(known) else 99

    def usable(self) -> list[int]:
        return [version for version in self.contents if version not in self.retired]

    @initialize()
    def first(self) -> None:
        for source in (0, 1):
            self.publish(source, again=False)

    @rule(source=st.integers(0, 1), again=st.booleans())
    def publish(self, source: int, again: bool) -> None:
        usable = self.usable()
        number = max([0, *self.contents, *self.gone]) + 1
        if not again and usable and self.contents[max(usable)] == source:
            number = max(usable)
        assert self.store.publish(self.sources[source], again=again) == number
        self.contents[number] = source

    def attempt(self, what: str, version: int, allowed: bool, call: Callable[[], Entry]) -> bool:
        """Do what the model allows, and see what it does not allow refused."""
        try:
            call()
        except (RepositoryError, VersionNotFound):
            assert not allowed, what
            return False
        assert allowed, what
        self.entries.append((what, version))
        return True

    @precondition(lambda self: self.contents)
    @rule(pick=PICKS, channel=CHANNELS)
    def promote(self, pick: int, channel: str) -> None:
        version = self.picked(pick)
        if self.live(channel) == version:
            self.store.promote("tiny", version, channel)  # adds nothing
            return
        if self.attempt("promote", version, version in self.usable(),
                        lambda: self.store.promote("tiny", version, channel)):  # fmt: skip
            self.history[channel].append(version)

    @precondition(lambda self: self.contents)
    @rule(channel=CHANNELS)
    def rollback(self, channel: str) -> None:
        before = [place for place, n in enumerate(self.history[channel][:-1])
                  if n in self.usable() and n != self.live(channel)]  # fmt: skip
        version = self.history[channel][before[-1]] if before else 0
        if self.attempt("rollback", version, bool(before), lambda: self.store.rollback("tiny", channel)):
            del self.history[channel][before[-1] + 1 :]

    @precondition(lambda self: self.contents)
    @rule(pick=PICKS)
    def retire(self, pick: int) -> None:
        version = self.picked(pick)
        pointed = version in (self.live("production"), self.live("canary"))
        if self.attempt("retire", version, version in self.usable() and not pointed,
                        lambda: self.store.retire("tiny", version)):  # fmt: skip
            self.retired.add(version)

    @precondition(lambda self: self.contents)
    @rule(pick=PICKS)
    def restore(self, pick: int) -> None:
        version = self.picked(pick)
        if self.attempt("restore", version, version in self.retired, lambda: self.store.restore("tiny", version)):
            self.retired.remove(version)

    @precondition(lambda self: self.contents)
    @rule(keep=st.integers(0, 2))
    def collect(self, keep: int) -> None:
        due = sorted(self.retired)[: len(self.retired) - keep] if keep < len(self.retired) else []
        found = self.store.gc(Keep(timedelta(0), keep, timedelta(0)))
        assert [one.version for one in found] == due
        for version in due:
            del self.contents[version]
            self.entries.append(("collect", version))
        self.retired -= set(due)
        self.gone |= set(due)

    @invariant()
    def the_store_agrees(self) -> None:
        if not (self.folder / "repository").exists():
            return
        store = self.store
        assert store.models() == (("tiny",) if self.contents else ())
        assert [(entry.what.value, entry.version) for entry in store.log()] == self.entries
        pointers = {channel: stack[-1] for channel, stack in self.history.items() if stack}
        assert {one.channel: one.version for one in store.channels()} == pointers
        if self.contents:
            assert store.versions("tiny") == tuple(sorted(self.contents))
            assert store.retired("tiny") == tuple(sorted(self.retired))
            self.check_config(store)

    def check_config(self, store: LocalRepository) -> None:
        live, usable = self.live("production"), self.usable()
        chosen = live or max(usable, default=None)
        assert store.serving() == ({"tiny": chosen} if chosen else {})
        only = chosen if live or chosen != max(self.contents) else None
        wanted = config_pbtxt(store.manifest("tiny", chosen or max(self.contents)), "tiny", only if chosen else 0)
        assert (store.root / "tiny" / "config.pbtxt").read_bytes() == wanted


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
