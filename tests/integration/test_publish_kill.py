"""Real kills, real full disks, real processes: no lost version, no half version, and the next publish works."""

import contextlib
import functools
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

from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.errors import BundleError, RepositoryError
from tailorbird.repository import layout
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.store import LocalRepository
from tests import bundles
from tests.integration.faults import KILL_BEFORE, small_tmpfs

BALLAST = 1 << 20  # large enough for kills to land in the middle of a copy
PACKAGE = Path(bundle.__file__).parents[2]

PUBLISH_FOREVER = """
import itertools, sys
from pathlib import Path
from tailorbird.repository.store import LocalRepository
sources, repository = [Path(path) for path in sys.argv[2:]], LocalRepository(Path(sys.argv[1]))
print("ready", flush=True)
for source in itertools.cycle(sources):
    repository.publish(source, again=True)
"""

PACK_FOREVER = """
import sys
from pathlib import Path
from tailorbird.domain.bundlefile import pack
print("ready", flush=True)
while True:
    pack(Path(sys.argv[2]), Path(sys.argv[1]), b"")
"""

# The publishing process kills itself before a step; forks make trying them all quick.
PUBLISH_KILLED = """
import os, signal, sys
from pathlib import Path
from tailorbird.repository import layout
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.store import LocalRepository

folder, older, newer, earlier = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def publish_killed(repository, step):
    pid = os.fork()
    if pid == 0:
        kill_before(step)
        repository.publish(newer, again=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def check(repository, step):
    checks = repository.verify() if repository.root.exists() else ()
    assert all(check.ok for check in checks), (step, checks)
    assert len(checks) in (earlier, earlier + 1), (step, checks)
    assert repository.publish(older, "another") == 1, step
    assert not list(layout.incoming_dir(repository.root).iterdir()), step
    for model in repository.models():
        config = (repository.root / model / "config.pbtxt").read_bytes()
        assert config == config_pbtxt(repository.manifest(model), model), (step, model)

code, step = -signal.SIGKILL, 0
while code == -signal.SIGKILL:
    step += 1
    repository = LocalRepository(folder / str(step))
    for _ in range(earlier):
        repository.publish(older, again=True)
    code = publish_killed(repository, step)
    check(repository, step)
assert code == 0, code
print(step)
"""

PUBLISH_SOME = """
import sys
from pathlib import Path
from tailorbird.repository.store import LocalRepository
for _ in range(5):
    print(LocalRepository(Path(sys.argv[1])).publish(Path(sys.argv[2]), again=True), flush=True)
"""


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.version(tmp_path_factory.mktemp("source") / "1", ballast=BALLAST)


@pytest.fixture(scope="module")
def engine(version: Path) -> Path:
    return bundles.engine_file(version, version.parent / "tiny.engine")


def child(code: str, *arguments: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def killed_at_random(code: str, *arguments: Path, chance: random.Random) -> None:
    """Start a child, and kill it once at work: at a moment within its first rounds."""
    with child(code, *arguments) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def check_repository(repository: LocalRepository, before: int, source: Path) -> int:
    """Every visible version is whole, none is lost, and the next publish tidies up; returns their count."""
    checks = repository.verify() if repository.root.exists() else ()
    assert [check.problem for check in checks if not check.ok] == []
    assert len(checks) >= before
    assert repository.publish(source, again=True) == len(checks) + 1
    assert list(layout.incoming_dir(repository.root).iterdir()) == []
    config = (repository.root / "tiny" / "config.pbtxt").read_bytes()
    assert config == config_pbtxt(repository.manifest("tiny"))
    return len(checks) + 1


def kill_publishers(kills: int, folder: Path, version: Path, engine: Path) -> None:
    chance = random.Random(kills)
    count = 0
    for number in range(kills):
        repository = LocalRepository(folder / f"repository{number // 20}")  # verifying all gets slow in a long one
        count = 0 if number % 20 == 0 else count
        killed_at_random(PUBLISH_FOREVER, repository.root, version, engine, chance=chance)
        count = check_repository(repository, count, version)


def kill_packers(kills: int, out: Path, version: Path) -> None:
    chance = random.Random(kills)
    bundles.engine_file(version, out)
    for number in range(kills):
        killed_at_random(PACK_FOREVER, out, version, chance=chance)
        unpacked = bundlefile.unpack(out, out.with_name(f"unpacked{number}"))
        assert bundle.verify(unpacked) == bundle.verify(version)


def test_killed_publishers_leave_whole_versions(tmp_path: Path, version: Path, engine: Path) -> None:
    kill_publishers(12, tmp_path, version, engine)


def test_a_killed_pack_leaves_the_old_file_or_the_new(tmp_path: Path, version: Path) -> None:
    kill_packers(4, tmp_path / "tiny.engine", version)


@pytest.mark.parametrize(("kind", "earlier"), [("engine", 0), ("version", 1)])
def test_a_kill_before_any_step_leaves_whole_versions(tmp_path: Path, kind: str, earlier: int) -> None:
    older = bundles.version(tmp_path / "older")
    newer = bundles.version(tmp_path / "newer", candidate=bundles.candidate(threads=2))
    source = newer if kind == "version" else bundles.engine_file(newer, tmp_path / "newer.engine")
    command = [sys.executable, "-c", KILL_BEFORE + PUBLISH_KILLED, str(tmp_path), str(older), str(source), str(earlier)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_two_hundred_killed_publishers(tmp_path: Path, version: Path, engine: Path) -> None:
    kill_publishers(200, tmp_path, version, engine)


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_two_hundred_killed_packs(tmp_path: Path, version: Path) -> None:
    kill_packers(200, tmp_path / "tiny.engine", version)


def test_processes_at_once_get_a_version_each(tmp_path: Path, version: Path, engine: Path) -> None:
    root = tmp_path / "repository"
    publishers = [child(PUBLISH_SOME, root, source) for source in (version, engine, version)]
    numbers = [int(number) for process in publishers for number in process.communicate()[0].split()]
    assert [process.returncode for process in publishers] == [0, 0, 0]
    assert sorted(numbers) == list(range(1, 16))
    assert len(LocalRepository(root).verify()) == 15


# What each kind of full disk says: a real one, and a limit on file sizes, which any user can set.
FULL = {"tmpfs": "No space left on device", "limit": "File too large"}


@contextlib.contextmanager
def small_files(folder: Path) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BALLAST // 2, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


DISKS: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "tmpfs": functools.partial(small_tmpfs, size="2m"),
    "limit": small_files,
}


@pytest.fixture(params=FULL)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder with room for little, and what the system says when that is used up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with DISKS[request.param](folder):
        yield folder, FULL[request.param]


def room_for(folder: Path) -> LocalRepository:
    """A repository with one small version in it, on a disk that then has no room for a large one."""
    repository = LocalRepository(folder / "repository")
    repository.publish(bundles.version(folder / "small"))
    (folder / "filler").write_bytes(bytes(BALLAST // 4))
    for number in range(5):
        with contextlib.suppress(OSError):
            (folder / f"filler{number}").write_bytes(bytes(BALLAST // 4))
    return repository


@pytest.mark.parametrize("kind", ["version", "engine"])
def test_a_full_disk_publishes_nothing(disk: tuple[Path, str], kind: str, request: pytest.FixtureRequest) -> None:
    folder, words = disk
    repository = room_for(folder)
    with pytest.raises(RepositoryError) as caught:
        repository.publish(request.getfixturevalue(kind))
    assert caught.value.message.startswith(
        f"cannot publish in {repository.root}: got {words}\nHint: nothing half-published is left"
    )
    assert [(check.version, check.ok) for check in repository.verify()] == [(1, True)]
    assert list(layout.incoming_dir(repository.root).iterdir()) == []
    assert repository.publish(folder / "small", again=True) == 2


def test_a_full_disk_keeps_the_old_file(disk: tuple[Path, str], version: Path) -> None:
    folder, words = disk
    room_for(folder)
    engine = bundles.engine_file(folder / "small", folder / "tiny.engine")
    with pytest.raises(BundleError, match=f"cannot write .*: got {words}\nHint: nothing was written"):
        bundles.engine_file(version, engine)
    assert bundlefile.manifest_of(engine) == bundle.read_manifest(folder / "small")
    assert not list(folder.glob(".*.tmp"))
