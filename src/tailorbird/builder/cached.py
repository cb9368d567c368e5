"""A build that may have been made before: its key, the finished engine of that key, and the long way only without one.

Nothing here imports a runtime, so that a build that is found returns at once.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tailorbird.backends.host import device_facts
from tailorbird.builder.buildlog import BuildLog, Observer
from tailorbird.builder.fingerprint import fingerprint, versions
from tailorbird.builder.intake import Intake
from tailorbird.builder.recall import Recall
from tailorbird.builder.sources.source import Source, resolve
from tailorbird.domain.bundlefile import manifest_of
from tailorbird.domain.cache import cache_root
from tailorbird.domain.closing import Closing
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import BundleError
from tailorbird.domain.files import reason
from tailorbird.domain.kit import Kit
from tailorbird.domain.manifest import Manifest

if TYPE_CHECKING:
    from tailorbird.builder.pipeline import Build

KIND = "engines"
_FILE = "model.engine"

Press = Callable[[Path, Path], None]
"""Makes the ``.engine`` file, second, of a sealed version, first."""

Accept = Callable[[Path], str]
"""Says why a ``.engine`` file out of the cache may not be handed on; empty when it may."""


@dataclass(frozen=True)
class Found:
    """A finished build, by this process or an earlier one."""

    manifest: Manifest
    bundle: Path
    """The ``.engine`` file, there until the build is closed."""
    cached: bool


class CachedBuild(Closing):
    """One build: from the cache when everything it follows from is unchanged. Close it when the bundle is delivered.

    Args:
        text: the source as the user named it.
        config: the settings; of a kit those that it is finished with.
        folder: an empty private directory.
        observers: shown every event of the build log.
        name: the model's name; by default made of the source's.
        kit: build from this one, which is verified, instead of the source.

    Raises:
        UsageError, ModelError: the source is none.
    """

    def __init__(
        self, text: str, config: BuildConfig, folder: Path, observers: Sequence[Observer], name: str | None = None,
        kit: Kit | None = None
    ) -> None:  # fmt: skip
        self._config = config
        self._folder = folder
        self._kit = kit
        self._source = Source(text, is_program=False, name=kit.manifest.model) if kit else resolve(text)
        self._name = name or self._source.name
        self._log = BuildLog(folder / "build.jsonl", *observers)
        self._recall = Recall(cache_root(config.cache), self._log, folder, self._name)

    def close(self) -> None:
        """Let go of the cache's entries."""
        self._recall.cache.close()

    def tell_of_key(self, key: str, path: Path) -> None:
        """Note in the build log that a key to sign with was made: this machine had none."""
        self._log.write("key made", key=key, path=str(path))

    def run(self, press: Press, accept: Accept) -> Found:
        """The engine of this source, data, settings, code and machine.

        Args:
            press: signs and packs what was built.
            accept: asked about what the cache holds. What it refuses, or is of another build by its own manifest, is
                built anew, never signed again: whoever can write to a cache must not get a signature by that.

        Raises:
            TailorbirdError: as the build's steps do.
        """
        intake, whole = self._begun()
        place, cached = self._recall.make(
            KIND,
            whole,
            lambda into: self._build(intake, whole, press, into / _FILE),
            lambda place: accept(place / _FILE) or self._foreign(place / _FILE, whole),
        )
        if cached:
            self._log.write("finished", seconds=round(self._log.seconds, 1))
        return Found(manifest_of(place / _FILE), place / _FILE, cached)

    def make_kit(self, press: Press, out: Path) -> None:
        """Make a build kit instead, and nothing that runs.

        Args:
            press: signs and packs the kit's folder.
            out: the ``.kit`` file.

        Raises:
            TailorbirdError: as the build's steps do.
        """
        intake, whole = self._begun()
        press(self._course(intake, whole).kit(self._name), out)

    def _begun(self) -> tuple[Intake | None, dict[str, str]]:
        """The source and the data, unless they are in a kit, and all that the build follows from."""
        config, source = self._config, self._source
        self._log.write("started", source=source.text, config=config, versions=versions(), device=device_facts())
        if self._kit:
            inside = {"source": self._kit.digest, "data": ""}
            return None, fingerprint(inside, config, self._name, Path(source.text).name)
        intake = Intake(source, config, self._folder, self._recall)
        return intake, fingerprint(intake.digests(), config, self._name, Path(source.text).name)

    def _course(self, intake: Intake | None, whole: dict[str, str]) -> Build:
        from tailorbird.builder.groundwork import Groundwork
        from tailorbird.builder.kit.ground import KitGround
        from tailorbird.builder.pipeline import Build

        ground: Groundwork | KitGround
        if intake is None:
            assert self._kit is not None
            ground = KitGround(self._kit, self._log)
        else:
            ground = Groundwork(intake, whole, self._config, self._folder, self._recall, self._log)
        return Build(ground, whole, self._config, self._folder, self._recall, self._log)

    def _foreign(self, engine: Path, whole: dict[str, str]) -> str:
        """Why an engine whose signature counts is not what is asked for: an entry says only what its writer wrote."""
        try:
            manifest = manifest_of(engine)
        except BundleError as error:
            return error.what
        same = manifest.provenance.ingredients == whole and manifest.model == self._name
        return "" if same else "of another build"

    def _build(self, intake: Intake | None, whole: dict[str, str], press: Press, out: Path) -> None:
        built = self._course(intake, whole).run(self._name)
        press(built.version_dir, out)
        shutil.rmtree(built.version_dir, ignore_errors=True)


def deliver(bundle: Path, output: Path) -> Path:
    """Put a copy of a finished ``.engine`` file where the user wants it, whole or not at all.

    It is no link: who writes over it, through ``cp`` say, must not alter the cache's file or another output. Its bytes
    are not synced, which would take seconds: what a cut of power left of them is found by the digests when it is used.

    Raises:
        BundleError: the disk refused.
    """
    aside = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        shutil.copyfile(bundle, aside)
        aside.chmod(0o644)
        aside.replace(output)
    except OSError as error:
        hint = "nothing was written: free some space or choose another place with -o"
        raise BundleError(f"cannot write {output}", got=reason(error), hint=hint) from error
    finally:
        aside.unlink(missing_ok=True)
    return output
