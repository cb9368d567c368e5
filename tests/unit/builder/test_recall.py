"""Recall: every answer of the cache is noted in the build log."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.recall import Recall
from tailorbird.domain.cache import Cache
from tailorbird.domain.entry import digest_of


class Log(list[dict[str, Any]]):
    """The cache's events, without their times."""

    def __call__(self, event: dict[str, Any]) -> None:
        self.append({key: value for key, value in event.items() if key not in ("at", "made")})


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def recall(tmp_path: Path, log: Log) -> Recall:
    (tmp_path / "work").mkdir()
    return Recall(tmp_path / "cache", BuildLog(tmp_path / "build.jsonl", log), tmp_path / "work", "net")


def fill(folder: Path) -> None:
    (folder / "a").write_text("x", "utf-8")


def asked(key: Any, hit: bool, *changed: dict[str, str]) -> dict[str, Any]:
    return {"event": "cache", "kind": "kind", "about": "net", "key": digest_of(key), "hit": hit,
            "changed": changed}  # fmt: skip


def test_a_first_miss_a_hit_and_a_change(recall: Recall, log: Log) -> None:
    place, known = recall.make("kind", {"seed": "0"}, fill)
    assert (known, recall.make("kind", {"seed": "0"}, fill)) == (False, (place, True))
    assert recall.make("kind", {"seed": "1"}, fill)[1] is False
    change = {"name": "seed", "was": "0", "now": "1"}
    assert log == [asked({"seed": "0"}, False), asked({"seed": "0"}, True), asked({"seed": "1"}, False, change)]


def test_what_is_healed_is_noted(recall: Recall, log: Log) -> None:
    place, _ = recall.make("kind", 1, fill)
    (place / "a").unlink()
    assert recall.make("kind", 1, fill) == (place, False)
    assert log[1] == {"event": "cache notice", "what": "healed", "kind": "kind", "reason": "'a' is missing"}


def test_without_a_cache_it_is_made_in_the_build_s_own_folder(recall: Recall, log: Log, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    place, known = recall.make("kind", 1, fill)
    assert (place.parent, known) == (tmp_path / "work", False)
    assert log[-1]["what"] == "not kept"


def test_an_entry_that_is_refused_is_dropped_and_made_anew(recall: Recall, log: Log) -> None:
    place, _ = recall.make("kind", 1, fill)
    assert recall.make("kind", 1, fill, lambda _: "of another build") == (place, False)
    assert log[1] == {"event": "cache notice", "what": "dropped", "kind": "kind", "reason": "of another build"}
    assert recall.make("kind", 1, fill) == (place, True)


def refused_once(recall: Recall, log: Log, tmp_path: Path) -> None:
    place, known = recall.make("kind", 1, fill, lambda _: "of another build")
    assert (place.parent, known) == (tmp_path / "work", False)
    assert (place / "a").read_text("utf-8") == "x"
    notices = [(one["what"], one["reason"]) for one in log if one["event"] == "cache notice"]
    assert notices == [("dropped", "of another build"), ("not kept", "the entry that was refused cannot be removed")]


def test_a_refused_entry_that_another_process_uses_is_left_to_it(recall: Recall, log: Log, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as other:
        place = other.make("kind", 1, fill)
        refused_once(recall, log, tmp_path)
        assert (place / "a").exists()


def test_a_refused_entry_that_cannot_be_removed_is_asked_about_once(
    recall: Recall, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cache that can only be read, which no test that root runs has."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with Cache(tmp_path / "cache") as other:
        other.make("kind", 1, fill)
    monkeypatch.setattr(Path, "rename", refused)
    refused_once(recall, log, tmp_path)


def test_what_another_process_made_meanwhile_and_is_refused_stays_its_own(
    recall: Recall, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cache(tmp_path / "cache") as other:
        place = other.make("kind", 1, lambda folder: (folder / "a").write_text("theirs", "utf-8") and None)
    missed, look = iter([None]), recall.cache.get
    monkeypatch.setattr(recall.cache, "get", lambda *key: next(missed) if not log else look(*key))  # just before it
    made, known = recall.make("kind", 1, fill, lambda _: "of another build")
    assert (made.parent, known) == (tmp_path / "work", False)
    assert (place / "a").read_text("utf-8") == "theirs"
    assert log[-1]["reason"] == "another build's is there: of another build"


def test_what_a_build_uses_stays_until_it_is_done(recall: Recall, tmp_path: Path) -> None:
    place, _ = recall.make("kind", 1, fill)
    os.utime(place, (time.time() - 1e6,) * 2)
    recall.cache.gc(0)
    assert place.exists()
    recall.cache.close()
    assert recall.cache.gc(0).entries == 1
