"""The cache: whole entries, found again, healed when damaged, made by whoever comes first, shrunk when too large."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tailorbird.domain.cache import IN_USE_SECONDS, Cache, Freed, cache_root
from tailorbird.domain.entry import RECORD, Change, changes, digest_of, flat
from tailorbird.domain.errors import TailorbirdError

Fill = Callable[[Path], None]


def write(text: str, size: int = 0) -> Fill:
    def fill(folder: Path) -> None:
        (folder / "a.txt").write_text(text + "." * size, "utf-8")
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(b"\0\1\2")

    return fill


def never(folder: Path) -> None:
    raise AssertionError("made again")


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}


class Notices(list[tuple[str, ...]]):
    """What a cache told of."""

    def __call__(self, *words: str) -> None:
        self.append(words)


def test_an_entry_is_made_once_and_found_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.get("kind", {"a": 1}) is None
    made = cache.make("kind", {"a": 1, "b": 2}, write("first"))
    assert (made / "a.txt").read_text("utf-8") == "first"
    assert cache.get("kind", {"b": 2, "a": 1}) == made  # the order of a key's parts means nothing
    assert cache.make("kind", {"a": 1, "b": 2}, never) == made
    assert files_in(made) == {"a.txt", "deep/b.bin", RECORD}


def test_an_entry_explains_itself(tmp_path: Path) -> None:
    made = Cache(tmp_path).make("kind", {"a": 1, "b": "x"}, write("first"), about="net")
    record = msgspec.json.decode((made / RECORD).read_bytes())
    assert (record["schema"], record["kind"], record["about"], record["bytes"]) == (1, "kind", "net", 8)
    assert record["key"] == {"a": 1, "b": "x"}
    assert set(record["files"]) == {"a.txt", "deep/b.bin"}
    assert record["made"].startswith("20")
    assert record["seconds"] >= 0
    assert made.name == digest_of({"b": "x", "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {}])
def test_another_key_or_kind_is_another_entry(tmp_path: Path, other: object) -> None:
    cache = Cache(tmp_path)
    cache.make("kind", {"a": 1}, write("x"))
    assert cache.get("kind", other) is None
    assert cache.get("other", {"a": 1}) is None


@pytest.mark.parametrize("apart", [False, True])
def test_a_failure_leaves_nothing(tmp_path: Path, apart: bool) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("no")

    (tmp_path / "aside").mkdir()
    with pytest.raises(ValueError, match="no"):
        Cache(tmp_path / "cache").make("kind", 1, fill, aside=tmp_path / "aside" if apart else None)
    assert files_in(tmp_path) == set()
    assert Cache(tmp_path / "cache").get("kind", 1) is None


def test_of_threads_that_make_one_entry_one_does_and_all_get_it(tmp_path: Path) -> None:
    fills = []

    def fill(folder: Path) -> None:
        fills.append(folder)
        time.sleep(0.05)
        (folder / "a.txt").write_text("x", "utf-8")

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: Cache(tmp_path).make("kind", 1, fill), range(4)))
    assert len(made) == len(fills) == 1
    assert {Path(name).name for name in files_in(tmp_path)} == {"a.txt", RECORD}


MAKE_WHEN_TOLD = """
import sys, time
from pathlib import Path
from tailorbird.domain.cache import Cache

def fill(folder):
    print("filling", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
    (folder / "a.txt").write_text("x")

cache = Cache(Path(sys.argv[1]), notice=lambda *words: print(words[0], flush=True))
print(cache.make("kind", 1, fill) / "a.txt", flush=True)
"""


@contextlib.contextmanager
def maker(root: Path, signal: Path) -> Iterator[Callable[[], str]]:
    """A process that makes an entry once the signal is there; called, it gives the next line that it prints."""
    command = [sys.executable, "-c", MAKE_WHEN_TOLD, str(root), str(signal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            output = process.stdout
            assert output
            yield lambda: output.readline().strip()
        finally:
            process.kill()


def test_of_processes_that_make_one_entry_one_does_and_the_others_wait(tmp_path: Path) -> None:
    root, signal = tmp_path / "cache", tmp_path / "go"
    with maker(root, signal) as first:
        assert first() == "filling"
        with maker(root, signal) as second, maker(root, signal) as third:
            assert (second(), third()) == ("waiting", "waiting")
            signal.touch()
            assert {said() for said in (first, second, third)} == {str(root / "kind" / digest_of(1) / "a.txt")}


def test_when_the_maker_dies_one_of_those_who_wait_makes_it(tmp_path: Path) -> None:
    root, signal = tmp_path / "cache", tmp_path / "go"
    with contextlib.ExitStack() as stack:
        with maker(root, tmp_path / "never") as first:
            assert first() == "filling"
            second = stack.enter_context(maker(root, signal))
            assert second() == "waiting"
        assert second() == "filling"
        signal.touch()
        assert second() == str(root / "kind" / digest_of(1) / "a.txt")
    Cache(root).gc()
    assert {Path(name).name for name in files_in(root)} == {"a.txt", RECORD}


# --- damage --------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def replace(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.chmod(0o644)
    path.write_bytes(data.replace(old, new))


def cut(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(1)


def linked(path: Path) -> None:
    same = path.with_name("elsewhere")
    path.rename(same)
    path.symlink_to(same)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit": (lambda place: flip(place / "a.txt"), "'a.txt' was altered"),
    "a deep file": (lambda place: cut(place / "deep" / "b.bin"), "'deep/b.bin' was altered"),
    "missing": (lambda place: (place / "a.txt").unlink(), "'a.txt' is missing"),
    "one more": (lambda place: (place / "c").touch(), "'c' is not one of its files"),
    "a link": (lambda place: linked(place / "a.txt"), "'a.txt' is a link or a device"),
    "no record": (lambda place: (place / RECORD).unlink(), "No such file or directory"),
    "a bit of the record": (lambda place: flip(place / RECORD), "entry.json was altered"),
    "a date in the record": (
        lambda place: replace(place / RECORD, b'"made": "20', b'"made": "21'),
        "entry.json was altered",
    ),
    "a cut record": (lambda place: cut(place / RECORD), "entry.json cannot be read: Input data was truncated"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_told_of_and_made_anew(tmp_path: Path, damage: str) -> None:
    notices = Notices()
    cache = Cache(tmp_path, notice=notices)
    place = cache.make("kind", 1, write("x" * 9))
    hurt, why = DAMAGE[damage]
    hurt(place)
    assert cache.get("kind", 1) is None
    assert notices == [("healed", "kind", why)]
    assert files_in(tmp_path) == set()
    assert (cache.make("kind", 1, write("anew")) / "a.txt").read_text("utf-8") == "anew"


def test_an_entry_in_another_s_place_is_not_taken_for_it(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        cache.make("kind", 1, write("one")).rename(tmp_path / "kind" / digest_of(2))
    notices = Notices()
    assert Cache(tmp_path, notice=notices).get("kind", 2) is None
    assert notices == [("healed", "kind", "entry.json is of another entry")]


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = Cache(tmp_path / "outside").make("kind", 1, write("x"))
    root = tmp_path / "cache"
    (root / "kind").mkdir(parents=True)
    (root / "kind" / outside.name).symlink_to(outside)
    cache = Cache(root)
    assert cache.get("kind", 1) is None
    assert cache.entries() == ()
    assert cache.clear() == Freed(0, 0, 0)
    assert not cache.make("kind", 1, write("y")).is_symlink()
    assert (outside / "a.txt").read_text("utf-8") == "x"


def test_a_link_in_the_place_of_a_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kind").symlink_to(tmp_path / "outside")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(TailorbirdError, match=r"the cache cannot be written: got .*kind is a link\nHint: give another"):
        cache.make("kind", 1, write("x"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_is_forgotten_is_made_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.make("kind", 1, write("damaged"))
    assert cache.forget("kind", 1)
    assert cache.forget("kind", 1)
    made = cache.make("kind", 1, write("whole"))
    assert (made / "a.txt").read_text("utf-8") == "whole"


def test_what_others_use_is_not_forgotten(tmp_path: Path) -> None:
    with Cache(tmp_path) as user:
        place = user.make("kind", 1, write("x"))
        assert not Cache(tmp_path).forget("kind", 1)
        assert (place / "a.txt").read_text("utf-8") == "x"
    assert Cache(tmp_path).forget("kind", 1)


def test_what_cannot_be_read_just_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without handles left, say, has learnt nothing of the entry."""
    notices = Notices()
    (tmp_path / "aside").mkdir()

    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with Cache(tmp_path / "cache") as user, Cache(tmp_path / "cache", notice=notices) as cache:
        place = user.make("kind", 1, write("x"))
        with monkeypatch.context() as patch:
            patch.setattr("tailorbird.domain.cache.check", exhausted)
            assert cache.get("kind", 1) is None
            assert notices == []
            made = cache.make("kind", 1, write("x"), aside=tmp_path / "aside")
        assert made.parent == tmp_path / "aside"
        assert notices == [("not kept", "kind", "a process uses the entry that is there")]
        assert cache.get("kind", 1) == place


# --- where it cannot be written ------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TailorbirdError) as caught:
        Cache(tmp_path / "file").make("kind", 1, write("x"))
    assert caught.value.what == "the cache cannot be written"
    assert caught.value.hint == "give another --cache"


def test_what_a_cache_cannot_take_stays_aside(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "aside").mkdir()
    notices = Notices()
    made = Cache(tmp_path / "file", notice=notices).make("kind", 1, write("x"), aside=tmp_path / "aside")
    assert made.parent == tmp_path / "aside"
    assert files_in(made) == {"a.txt", "deep/b.bin"}
    assert notices == [("not kept", "kind", "Not a directory")]


def test_what_was_filled_aside_is_in_the_cache_and_only_there(tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    cache = Cache(tmp_path / "cache")
    made = cache.make("kind", 1, write("x"), aside=tmp_path / "aside")
    assert made == tmp_path / "cache" / "kind" / digest_of(1)
    assert list((tmp_path / "aside").iterdir()) == []
    assert cache.get("kind", 1) == made
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.rglob("*") if file.is_file()} == {0o444}
    assert {file.stat().st_nlink for file in made.rglob("*") if file.is_file()} == {1}


def test_another_file_system_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    (tmp_path / "aside").mkdir()
    made = Cache(tmp_path / "cache").make("kind", 1, write("x"), aside=tmp_path / "aside")
    assert files_in(made) == {"a.txt", "deep/b.bin", RECORD}
    assert Cache(tmp_path / "cache").get("kind", 1) == made


# --- room ----------------------------------------------------------------------------------------


def aged(place: Path, hours: float) -> None:
    then = time.time() - hours * IN_USE_SECONDS
    os.utime(place, (then, then))


def kept(cache: Cache) -> set[str]:
    return {entry.record.key for entry in cache.entries()}


def test_what_was_used_longest_ago_goes_first_and_what_was_used_lately_stays(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        places = {name: cache.make("kind", name, write("", 1000)) for name in ("old", "older", "oldest", "fresh")}
    for hours, name in ((2, "old"), (3, "older"), (4, "oldest")):
        aged(places[name], hours)
    with Cache(tmp_path, limit_bytes=3500) as cache:
        cache.make("kind", "newest", write("", 1000))
        assert kept(cache) == {"old", "fresh", "newest"}
        assert cache.gc(2500) == Freed(1, 1003, 0)
        assert kept(cache) == {"fresh", "newest"}
        assert cache.gc(0) == Freed(0, 0, 2)


def test_a_use_makes_an_entry_young_again(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        for name, hours in (("a", 5), ("b", 4)):
            aged(cache.make("kind", name, write("", 1000)), hours)
        assert cache.get("kind", "a")
    with Cache(tmp_path) as cache:
        assert cache.gc(1500) == Freed(1, 1003, 0)
        assert kept(cache) == {"a"}


def test_what_a_process_holds_stays_however_old(tmp_path: Path) -> None:
    with Cache(tmp_path) as user:
        place = user.make("kind", 1, write("x"))
        aged(place, 100)
        with Cache(tmp_path) as other:
            assert other.gc(0) == Freed(0, 0, 1)
            assert other.clear() == Freed(0, 0, 1)
            assert place.exists()
    assert Cache(tmp_path).gc(0) == Freed(1, 4, 0)
    assert files_in(tmp_path) == set()


def test_a_healed_entry_that_others_use_goes_when_they_are_done(tmp_path: Path) -> None:
    with Cache(tmp_path) as user, Cache(tmp_path) as other:
        flip(user.make("kind", 1, write("x")) / "a.txt")
        assert other.get("kind", 1) is None
        other.gc()
        assert len(files_in(tmp_path)) == 3  # out of the way, and still there for its user
    other.gc()
    assert files_in(tmp_path) == set()


def test_one_kind_can_be_cleared(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        cache.make("one", 1, write("x"))
        cache.make("two", 2, write("x"))
    cache = Cache(tmp_path)
    assert cache.clear("one") == Freed(1, 4, 0)
    assert [entry.record.kind for entry in cache.entries()] == ["two"]
    assert cache.clear() == Freed(1, 4, 0)


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    for dead in (".unfinished-dead_001", ".unfinished-0123456789abcdef"):
        (tmp_path / "kind" / dead).mkdir(parents=True)
        (tmp_path / "kind" / dead / "half").touch()
    (tmp_path / "kind" / f".lock-{'0' * 64}").touch()

    def fill(folder: Path) -> None:
        Cache(tmp_path).gc(0)
        assert folder.exists()
        (folder / "a").touch()

    made = Cache(tmp_path).make("kind", 1, fill)
    assert files_in(tmp_path) == {f"kind/{made.name}/a", f"kind/{made.name}/{RECORD}"}


@pytest.mark.parametrize(
    "name",
    ["release/v1/data.txt", "kind/0123/data.txt", "kind/.unfinished-notes/a", "kind/.lock-mine", "My Kind/" + "0" * 64
     + "/a", ".kind/" + "0" * 64 + "/a"],
)  # fmt: skip
def test_what_is_not_the_cache_s_is_never_touched(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.touch()
    aged(path.parent, 100)
    cache = Cache(tmp_path)
    assert (cache.entries(), cache.gc(0), cache.clear()) == ((), Freed(0, 0, 0), Freed(0, 0, 0))
    assert path.exists()


def test_damaged_entries_count_and_can_be_cleared(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        place = cache.make("kind", 1, write("x"))
    (place / RECORD).unlink()
    (entry,) = cache.entries()
    assert (entry.record.about, entry.record.bytes) == ("unreadable", 4)
    assert cache.clear() == Freed(1, 4, 0)


def test_an_empty_cache_holds_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "none")
    assert (cache.entries(), cache.gc(0), cache.clear()) == ((), Freed(0, 0, 0), Freed(0, 0, 0))
    assert not (tmp_path / "none").exists()


def test_the_directory_is_the_configured_one_or_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_CACHE", "/somewhere")
    assert cache_root("/mine") == Path("/mine/builds")
    assert cache_root() == Path("/somewhere/builds")
    monkeypatch.delenv("TAILORBIRD_CACHE")
    assert cache_root() == Path.home() / ".cache" / "tailorbird" / "builds"


def test_the_directory_is_its_owner_s_alone(tmp_path: Path) -> None:
    place = Cache(tmp_path / "cache").make("kind", 1, write("x"))
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


def test_new_directories_are_their_owner_s_alone(tmp_path: Path) -> None:
    Cache(tmp_path / "cache" / "builds").make("kind", 1, write("x"))
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("cache", "cache/builds", "cache/builds/kind")}
    assert modes == {0o700}


def to_a_stranger(root: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(root, 12345, 12345)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda root: root.chmod(0o770), "others may write to {}"),
        (lambda root: root.chmod(0o707), "others may write to {}"),
        (to_a_stranger, "{} belongs to another user"),
    ],
)
def test_a_directory_that_others_can_write_is_not_used(tmp_path: Path, spoil: Callable[[Path], None], why: str) -> None:
    root, notices = tmp_path / "cache", Notices()
    with Cache(root) as cache:
        place = cache.make("kind", 1, write("x"))
    spoil(root)
    (tmp_path / "aside").mkdir()
    cache = Cache(root, notice=notices)
    assert cache.get("kind", 1) is None
    assert (cache.entries(), cache.clear()) == ((), Freed(0, 0, 0))
    assert cache.make("kind", 1, write("y"), aside=tmp_path / "aside").parent == tmp_path / "aside"
    assert notices == [("not kept", "kind", why.format(root))]
    with pytest.raises(TailorbirdError, match="the cache cannot be written"):
        cache.make("kind", 1, write("y"))
    assert (place / "a.txt").read_text("utf-8") == "x"


# --- what changed --------------------------------------------------------------------------------


def test_ingredients_of_nested_keys_have_names_with_dots() -> None:
    assert flat({"a": {"b": 1, "c": ["x"]}, "d": "text"}) == {"a.b": "1", "a.c": '["x"]', "d": "text"}
    assert flat(3) == {"key": "3"}


def test_changes_are_named_with_what_was_and_what_is() -> None:
    old: dict[str, Any] = {"same": 1, "seed": 0, "gone": "x"}
    assert changes(old, {"new": "y", "same": 1, "seed": 2}) == (
        Change("new", "", "y"), Change("seed", "0", "2"), Change("gone", "x", ""))  # fmt: skip
    assert changes(old, dict(reversed(old.items()))) == ()


def test_the_nearest_entry_is_the_one_with_the_fewest_differences_of_the_same_model(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.nearest("kind", {"a": 1}) is None
    for about, key in (("net", {"a": 1, "b": 1, "c": 1}), ("net", {"a": 1, "b": 2, "c": 1}), ("other", {"a": 9})):
        cache.make("kind", key, write("x"), about=about)

    def nearest(key: dict[str, object], about: str) -> object:
        found = cache.nearest("kind", key, about)
        return found and found.record.key

    assert nearest({"a": 1, "b": 2, "c": 3}, "net") == {"a": 1, "b": 2, "c": 1}
    assert nearest({"a": 9, "b": 2}, "net") == {"a": 1, "b": 2, "c": 1}
    assert nearest({"a": 9, "b": 2}, "another") == {"a": 9}
    shutil.rmtree(tmp_path)
    assert nearest({"a": 1}, "net") is None
