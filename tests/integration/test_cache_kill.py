"""Real kills and full disks at the cache: no half entry is ever given out, and the next make works."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tailorbird.domain import cache as subject
from tailorbird.domain.cache import Cache
from tailorbird.domain.errors import TailorbirdError
from tests.integration.faults import small_tmpfs

PACKAGE = Path(subject.__file__).parents[2]
SIZE = 1 << 20  # large enough for kills to land in the middle of a file
KEYS = 4

# Entries are made, found, damaged, forgotten, evicted and swept without end, here and aside; the hour within which a
# used entry stays is made none, so that eviction works all the time.
WORK_FOREVER = """
import itertools, random, sys
from pathlib import Path
from tailorbird.domain import cache as module
from tailorbird.domain.cache import Cache

root, aside, seed, alone = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "alone"
module.IN_USE_SECONDS = 0.0
chance = random.Random(seed)

def fill(key):
    def write(folder):
        (folder / "deep").mkdir()
        (folder / "a").write_bytes(bytes([key]) * (1 << 20))
        (folder / "deep" / "b").write_bytes(bytes([key]) * 1000)
    return write

print("ready", flush=True)
while True:
    with Cache(root, limit_bytes=3 << 20) as cache:
        key = chance.randrange(4)
        place = cache.make("kind", key, fill(key), aside=aside if chance.random() < 0.5 else None)
        assert (place / "a").read_bytes() == bytes([key]) * (1 << 20)
        action = chance.randrange(5)
        if action == 0 and alone:  # others may be reading it
            cache.forget("kind", key)
        elif action == 1 and alone:
            (place / "a").unlink()
    if action == 2:
        Cache(root).gc(1 << 20)
    elif action == 3:
        Cache(root).clear()
"""


def worker(root: Path, aside: Path, seed: int, alone: bool = True) -> "subprocess.Popen[str]":
    mode = "alone" if alone else "beside others"
    command = [sys.executable, "-c", WORK_FOREVER, str(root), str(aside), str(seed), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(PACKAGE)})


def fill_with(key: int) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "a").write_bytes(bytes([key]) * SIZE)
        (folder / "deep" / "b").write_bytes(bytes([key]) * 1000)

    return fill


def check_cache(root: Path, number: int) -> None:
    """Whatever is given out is whole; what is missing can be made; nothing is left but entries."""
    with Cache(root) as cache:
        for key in range(KEYS):
            found = cache.get("kind", key)
            assert found is None or (found / "a").read_bytes() == bytes([key]) * SIZE, number
        key = number % KEYS
        made = cache.make("kind", key, fill_with(key))
        assert (made / "deep" / "b").read_bytes() == bytes([key]) * 1000, number
    Cache(root).gc()
    assert not [path.name for path in (root / "kind").iterdir() if path.name.startswith(".")], number


def kill_workers(kills: int, folder: Path) -> None:
    chance = random.Random(kills)
    aside = folder / "aside"
    aside.mkdir()
    for number in range(kills):
        with worker(folder / "cache", aside, number) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.08))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        check_cache(folder / "cache", number)


def test_killed_workers_leave_whole_entries(tmp_path: Path) -> None:
    kill_workers(8, tmp_path)


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_two_hundred_killed_workers(tmp_path: Path) -> None:
    kill_workers(220, tmp_path)


def test_workers_side_by_side_do_not_disturb_one_another(tmp_path: Path) -> None:
    """Each asserts that what it was given is whole while the others evict and clear what nobody holds."""
    (tmp_path / "aside").mkdir()
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker(tmp_path / "cache", tmp_path / "aside", seed, alone=False))
                   for seed in range(3)]  # fmt: skip
        time.sleep(4)
        ended = [process.poll() for process in workers]
        for process in workers:
            process.kill()
    assert ended == [None, None, None]
    check_cache(tmp_path / "cache", 0)


# --- full disks ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk with room for one entry and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_tmpfs(folder, "1500k"):
        yield folder


def test_what_a_full_disk_cannot_take_stays_aside(disk: Path, tmp_path: Path) -> None:
    notices: list[tuple[str, ...]] = []
    with Cache(disk / "cache", notice=lambda *words: notices.append(words)) as cache:
        first = cache.make("kind", 1, fill_with(1), aside=tmp_path)
        second = cache.make("kind", 2, fill_with(2), aside=tmp_path)
        assert first.parent == disk / "cache" / "kind"
        assert second.parent == tmp_path
        assert (second / "a").read_bytes() == bytes([2]) * SIZE
        assert notices == [("not kept", "kind", "No space left on device")]
        assert cache.get("kind", 1) == first
        assert cache.get("kind", 2) is None
    assert [path.name for path in (disk / "cache" / "kind").iterdir()] == [first.name]


def test_a_disk_that_fills_while_an_entry_is_written_keeps_the_others(disk: Path) -> None:
    with Cache(disk / "cache") as cache:
        first = cache.make("kind", 1, fill_with(1))
        with pytest.raises(OSError, match="No space left on device"):
            cache.make("kind", 2, fill_with(2))
        assert cache.get("kind", 1) == first
    assert [path.name for path in (disk / "cache" / "kind").iterdir()] == [first.name]
    Cache(disk / "cache").clear()
    with Cache(disk / "cache") as cache:
        assert cache.make("kind", 2, fill_with(2)).exists()


def test_a_file_that_may_not_grow_is_no_half_entry(tmp_path: Path) -> None:
    def unwritten(folder: Path) -> None:
        (folder / "a").write_bytes(b"x")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(TailorbirdError, match=r"the cache cannot be written: got .*File too large"):
            Cache(tmp_path / "cache").make("kind", 1, unwritten)  # its record is longer than that
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "cache" / "kind").iterdir()) == []
