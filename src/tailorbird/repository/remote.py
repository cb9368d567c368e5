"""The repository in object storage: the same tree, S3's keys for paths.

There is no rename, so a version is there when its manifest is, which is written last and never over another. Before
the first file a publisher claims the number with an object of its own, so that no two ever write into one place;
the claim goes when the version is whole. Engines are read through a cache on this machine, by their manifest's digest.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from tailorbird.domain import archive, bundle, bundlefile
from tailorbird.domain.cache import Cache, cache_root
from tailorbird.domain.digest import digest_bytes, digest_file
from tailorbird.domain.errors import BundleError, RepositoryError, TailorbirdError
from tailorbird.domain.files import reason
from tailorbird.domain.manifest import decode_manifest
from tailorbird.repository import layout
from tailorbird.repository.base import Repository
from tailorbird.repository.bucket import Bucket, BucketObjects, Stored
from tailorbird.repository.gc import Garbage
from tailorbird.repository.incoming import is_same
from tailorbird.repository.log import who
from tailorbird.repository.rules import Keep
from tailorbird.repository.served import described, latest_of

_KIND = "versions"
_FOLDER = "version"
_ROUNDS = 8
_RESTORE = "restore it from its source, or publish it again"


class _Claim(msgspec.Struct, frozen=True):
    who: str
    nonce: str


class RemoteRepository(Repository):
    """A model repository in object storage. Safe for many processes.

    Args:
        place: ``s3://bucket/prefix``.
        cache: where this machine keeps what it reads.
        allow_unsigned: for local experiments: versions without a trusted signature are taken as well.
    """

    def __init__(self, place: str, cache: Cache | None = None, *, allow_unsigned: bool = False) -> None:
        self._bucket = Bucket(place)
        super().__init__(self._bucket.place, BucketObjects(self._bucket, layout.OURS), allow_unsigned=allow_unsigned)
        self._cache = cache or Cache(cache_root())

    def _present(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, set[int]] = {}
        for stored in self._bucket.list():
            version = layout.version_of_key(stored.key)
            if version and stored.key.endswith(f"/{bundle.MANIFEST}"):
                found.setdefault(version[0], set()).add(version[1])
        return {name: tuple(sorted(numbers)) for name, numbers in sorted(found.items())}

    def _fetched(self, model: str, version: int) -> Path:
        manifest = self._manifest_bytes(model, version)
        key = _key(manifest, self._signature(model, version))

        def fill(folder: Path) -> None:
            self._download(model, version, manifest, folder)
            self._check_download(model, version, manifest, folder)

        return self._cache.make(_KIND, key, fill, about=model) / _FOLDER

    @contextmanager
    def _original(self, model: str, version: int) -> Iterator[Path]:
        manifest = self._manifest_bytes(model, version)
        stored = {found.key for found in self._bucket.list(f"{model}/{version}/")}
        for name in sorted(decode_manifest(manifest).files):
            if f"{model}/{version}/{name}" not in stored:
                what = f"{self.location(model, version)} lacks a file that its manifest names"
                raise BundleError(what, got="no such object", expected=ascii(name), hint=_RESTORE)
        with self._staging() as folder:
            self._download(model, version, manifest, folder)
            yield folder / _FOLDER

    def _check_download(self, model: str, version: int, manifest: bytes, folder: Path) -> None:
        """Refuse a copy that differs from its manifest, so that the cache never keeps one."""
        for name, expected in sorted(decode_manifest(manifest).files.items()):
            got = digest_file(folder / _FOLDER / name)
            if got != expected:
                what = f"'{name}' of {self.location(model, version)} was altered"
                raise BundleError(what, got=got, expected=expected, hint=_RESTORE)

    def _download(self, model: str, version: int, manifest: bytes, folder: Path) -> None:
        """Every file that the manifest names, into ``folder``. What they hold is for the caller to check."""
        names = decode_manifest(manifest).files
        if len(names) > archive.MAX_ENTRIES or not all(map(bundle.is_plain_path, names)):
            what = f"the manifest of {self.location(model, version)} is refused"
            raise BundleError(what, got=f"{len(names)} files",
                              expected=f"at most {archive.MAX_ENTRIES} plain names")  # fmt: skip
        place = folder / _FOLDER
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            self._bucket.download(f"{model}/{version}/{name}", place / name)
        (place / bundle.MANIFEST).parent.mkdir(parents=True, exist_ok=True)
        (place / bundle.MANIFEST).write_bytes(manifest)
        signature = self._signature(model, version)
        if signature is not None:
            (place / bundle.SIGNATURE).write_bytes(signature)

    def _manifest_bytes(self, model: str, version: int) -> bytes:
        found = self._bucket.read(f"{model}/{version}/{bundle.MANIFEST}", bundle.MAX_MANIFEST_BYTES)
        if found is None:
            raise BundleError(f"{self.location(model, version)} has no manifest", expected=bundle.MANIFEST)
        return found

    def _signature(self, model: str, version: int) -> bytes | None:
        return self._bucket.read(f"{model}/{version}/{bundle.SIGNATURE}", bundle.MAX_MANIFEST_BYTES)

    def _bytes_of(self, model: str, version: int) -> int:
        return sum(stored.bytes for stored in self._bucket.list(f"{model}/{version}/"))

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="tailorbird-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def _added(self, version_dir: Path, model: str, again: bool) -> int:
        versions = self._versions()
        layout.check_twin(model, versions)
        same = None if again else self._same(version_dir, model, versions.get(model, ()))
        if same:
            return same
        number = self._claimed(model)
        self._uploaded(version_dir, model, number)
        with self._afterwards():  # while the claim stands, the next change does the same
            self._describe(model)
            self._objects.remove(_claim(model, number))
        self._keep(version_dir, model)
        return number

    def _keep(self, version_dir: Path, model: str) -> None:
        """What was just published is read from this machine's cache, too, where that can be written."""
        manifest = (version_dir / bundle.MANIFEST).read_bytes()
        signature = version_dir / bundle.SIGNATURE
        key = _key(manifest, signature.read_bytes() if signature.is_file() else None)

        def fill(folder: Path) -> None:
            shutil.copytree(version_dir, folder / _FOLDER)

        with suppress(TailorbirdError, OSError):  # the version is published, whatever becomes of our copy
            self._cache.make(_KIND, key, fill, about=model)

    def _same(self, version_dir: Path, model: str, versions: tuple[int, ...]) -> int | None:
        latest = latest_of(self._log.standing(), model, versions)
        if latest is None:
            return None
        signed = self._signature(model, latest) is not None
        return latest if is_same(version_dir, self._manifest_bytes(model, latest), signed) else None

    def _claimed(self, model: str) -> int:
        """A number that is ours alone, after all that are there, are claimed, or ever were."""
        number = self._next(model)
        while True:
            data = msgspec.json.encode(_Claim(who(), secrets.token_hex(8)))
            name = _claim(model, number)
            # A write whose answer was lost is repeated by the client, and then finds itself there.
            if self._objects.create(name, data) or self._objects.read(name) == data:
                if self._next(model, but=number) <= number:
                    return number
                # Somebody claimed it, published and let go between our look and our claim.
                self._objects.remove(name)
            number += 1

    def _next(self, model: str, but: int = 0) -> int:
        """The first number that nobody has; what is there is read before the log, which names what was."""
        here = {found[1] for stored in self._bucket.list(f"{model}/") if (found := layout.version_of_key(stored.key))}
        claims = {number for name, number in self._claims() if name == model and number != but}
        taken = here | claims | self._log.standing().mentioned.get(model, set())
        if but:
            return but + 1 if but in taken else but
        return max(taken, default=0) + 1

    def _claims(self) -> dict[tuple[str, int], Stored]:
        found = ((layout.version_of_claim(stored.key), stored) for stored in self._bucket.list(f"{layout.CLAIMS}/"))
        return {version: stored for version, stored in found if version}

    def _uploaded(self, version_dir: Path, model: str, number: int) -> None:
        """Side files first, the engine later, the manifest last: with it the version is there."""
        manifest = bundle.read_manifest(version_dir)
        engine = manifest.format.filename
        names = sorted(manifest.files, key=lambda name: (name == engine, name))
        signed = (bundle.SIGNATURE,) if (version_dir / bundle.SIGNATURE).is_file() else ()
        for name in (*signed, *names):
            self._bucket.upload(version_dir / name, f"{model}/{number}/{name}")
        data, key = (version_dir / bundle.MANIFEST).read_bytes(), f"{model}/{number}/{bundle.MANIFEST}"
        created = self._bucket.create(key, data) or self._bucket.read(key, bundle.MAX_MANIFEST_BYTES) == data
        if not created or (model, number) in self._log.standing().collected:
            raise RepositoryError(f"version {number} of model '{model}' was given up for dead while it was published",
                                  hint="publish again, and collect garbage with a longer --unfinished")  # fmt: skip

    def _removed(self, model: str, version: int) -> None:
        """The manifest first: whatever happens then, half a version has none."""
        manifest = f"{model}/{version}/{bundle.MANIFEST}"
        self._bucket.remove([manifest])
        self._bucket.remove([stored.key for stored in self._bucket.list(f"{model}/{version}/")])
        if model not in self._versions():
            self._bucket.remove([f"{model}/{bundlefile.CONFIG}"])
        self._objects.remove(_claim(model, version))

    def _describe(self, model: str) -> None:
        """Written, then looked at again: between two writers the one that saw the newer log has the last word."""
        key = f"{model}/{bundlefile.CONFIG}"
        for _ in range(_ROUNDS):
            versions = self._versions().get(model)
            if not versions:
                return
            text = described(self._log.standing(), model, versions, versions[-1], partial(self._manifest_bytes, model))
            if text is None or self._bucket.read(key, bundle.MAX_MANIFEST_BYTES) == text:
                return
            self._bucket.replace(key, text)

    def _swept(self) -> None:
        """Finish what publishers left that were killed after their version was there."""
        claims = self._claims()
        here = self._versions() if claims else {}
        for model, version in claims:
            if version in here.get(model, ()):
                self._describe(model)
                self._objects.remove(_claim(model, version))

    def _litter(self, keep: Keep) -> Iterator[Garbage]:
        claims, sizes, here = self._claims(), self._sizes(), self._present()
        standing = self._log.standing()
        for model, version in standing.collected:
            if (model, version) in sizes or (model, version) in claims:  # a killed collection left it
                size = sizes.get((model, version), 0)
                yield Garbage("removed version", self.location(model, version), size, model, version)
        edge = datetime.now(UTC) - keep.unfinished
        for (model, version), stored in claims.items():
            whole = version in here.get(model, ()) or (model, version) in standing.collected
            if not whole and stored.modified <= edge:
                size = sizes.get((model, version), 0)
                yield Garbage("unfinished publish", self.location(model, version), size, model, version)

    def _sizes(self) -> dict[tuple[str, int], int]:
        """Bytes of every version, whole or not."""
        sizes: Counter[tuple[str, int]] = Counter()
        for stored in self._bucket.list():
            if version := layout.version_of_key(stored.key):
                sizes[version] += stored.bytes
        return sizes

    @contextmanager
    def _border(self, action: str, hint: str | None = None) -> Iterator[None]:
        """The bucket's errors are ours already; what is left are this machine's own disks."""
        try:
            yield
        except OSError as error:
            raise RepositoryError(f"cannot {action} in {self.place}", got=reason(error), hint=hint) from error


def _claim(model: str, version: int) -> str:
    return f"claims/{model}/{version}.json"


def _key(manifest: bytes, signature: bytes | None) -> dict[str, str]:
    """What a copy on this machine goes by; the same bytes may be signed again, by another key."""
    return {"manifest": digest_bytes(manifest), "signature": digest_bytes(signature) if signature else ""}
