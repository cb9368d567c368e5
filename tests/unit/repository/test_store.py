"""The local repository: versions appear whole, in order, unchanged, or not at all."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tailorbird.domain import bundle
from tailorbird.domain.errors import BundleError, ModelNotFound, RepositoryError, UsageError, VersionNotFound
from tailorbird.repository import layout, staging
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.store import LocalRepository, VersionCheck
from tests import bundles

BEHIND = (
    "the change is made, but config.pbtxt could not be written after it: got No space left on device, "
    "expected what the repository's log says\n"
    "Hint: do not repeat it; make room, or let the place be written: the next change mends config.pbtxt"
)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_promotion_that_stands_is_not_called_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = LocalRepository(tmp_path / "repository")
    for n in (1, 2):
        repository.publish(bundles.version(tmp_path / str(n), candidate=bundles.candidate(threads=n)))
    config = tmp_path / "repository" / "tiny" / "config.pbtxt"
    before = config.read_bytes()
    monkeypatch.setattr("tailorbird.repository.store.replacing", full_disk)
    with pytest.raises(RepositoryError) as caught:
        repository.promote("tiny", 1, "production")
    assert caught.value.message == BEHIND
    with pytest.raises(VersionNotFound):  # the change's own error is the one to tell
        repository.promote("tiny", 9, "production")
    monkeypatch.undo()
    assert (repository.live("tiny", "production"), config.read_bytes()) == (1, before)
    repository.promote("tiny", 1, "production")
    assert config.read_bytes() != before


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.version(tmp_path_factory.mktemp("source") / "1")


@pytest.fixture(scope="module")
def engine(version: Path) -> Path:
    return bundles.engine_file(version, version.parent / "tiny.engine")


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    return LocalRepository(tmp_path / "repository")


def staged(repository: LocalRepository) -> list[Path]:
    return list(layout.incoming_dir(repository.root).iterdir())


@pytest.mark.parametrize("kind", ["version", "engine"])
def test_a_bundle_becomes_the_next_version(
    kind: str, repository: LocalRepository, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(kind)
    assert [repository.publish(source), repository.publish(source, again=True)] == [1, 2]
    assert repository.models() == ("tiny",)
    assert repository.versions("tiny") == (1, 2)
    assert repository.version_dir("tiny") == repository.root / "tiny" / "2"
    assert repository.verify() == (VersionCheck("tiny", 1), VersionCheck("tiny", 2))
    assert staged(repository) == []


def test_the_manifest_is_the_same_everywhere(
    version: Path, engine: Path, repository: LocalRepository, tmp_path: Path
) -> None:
    other = LocalRepository(tmp_path / "other")
    repository.publish(version)
    other.publish(repository.version_dir("tiny"), "renamed")
    repository.publish(engine, again=True)
    copies = {repository.version_dir("tiny", 1), repository.version_dir("tiny", 2), other.version_dir("renamed")}
    assert {(path / bundle.MANIFEST).read_bytes() for path in copies} == {(version / bundle.MANIFEST).read_bytes()}
    assert other.manifest("renamed").model == "tiny"


def test_config_is_written_for_the_folder_and_not_taken_from_the_bundle(
    version: Path, repository: LocalRepository
) -> None:
    repository.publish(version, "renamed")
    config = repository.root / "renamed" / "config.pbtxt"
    assert config.read_bytes() == config_pbtxt(bundle.read_manifest(version), "renamed")


def test_config_describes_the_latest_version(version: Path, repository: LocalRepository, tmp_path: Path) -> None:
    repository.publish(version)
    repository.publish(bundles.version(tmp_path / "v2", candidate=bundles.candidate(threads=2)))
    assert (
        b'"intra_op_thread_count" value: { string_value: "2" }'
        in (repository.root / "tiny" / "config.pbtxt").read_bytes()
    )


def test_published_files_are_read_only(version: Path, repository: LocalRepository) -> None:
    repository.publish(version)
    files = [path for path in repository.version_dir("tiny").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o444}
    assert repository.publish(repository.version_dir("tiny"), again=True) == 2


def test_a_signature_is_published_too(repository: LocalRepository, tmp_path: Path) -> None:
    source = bundles.version(tmp_path / "1")
    repository.publish(source)
    published = repository.version_dir("tiny") / bundle.SIGNATURE
    assert published.read_bytes() == (source / bundle.SIGNATURE).read_bytes()


@pytest.mark.parametrize("name", ["copied", "unpacked", "1"])
def test_any_name_can_be_published(name: str, version: Path, engine: Path, repository: LocalRepository) -> None:
    assert [repository.publish(version, name), repository.publish(engine, name, again=True)] == [1, 2]
    assert repository.models() == (name,)


def test_a_bad_name_is_refused_before_anything_is_made(version: Path, repository: LocalRepository) -> None:
    with pytest.raises(UsageError, match=r"not a model name: got '\.\./up'"):
        repository.publish(version, "../up")
    assert not repository.root.exists()


def test_a_bad_name_in_a_manifest_is_refused(repository: LocalRepository, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a model name: got '\.\./up'"):
        repository.publish(bundles.version(tmp_path / "1", model="../up"))
    assert repository.models() == ()
    assert staged(repository) == []


@pytest.mark.parametrize("name", ["model.onnx", "tailorbird/report.html", bundle.MANIFEST])
def test_an_altered_source_is_not_published(name: str, repository: LocalRepository, tmp_path: Path) -> None:
    source = bundles.version(tmp_path / "1")
    data = bytearray((source / name).read_bytes())
    data[len(data) // 2] ^= 0x80
    (source / name).write_bytes(data)
    with pytest.raises(BundleError):
        repository.publish(source)
    assert repository.models() == ()
    assert staged(repository) == []


def test_half_a_file_is_not_published(engine: Path, repository: LocalRepository, tmp_path: Path) -> None:
    half = tmp_path / "half.engine"
    half.write_bytes(engine.read_bytes()[:-100])
    with pytest.raises(BundleError, match="is not a whole bundle"):
        repository.publish(half)
    assert repository.models() == ()


def test_a_missing_source_says_so(repository: LocalRepository, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot open .*none.engine: got No such file or directory"):
        repository.publish(tmp_path / "none.engine")


def test_publishers_at_once_get_a_version_each(version: Path, engine: Path, repository: LocalRepository) -> None:
    def publish(number: int) -> int:
        return LocalRepository(repository.root).publish(engine if number % 2 else version, again=True)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(publish, range(18))) == list(range(1, 19))
    assert repository.versions("tiny") == tuple(range(1, 19))
    assert all(check.ok for check in repository.verify())
    assert staged(repository) == []


def test_a_number_taken_by_somebody_else_is_passed_over(
    version: Path, repository: LocalRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.publish(version)
    (repository.root / "tiny" / "2" / "theirs").mkdir(parents=True)
    monkeypatch.setattr(layout, "versions_in", lambda folder: (1,))
    assert repository.publish(version, again=True) == 3


def test_verify_names_what_is_wrong_and_goes_on(version: Path, repository: LocalRepository) -> None:
    for _ in range(2):
        repository.publish(version, again=True)
    engine = repository.version_dir("tiny", 1) / "model.onnx"
    engine.chmod(0o644)
    engine.write_bytes(b"x")
    first, second = repository.verify("tiny")
    assert not first.ok
    assert first.problem.startswith(f"'model.onnx' of {engine.parent} was altered: got sha256:")
    assert second.ok
    assert repository.verify("tiny", 1) == (first,)


def test_an_unknown_model_names_the_nearest(version: Path, repository: LocalRepository) -> None:
    repository.publish(version)
    with pytest.raises(ModelNotFound, match=r"unknown model 'tinny'\nHint: did you mean 'tiny'\?"):
        repository.versions("tinny")
    with pytest.raises(ModelNotFound):
        repository.verify("tinny")


def test_an_unknown_version_lists_those_there_are(version: Path, repository: LocalRepository) -> None:
    repository.publish(version)
    with pytest.raises(VersionNotFound, match=r"model 'tiny' has no version 7\nHint: versions: 1"):
        repository.version_dir("tiny", 7)


def test_a_repository_that_is_not_there_says_so(repository: LocalRepository) -> None:
    with pytest.raises(RepositoryError) as caught:
        repository.models()
    assert caught.value.message == (
        f"there is no repository at {repository.root}: got No such file or directory\n"
        "Hint: publish a bundle there first"
    )


def test_a_file_in_the_repositorys_place_says_so(version: Path, repository: LocalRepository) -> None:
    repository.root.touch()
    with pytest.raises(RepositoryError, match=r"cannot publish in .*: got Not a directory\nHint: nothing half"):
        repository.publish(version)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("kind", ["version", "engine"])
def test_a_failing_disk_leaves_nothing(
    code: int, kind: str, repository: LocalRepository, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = request.getfixturevalue(kind)

    def fail(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RepositoryError) as caught:
        repository.publish(source)
    assert caught.value.message == (
        f"cannot publish in {repository.root}: got {os.strerror(code)}\nHint: nothing half-published is left; "
        "see that the repository's disk has room and can be written"
    )
    assert repository.models() == ()
    assert staged(repository) == []


class TestLeftovers:
    """What a killed publish left: its folder, and a lock that nobody holds."""

    def leave(self, repository: LocalRepository, model: str) -> Path:
        folder = layout.incoming_dir(repository.root) / "0123456789abcdef"
        (folder / model / "1").mkdir(parents=True)
        (folder / model / "1" / "half").touch()
        folder.with_name(folder.name + ".lock").touch()
        return folder

    def test_they_are_invisible_and_swept(self, version: Path, repository: LocalRepository) -> None:
        self.leave(repository, "other")
        assert repository.models() == ()
        repository.publish(version)
        assert repository.models() == ("tiny",)
        assert staged(repository) == []

    def test_a_living_publish_is_left_alone(self, version: Path, repository: LocalRepository) -> None:
        with staging.staging(layout.incoming_dir(repository.root)) as living:
            (living / "tiny").mkdir()
            repository.publish(version)
            assert (living / "tiny").is_dir()

    def test_a_config_that_was_left_behind_is_mended(self, version: Path, repository: LocalRepository) -> None:
        """Killed between the version's rename and its config's."""
        repository.publish(version)
        config = repository.root / "tiny" / "config.pbtxt"
        config.write_text("stale")
        self.leave(repository, "tiny")
        repository.publish(version, "another")
        assert config.read_bytes() == config_pbtxt(bundle.read_manifest(version), "tiny")

    def test_a_foreign_latest_version_is_left_alone(self, version: Path, repository: LocalRepository) -> None:
        (repository.root / "tiny" / "1").mkdir(parents=True)
        (repository.root / "tiny" / "config.pbtxt").write_text("theirs")
        self.leave(repository, "tiny")
        repository.publish(version, "another")
        assert (repository.root / "tiny" / "config.pbtxt").read_text() == "theirs"
