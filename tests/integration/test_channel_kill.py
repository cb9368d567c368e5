"""Kills in the middle of every verb of a repository: no lost version, no half one, no wrong pointer, a readable log."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailorbird.domain import bundle
from tailorbird.domain.cache import Cache
from tailorbird.repository import layout
from tailorbird.repository.base import Repository
from tailorbird.repository.channels import Standing, What
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.opening import open_repository
from tailorbird.repository.remote import RemoteRepository
from tailorbird.repository.rules import Keep
from tailorbird.repository.store import LocalRepository
from tests import bundles, object_storage
from tests.integration.faults import KILL_BEFORE

PACKAGE = Path(bundle.__file__).parents[2]
NOW = Keep(older_than=timedelta(0), unfinished=timedelta(0))

# Does every verb in turn, over and over, and says what it has finished.
CHURN = """
import itertools, sys
from datetime import timedelta
from pathlib import Path
from tailorbird.domain.errors import RepositoryError
from tailorbird.repository.opening import open_repository
from tailorbird.repository.rules import Keep
store, sources = open_repository(sys.argv[1]), [Path(path) for path in sys.argv[2:]]
now = Keep(older_than=timedelta(0), unfinished=timedelta(days=1))
print("ready", flush=True)
for source in itertools.cycle(sources):
    version = store.publish(source, again=True)
    print("published", version, flush=True)
    store.promote("tiny", version, "production")
    print("live", version, flush=True)
    if version % 3 == 0:
        back = store.rollback("tiny", "production").version
        print("live", back, flush=True)
        store.promote("tiny", version, "production")
        print("live", version, flush=True)
    for old in [n for n in store.versions("tiny") if n < version - 2 and n not in store.retired("tiny")]:
        store.retire("tiny", old)
        print("retired", old, flush=True)
        if old % 4 == 0:
            store.restore("tiny", old)
            store.retire("tiny", old)
    store.gc(now)
    print("collected", flush=True)
"""

# Before each step in turn a fork of the process kills itself.
VERB_KILLED = """
import os, shutil, signal, sys
from datetime import timedelta
from pathlib import Path
from tailorbird.repository.rules import Keep
from tailorbird.repository.store import LocalRepository

template, folder, verb = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
now = Keep(older_than=timedelta(0), unfinished=timedelta(0))
VERBS = {
    "promote": lambda store: store.promote("tiny", 3, "production"),
    "rollback": lambda store: store.rollback("tiny", "production"),
    "retire": lambda store: store.retire("tiny", 3),
    "restore": lambda store: store.restore("tiny", 4),
    "gc": lambda store: store.gc(now),
}
AFTER = {"promote": (3, (4,), 4), "rollback": (1, (4,), 4), "retire": (2, (3, 4), 4), "restore": (2, (), 4),
         "gc": (2, (), 3)}

def done(root, step):
    pid = os.fork()
    if pid == 0:
        kill_before(step)
        VERBS[verb](LocalRepository(root))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def state(root):
    store = LocalRepository(root)
    assert all(check.ok for check in store.verify())
    return store.live("tiny", "production"), store.retired("tiny"), len(store.versions("tiny"))

code, step = -signal.SIGKILL, 0
while code == -signal.SIGKILL:
    step += 1
    root = folder / str(step)
    shutil.copytree(template, root)
    code = done(root, step)
    found = state(root)
    assert found in ((2, (4,), 4), AFTER[verb]), (step, found)
    store = LocalRepository(root)
    store.promote("tiny", 1, "canary")  # the next verb works, and mends what other servers read
    live = store.live("tiny", "production")
    assert b"specific { versions: [ %d ] }" % live in (root / "tiny" / "config.pbtxt").read_bytes(), (step, live)
    store.gc(now)
    assert store.gc(now) == (), step
    assert not [path for path in root.rglob("*.tmp")], step
    assert not list((root / ".tailorbird" / "incoming").iterdir()), step
    shutil.rmtree(root)
assert code == 0, code
print(step)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [bundles.version(folder / str(n), ballast=n << 18, candidate=bundles.candidate(threads=n)) for n in (1, 2)]


@pytest.fixture(scope="module")
def storage() -> Iterator[Any]:
    with object_storage.object_storage() as settings:
        yield settings


def child(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def killed(code: str, wait_s: float, *arguments: object) -> list[str]:
    """Start a child, kill it once at work; returns what it said it had finished."""
    with child(code, *arguments) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        return [line for line in process.stdout.read().splitlines(keepends=False) if line]


def check(repository: Repository, before: Standing, said: list[str]) -> Standing:
    """Hold what is there against what was there before and what the killed process said it had done."""
    standing = Standing(repository.log())
    published = [int(line.split()[1]) for line in said if line.startswith("published")]
    here = repository.versions("tiny") if "tiny" in repository.models() else ()
    gone = {version for _, version in standing.collected}
    assert set(published) <= {*here, *gone}, "a version was lost"
    assert not gone & set(here)
    assert all(one.ok for one in repository.verify()), "a version is half there"
    pointers = [int(line.split()[1]) for line in said if line.startswith("live")]
    live = standing.live("tiny", "production")
    if pointers:  # the last that was told of, or the one step after it
        told = [entry.version for entry in repository.log() if entry.what in (What.PROMOTE, What.ROLLBACK)]
        assert pointers[-1] in told[-2:], (pointers, told)
    assert live is None or live in here, "a channel points at nothing"
    known = before.last.sequence if before.last else 0
    assert (standing.last.sequence if standing.last else 0) >= known
    return standing


def mended(repository: Repository, source: Path) -> None:
    """The next verb works, and clears up."""
    version = repository.publish(source, again=True)
    assert version == max([0, *(n for _, n in Standing(repository.log()).collected), *repository.versions("tiny")])
    repository.promote("tiny", version, "production")
    repository.gc(NOW)
    assert repository.gc(NOW) == ()


def churn_locally(kills: int, folder: Path, sources: list[Path]) -> None:
    chance = random.Random(kills)
    standing, repository = Standing(), LocalRepository(folder)
    for number in range(kills):
        if number % 20 == 0:  # logs and folders of their own, or all of it gets slow
            repository, standing = LocalRepository(folder / str(number)), Standing()
        said = killed(CHURN, chance.uniform(0.0, 0.25), repository.root, *sources)
        repository = LocalRepository(repository.root)
        if not repository.root.is_dir():
            continue
        standing = check(repository, standing, said)
        mended(repository, sources[0])
        assert list(layout.incoming_dir(repository.root).iterdir()) == []
        live = repository.live("tiny", "production")
        config = (repository.root / "tiny" / "config.pbtxt").read_bytes()
        assert config == config_pbtxt(repository.manifest("tiny", live), "tiny", live)


def churn_remotely(kills: int, folder: Path, sources: list[Path]) -> None:
    chance = random.Random(kills)
    bucket, standing = object_storage.new_bucket(), Standing()
    place = f"s3://{bucket}/nest"
    for _ in range(kills):
        said = killed(CHURN, chance.uniform(0.0, 1.2), place, *sources)
        with Cache(folder / "cache") as cache:
            repository = RemoteRepository(place, cache)
            standing = check(repository, standing, said)
            mended(repository, sources[0])
            live = repository.live("tiny", "production")
            body = object_storage.client().get_object(Bucket=bucket, Key="nest/tiny/config.pbtxt")["Body"]
            with body:
                assert body.read() == config_pbtxt(repository.manifest("tiny", live), "tiny", live)
            assert not [key for key in object_storage.keys(bucket) if "/claims/" in key]


def test_killed_churners(tmp_path: Path, sources: list[Path]) -> None:
    churn_locally(6, tmp_path, sources)


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_two_hundred_killed_churners(tmp_path: Path, sources: list[Path]) -> None:
    churn_locally(200, tmp_path, sources)


def test_killed_churners_of_object_storage(storage: Any, tmp_path: Path, sources: list[Path]) -> None:
    churn_remotely(2, tmp_path, sources)


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_forty_killed_churners_of_object_storage(storage: Any, tmp_path: Path, sources: list[Path]) -> None:
    churn_remotely(40, tmp_path, sources)


@pytest.mark.parametrize("verb", ["promote", "rollback", "retire", "restore", "gc"])
def test_a_kill_before_any_step(verb: str, tmp_path: Path) -> None:
    """Versions 1, 2 (live, after 1), 3 and 4 (retired)."""
    repository = LocalRepository(tmp_path / "template")
    small = bundles.version(tmp_path / "small")
    for _ in range(4):
        repository.publish(small, again=True)
    for version in (1, 2):
        repository.promote("tiny", version, "production")
    repository.retire("tiny", 4)
    command = [sys.executable, "-c", KILL_BEFORE + VERB_KILLED, str(repository.root), str(tmp_path / "runs"), verb]
    (tmp_path / "runs").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


PUBLISH_SOME = """
import sys
from pathlib import Path
from tailorbird.repository.opening import open_repository
for _ in range(3):
    print(open_repository(sys.argv[1]).publish(Path(sys.argv[2]), again=True), flush=True)
"""

PROMOTE_SOME = """
import sys
from tailorbird.repository.opening import open_repository
store = open_repository(sys.argv[1])
for number in range(10):
    print(store.promote("tiny", 1 + (number + int(sys.argv[2])) % 2, sys.argv[3]).sequence, flush=True)
"""


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "repository")
    request.getfixturevalue("storage")
    return f"s3://{object_storage.new_bucket()}"


def test_publishers_at_once_get_a_version_each(place: str, sources: list[Path]) -> None:
    publishers = [child(PUBLISH_SOME, place, source) for source in (*sources, sources[0])]
    numbers = [int(number) for process in publishers for number in process.communicate()[0].split()]
    assert [process.returncode for process in publishers] == [0, 0, 0]
    assert sorted(numbers) == list(range(1, 10))
    checks = open_repository(place).verify()
    assert len(checks) == 9
    assert all(one.ok for one in checks)


def test_promoters_at_once_get_an_entry_each(place: str, sources: list[Path]) -> None:
    repository = open_repository(place)
    for source in sources:
        repository.publish(source)
    promoters = [child(PROMOTE_SOME, place, number, channel) for number, channel in enumerate(("canary", "beta"))]
    numbers = [int(number) for process in promoters for number in process.communicate()[0].split()]
    assert [process.returncode for process in promoters] == [0, 0]
    assert sorted(numbers) == list(range(1, 21))
    entries = repository.log()
    assert [entry.sequence for entry in entries] == list(range(1, 21))
    assert all(before.time <= after.time for before, after in itertools.pairwise(entries))
