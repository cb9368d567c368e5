"""What builds share: whole entries, found again, shrunk when too large."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tailorbird.builder.cache import IN_USE_SECONDS, Cache, cache_root
from tailorbird.domain.errors import TailorbirdError


def write(text: str, size: int = 0) -> object:
    def fill(folder: Path) -> None:
        (folder / "a.txt").write_text(text + "." * size, "utf-8")

    return fill


def test_an_entry_is_made_once_and_found_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.get("kind", {"a": 1}) is None
    made = cache.make("kind", {"a": 1, "b": 2}, write("first"))  # type: ignore[arg-type]
    assert (made / "a.txt").read_text("utf-8") == "first"
    assert cache.get("kind", {"b": 2, "a": 1}) == made  # the order of a key's parts means nothing
    assert cache.make("kind", {"a": 1, "b": 2}, write("second")) == made  # type: ignore[arg-type]
    assert (made / "a.txt").read_text("utf-8") == "first"


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {}])
def test_another_key_or_kind_is_another_entry(tmp_path: Path, other: object) -> None:
    cache = Cache(tmp_path)
    cache.make("kind", {"a": 1}, write("x"))  # type: ignore[arg-type]
    assert cache.get("kind", other) is None
    assert cache.get("other", {"a": 1}) is None


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Cache(tmp_path).make("kind", 1, fill)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert Cache(tmp_path).get("kind", 1) is None


def test_of_two_that_make_one_entry_both_get_the_same(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        time.sleep(0.05)
        (folder / "a.txt").write_text("x", "utf-8")

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: Cache(tmp_path).make("kind", 1, fill), range(4)))
    assert len(made) == 1
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["a.txt"]


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=2500)
    old, older, fresh = (cache.make("kind", name, write("", 1000)) for name in ("old", "older", "fresh"))  # type: ignore[arg-type]
    for place, age in ((old, 2), (older, 3)):
        then = time.time() - age * IN_USE_SECONDS
        os.utime(place, (then, then))
    newest = cache.make("kind", "newest", write("", 1000))  # type: ignore[arg-type]
    assert [place.exists() for place in (older, old, fresh, newest)] == [False, False, True, True]


def test_the_directory_is_the_configured_one_or_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_CACHE", "/somewhere")
    assert cache_root("/mine") == Path("/mine/builds")
    assert cache_root() == Path("/somewhere/builds")
    monkeypatch.delenv("TAILORBIRD_CACHE")
    assert cache_root() == Path.home() / ".cache" / "tailorbird" / "builds"


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TailorbirdError) as caught:
        Cache(tmp_path / "file").make("kind", 1, write("x"))  # type: ignore[arg-type]
    assert caught.value.what == "the cache cannot be written"
    assert caught.value.hint == "give another --cache"


def test_what_is_forgotten_is_made_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.make("kind", 1, write("damaged"))  # type: ignore[arg-type]
    cache.forget("kind", 1)
    made = cache.make("kind", 1, write("whole"))  # type: ignore[arg-type]
    assert (made / "a.txt").read_text("utf-8") == "whole"
