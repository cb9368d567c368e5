"""Ways in and out that the facade's functions share: what is built, how it is signed, where it is put."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.api.result import Result
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import BundleError, TailorbirdError, UsageError

if TYPE_CHECKING:
    from tailorbird.domain.kit import Kit
    from tailorbird.repository.signing.keys import OwnKey

Observers = Sequence[Callable[[dict[str, Any]], None]]


@dataclass(frozen=True)
class Order:
    """What to build."""

    text: str
    config: BuildConfig
    name: str | None
    kit: Kit | None
    given: frozenset[str] = frozenset()
    """Names of settings that were said, though they may equal the defaults."""

    @property
    def settled(self) -> BuildConfig:
        """The settings; of a kit its own, with what may be said where it is finished.

        Raises:
            UsageError: a setting is said that the kit has decided.
        """
        from tailorbird.builder.kit.settings import finishing

        return finishing(self.kit.manifest.config, self.config, self.given) if self.kit else self.config


def ordered(
    order: Order,
    folder: Path,
    output: str | Path | None,
    repository: str | Path | None,
    observers: Observers,
) -> Result:
    """Build, or find in the cache, sign, and deliver."""
    from tailorbird.builder.cached import CachedBuild
    from tailorbird.repository.signing.keys import ensured

    with CachedBuild(order.text, order.settled, folder, observers, order.name, order.kit) as work:
        key, is_new = ensured()  # before the long work, which would end in vain without a key
        if is_new:
            work.tell_of_key(key.id, key.path)
        found = work.run(partial(press, key), partial(_distrust, key))
        return delivered(found.bundle, output, repository, order.name)


def delivered(bundle: Path, output: str | Path | None, repository: str | Path | None, name: str | None) -> Result:
    """A finished bundle put where it is wanted."""
    from tailorbird.builder.cached import deliver
    from tailorbird.domain.bundlefile import manifest_of

    manifest = manifest_of(bundle)
    written = deliver(bundle, Path(output)) if output else None
    version_dir = published(bundle, repository, name) if repository else None
    return Result(manifest.outcomes, manifest, written, version_dir)


def press(key: OwnKey, version_dir: Path, out: Path) -> None:
    """A sealed version signed and packed."""
    from tailorbird.domain.bundlefile import manifest_of, pack
    from tailorbird.repository.config_pbtxt import config_pbtxt
    from tailorbird.repository.signing.sign import sign_version

    sign_version(version_dir, key)
    pack(version_dir, out, config_pbtxt(manifest_of(version_dir)))


def _distrust(key: OwnKey, engine: Path) -> str:
    """Why an engine's signature does not count here; empty when it is by the key that signs here."""
    from tailorbird.repository.signing.trust import signer_of

    try:
        signer = signer_of(engine)
    except BundleError as error:
        return error.what
    if signer is None:
        return "not signed"
    return "" if signer.key == key.id else "signed by another key than the one that signs here"


def published(source: Path, repository: str | Path, name: str | None) -> Path:
    """The version's directory of a bundle once it is in a repository."""
    from tailorbird.domain.bundlefile import manifest_of
    from tailorbird.repository.opening import open_repository

    store = open_repository(repository)
    version = store.publish(source, name)
    return store.version_dir(name or manifest_of(source).model, version)


def check_output(output: str | Path | None, suffix: str = ".engine") -> None:
    """Wrong places are refused before the long work, not after it."""
    if output is None:
        return
    if Path(output).suffix != suffix:
        what = "a bundle" if suffix == ".engine" else "a build kit"
        raise UsageError(f"the output is not named as {what}", got=output, expected=f"NAME{suffix}")
    if not Path(output).resolve().parent.is_dir():
        raise UsageError("the output's directory does not exist", got=Path(output).parent)


@contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Say what the system refused, and that nothing was published."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        raise TailorbirdError(f"cannot {action}: {error.strerror}", got=error.filename,
                              hint="free space or choose another place; nothing was published") from error  # fmt: skip
