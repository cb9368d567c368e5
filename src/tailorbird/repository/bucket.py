"""The border to object storage: a bucket, or a part of one, through obstore. Its exceptions stop here.

Credentials, endpoint and region come from the usual environment: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ALLOW_HTTP`` and what else obstore reads; never from a place's text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.bundle import is_plain_path
from tailorbird.domain.digest import CHUNK
from tailorbird.domain.errors import RepositoryError, UsageError
from tailorbird.repository.objects import MAX_BYTES, Objects

SCHEME = "s3://"
PART_BYTES = 16 << 20
"""Larger files are uploaded in parts of this size."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CLIENT = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "2h"}  # read_timeout: of each read, not of all
_RETRIES = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_AT_ONCE = 16
_HINT = "see the AWS_ENDPOINT_URL, AWS_REGION and AWS credentials of the environment, and that the bucket exists"


class Stored(msgspec.Struct, frozen=True):
    """One object of a listing."""

    key: str
    bytes: int
    modified: datetime


class Bucket:
    """Objects below ``s3://bucket/prefix``. Raises :class:`RepositoryError` alone.

    Args:
        place: its text; an optional prefix is made of plain names.

    Raises:
        UsageError: the text is not of that form.
        RepositoryError: obstore is not installed, or refuses the environment's settings.
    """

    def __init__(self, place: str) -> None:
        name, _, prefix = place.removeprefix(SCHEME).rstrip("/").partition("/")
        if not place.startswith(SCHEME) or not _BUCKET.fullmatch(name) or (prefix and not is_plain_path(prefix)):
            raise UsageError("not a place in object storage", got=ascii(place), expected="s3://bucket/prefix")
        self.place = f"{SCHEME}{name}/{prefix}".rstrip("/")
        self._obstore = _obstore()
        with self._border("open"):
            self._store = _s3_store(name, prefix)

    def list(self, folder: str = "") -> Iterator[Stored]:
        """Every object below a folder, whatever its depth; keys are relative to the bucket's prefix."""
        with self._border("list"):
            for page in self._obstore.list(self._store, folder or None, chunk_size=1000):
                for found in page:
                    yield Stored(found["path"], found["size"], found["last_modified"])

    def read(self, key: str, most: int) -> bytes | None:
        """An object's bytes, or None when there is none; raises :class:`RepositoryError` over ``most`` bytes."""
        with self._border(f"read {key}"):
            try:
                found = self._obstore.get(self._store, key)
            except FileNotFoundError:
                return None
            if found.meta["size"] > most:
                raise RepositoryError(f"{self.place}/{key} is too large", got=f"{found.meta['size']} bytes",
                                      expected=f"at most {most} bytes")  # fmt: skip
            return bytes(found.bytes())

    def download(self, key: str, path: Path) -> None:
        """An object's bytes into a new file. Raises :class:`OSError` for the disk's own faults."""
        with path.open("xb") as file:
            for chunk in self._chunks(key):
                file.write(chunk)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object that is not there yet; False when the key is taken."""
        with self._border(f"write {key}"):
            try:
                self._obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except self._obstore.exceptions.AlreadyExistsError:
                return False
            return True

    def replace(self, key: str, data: bytes) -> None:
        """Write an object in the place of what is there."""
        with self._border(f"write {key}"):
            self._obstore.put(self._store, key, data, use_multipart=False)

    def upload(self, path: Path, key: str) -> None:
        """Write a file as an object, a large one in parts; readers see the whole of it or nothing."""
        with self._border(f"write {key}"):
            self._obstore.put(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=4)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are as good as removed."""
        if keys:
            with self._border(f"remove {keys[0]}"):
                self._obstore.delete(self._store, list(keys))

    def _chunks(self, key: str) -> Iterator[bytes]:
        with self._border(f"read {key}"):
            try:
                stream = iter(self._obstore.get(self._store, key).stream(min_chunk_size=CHUNK))
            except FileNotFoundError as error:
                raise RepositoryError(f"{self.place}/{key} is gone", hint="read the repository again") from error
        while True:
            with self._border(f"read {key}"):
                chunk = next(stream, None)
            if chunk is None:
                return
            yield bytes(chunk)

    @contextmanager
    def _border(self, action: str) -> Iterator[None]:
        try:
            yield
        except (self._obstore.exceptions.BaseError, OSError) as error:
            # The vendor's text goes on for a page of Rust; its first lines say what happened.
            text = " ".join(str(error).partition("Debug source")[0].split())
            raise RepositoryError(f"cannot {action} in {self.place}", got=text[:400], hint=_HINT) from error


class BucketObjects(Objects):
    """A repository's small objects in a bucket, below a folder of it."""

    def __init__(self, bucket: Bucket, folder: str) -> None:
        self._bucket = bucket
        self._folder = folder

    def names(self, folder: str) -> tuple[str, ...]:
        """See :meth:`Objects.names`."""
        prefix = f"{self._folder}/{folder}/"
        return tuple(sorted(found.key.removeprefix(prefix) for found in self._bucket.list(prefix)))

    def read(self, name: str) -> bytes | None:
        """See :meth:`Objects.read`."""
        return self._bucket.read(f"{self._folder}/{name}", MAX_BYTES)

    def read_many(self, names: Sequence[str]) -> list[bytes | None]:
        """See :meth:`Objects.read_many`; several at once, because each takes a while to come."""
        if len(names) < 2:
            return super().read_many(names)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.read, names))

    def create(self, name: str, data: bytes) -> bool:
        """See :meth:`Objects.create`."""
        return self._bucket.create(f"{self._folder}/{name}", data)

    def remove(self, name: str) -> None:
        """See :meth:`Objects.remove`."""
        self._bucket.remove([f"{self._folder}/{name}"])


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
    except ImportError as error:
        raise RepositoryError("object storage needs the package obstore", got="it is not installed",
                              hint="pip install 'tailorbird[s3]'") from error  # fmt: skip
    return obstore


def _s3_store(bucket: str, prefix: str) -> Any:
    from obstore.store import S3Store

    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")  # our options hide obstore's own
    client: Any = {**_CLIENT, "allow_http": allow_http}
    retries: Any = _RETRIES
    return S3Store(bucket, prefix=prefix or None, client_options=client, retry_config=retries)
