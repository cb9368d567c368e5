"""Object storage: whole versions or none, limits, the read cache, and errors that say what to do."""

import builtins
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailorbird.domain.cache import Cache
from tailorbird.domain.errors import BundleError, RepositoryError, UsageError
from tailorbird.repository import bucket as bucket_module
from tailorbird.repository.channels import What
from tailorbird.repository.opening import open_repository
from tailorbird.repository.remote import RemoteRepository
from tailorbird.repository.rules import Keep
from tailorbird.repository.store import LocalRepository
from tests import bundles, object_storage

NOW = Keep(older_than=timedelta(0), unfinished=timedelta(0))


def bucket_of(repository: RemoteRepository) -> str:
    return repository.place.removeprefix("s3://").partition("/")[0]


def put(repository: RemoteRepository, key: str, body: bytes = b"x") -> None:
    bucket, _, prefix = repository.place.removeprefix("s3://").partition("/")
    object_storage.client().put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=body)


def test_the_tree_is_tritons(remote: RemoteRepository, versions: list[Path]) -> None:
    remote.publish(versions[0])
    remote.promote("tiny", 1, "production")
    assert object_storage.keys(bucket_of(remote)) == {
        f"some/where/{name}"
        for name in (
            "tiny/config.pbtxt",
            "tiny/1/model.onnx",
            "tiny/1/tailorbird/build.jsonl",
            "tiny/1/tailorbird/manifest.json",
            "tiny/1/tailorbird/report.html",
            "tiny/1/tailorbird/signature.json",
            ".tailorbird/log/000000000001.json",
        )
    }
    assert remote.location("tiny", 1) == f"s3://{bucket_of(remote)}/some/where/tiny/1"


def test_a_large_file_goes_in_parts(remote: RemoteRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "PART_BYTES", 5 << 20)
    remote.publish(bundles.version(tmp_path / "1", ballast=12 << 20))
    found = object_storage.client().head_object(Bucket=bucket_of(remote), Key="some/where/tiny/1/ballast.bin")
    assert (found["ContentLength"], found["ETag"].strip('"').partition("-")[2]) == (12 << 20, "3")
    assert remote.verify()[0].ok


class TestHalfVersions:
    def test_one_without_a_manifest_is_none(self, remote: RemoteRepository, versions: list[Path]) -> None:
        put(remote, "tiny/1/model.onnx")
        put(remote, ".tailorbird/claims/tiny/1.json", b"{}")
        assert remote.models() == ()
        assert remote.publish(versions[0]) == 2
        assert remote.versions("tiny") == (2,)
        assert remote.gc(Keep(unfinished=timedelta(hours=1))) == ()
        found = remote.gc(NOW, dry_run=True)
        assert [(one.kind, one.version, one.bytes) for one in found] == [("unfinished publish", 1, 1)]
        assert remote.gc(NOW) == found
        assert not [key for key in object_storage.keys(bucket_of(remote)) if "/1" in key or "claims" in key]
        assert [(entry.what, entry.version) for entry in remote.log()] == [(What.COLLECT, 1)]

    def test_a_slow_publisher_that_was_given_up(
        self, remote: RemoteRepository, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Garbage is collected between its last file and its manifest: its version must never be seen."""
        create = remote._bucket.create

        def late(key: str, data: bytes) -> bool:
            if key.endswith("manifest.json"):
                with Cache(tmp_path / "other") as cache:
                    RemoteRepository(remote.place, cache).gc(NOW)
            return create(key, data)

        monkeypatch.setattr(remote._bucket, "create", late)
        with pytest.raises(RepositoryError, match="version 1 of model 'tiny' was given up for dead") as caught:
            remote.publish(versions[0])
        assert caught.value.hint == "publish again, and collect garbage with a longer --unfinished"
        monkeypatch.undo()
        assert remote.models() == ()
        assert remote.publish(versions[0]) == 2
        remote.gc(NOW)
        assert not [key for key in object_storage.keys(bucket_of(remote)) if "tiny/1/" in key]

    def test_what_a_killed_publisher_left_is_mended(self, remote: RemoteRepository, versions: list[Path]) -> None:
        """Killed after its manifest: the claim is there still, and config.pbtxt is not."""
        remote.publish(versions[0])
        put(remote, ".tailorbird/claims/tiny/1.json", b"{}")
        put(remote, "tiny/config.pbtxt", b"stale")
        remote.publish(versions[0], "another")
        assert remote._bucket.read("tiny/config.pbtxt", 9999) != b"stale"
        assert not [key for key in object_storage.keys(bucket_of(remote)) if "claims" in key]


class TestReading:
    def test_what_was_read_is_kept(self, remote: RemoteRepository, versions: list[Path], tmp_path: Path) -> None:
        remote.publish(versions[0])
        with Cache(tmp_path / "elsewhere") as cache:
            reader = RemoteRepository(remote.place, cache)
            first = reader.version_dir("tiny")
            object_storage.client().delete_object(Bucket=bucket_of(remote), Key="some/where/tiny/1/model.onnx")
            assert reader.version_dir("tiny") == first
            assert (first / "model.onnx").read_bytes() == (versions[0] / "model.onnx").read_bytes()
        with Cache(tmp_path / "third") as cache, pytest.raises(RepositoryError, match=r"tiny/1/model\.onnx is gone"):
            RemoteRepository(remote.place, cache).version_dir("tiny")
        assert not [path for path in (tmp_path / "third").rglob("*") if path.is_file()]

    def test_verify_reads_the_bucket_and_a_bad_copy_is_not_kept(
        self, remote: RemoteRepository, versions: list[Path], tmp_path: Path
    ) -> None:
        remote.publish(versions[0])
        remote.version_dir("tiny")  # in the publisher's cache, and whole
        put(remote, "tiny/1/model.onnx", b"bad")
        assert "'model.onnx' of" in remote.verify()[0].problem
        assert "was altered" in remote.verify()[0].problem
        with Cache(tmp_path / "elsewhere") as cache:
            reader = RemoteRepository(remote.place, cache)
            with pytest.raises(BundleError) as caught:
                reader.version_dir("tiny")
            assert caught.value.what == f"'model.onnx' of {remote.location('tiny', 1)} was altered"
            assert caught.value.hint == "restore it from its source, or publish it again"
            put(remote, "tiny/1/model.onnx", (versions[0] / "model.onnx").read_bytes())
            assert reader.verify()[0].ok
            content = (reader.version_dir("tiny") / "model.onnx").read_bytes()
            assert content == (versions[0] / "model.onnx").read_bytes()

    def test_verify_names_what_the_bucket_lacks(self, remote: RemoteRepository, versions: list[Path]) -> None:
        remote.publish(versions[0])
        object_storage.client().delete_object(Bucket=bucket_of(remote), Key="some/where/tiny/1/model.onnx")
        assert remote.verify()[0].problem == (
            f"{remote.location('tiny', 1)} lacks a file that its manifest names: got no such object, "
            "expected 'model.onnx'\nHint: restore it from its source, or publish it again"
        )

    def test_a_cache_that_cannot_be_written_hides_no_publish(
        self, remote: RemoteRepository, versions: list[Path], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        with Cache(tmp_path / "file" / "cache") as cache:
            assert RemoteRepository(remote.place, cache).publish(versions[0]) == 1
        assert remote.versions("tiny") == (1,)

    def test_a_publish_that_stands_is_not_called_failed(
        self, remote: RemoteRepository, versions: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise RepositoryError("cannot write", got="the server is tired")

        monkeypatch.setattr(remote._bucket, "replace", refuse)
        with pytest.raises(RepositoryError, match=r"^the change is made, but config\.pbtxt could not be written after"):
            remote.publish(versions[0])
        monkeypatch.undo()
        assert remote.versions("tiny") == (1,)
        remote.promote("tiny", 1, "production")
        found = object_storage.keys(bucket_of(remote))
        assert "some/where/tiny/config.pbtxt" in found
        assert not [key for key in found if "claims" in key]

    def test_a_manifest_that_is_too_large(
        self, remote: RemoteRepository, versions: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote.publish(versions[0])
        monkeypatch.setattr("tailorbird.domain.bundle.MAX_MANIFEST_BYTES", 10)
        with pytest.raises(RepositoryError, match=r"manifest\.json is too large: got \d+ bytes, expected at most 10"):
            remote.manifest("tiny")

    @pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "x" * 300])
    def test_names_in_a_manifest_that_lead_elsewhere(
        self, remote: RemoteRepository, versions: list[Path], name: str
    ) -> None:
        import msgspec

        remote.publish(versions[0])
        manifest = remote.manifest("tiny")
        bad = msgspec.structs.replace(manifest, files=manifest.files | {name: "sha256:0"})
        put(remote, "tiny/1/tailorbird/manifest.json", msgspec.json.encode(bad))
        with pytest.raises(BundleError, match="is refused: got 4 files, expected at most 4096 plain names"):
            remote.version_dir("tiny")


@pytest.mark.parametrize(
    "place",
    ["s3://", "s3://B", "s3://ab", "s3://nest/../up", "s3://nest//x", "s3://user:word@nest/x", "s3://nest/x?y=1",
     "s3://nest/a b", "s3://n\u0435st/x", "s3://nest/\0"],
)  # fmt: skip
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(UsageError, match="not a place in object storage: got 's3:"):
        open_repository(place)


def test_a_folder_is_a_place(tmp_path: Path) -> None:
    assert isinstance(open_repository(tmp_path), LocalRepository)
    assert isinstance(open_repository(str(tmp_path)), LocalRepository)


def test_a_bucket_that_is_not_there(storage: Any) -> None:
    with pytest.raises(RepositoryError) as caught:
        open_repository("s3://no-such-bucket/x").models()
    assert caught.value.what == "cannot list in s3://no-such-bucket/x"
    assert "NoSuchBucket" in (caught.value.got or "")
    assert "Debug" not in caught.value.message
    assert caught.value.hint == (
        "see the AWS_ENDPOINT_URL, AWS_REGION and AWS credentials of the environment, and that the bucket exists"
    )


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setattr(bucket_module, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=1)})
        with pytest.raises(RepositoryError, match=r"cannot list in s3://nest: got .*error sending request"):
            open_repository("s3://nest").models()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RepositoryError) as caught:
        open_repository("s3://nest/x")
    assert caught.value.message == (
        "object storage needs the package obstore: got it is not installed\nHint: pip install 'tailorbird[s3]'"
    )
