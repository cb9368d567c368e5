"""Virtual environments for the rivals: pinned, made once, kept where the benchmarks keep what they made."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tailorbird.demo.wheel import cache, whole
from tailorbird.domain.errors import TailorbirdError

RUNTIMES = ("numpy", "onnxruntime", "openvino")
"""Installed for every rival in the version that runs here: the same library does the same work."""


@dataclass(frozen=True)
class Environment:
    """What one rival needs."""

    name: str
    packages: tuple[str, ...]
    """Pinned requirements; the first is the rival itself."""
    runtimes: bool = True

    @property
    def folder(self) -> Path:
        """Where it lies once it is made. Another set of versions lies elsewhere."""
        pins = "-".join(one.partition("==")[2] for one in self.packages)
        return root() / "venvs" / f"{self.name}-{pins}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def program(self, name: str) -> str:
        """A program that its packages brought."""
        return str(self.folder / "bin" / name)

    @property
    def site(self) -> Path:
        """Where its packages are."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    @property
    def made(self) -> bool:
        """Whether it is there, whole."""
        return (self.folder / _WHOLE).exists()

    @property
    def version(self) -> str:
        """The rival's."""
        return self.packages[0].partition("==")[2]

    def make(self) -> None:
        """Make it if it is absent; needs the network, or wheels where ``PIP_FIND_LINKS`` says.

        Raises:
            TailorbirdError: pip failed; carries its last words.
        """
        if self.made:
            return
        # Programs name their interpreter by its path, so it is made in place, and marked at its end.
        venv.EnvBuilder(clear=True, symlinks=True).create(self.folder)
        _install(self.python, (*self.packages, *(_here() if self.runtimes else ())))
        (self.folder / _WHOLE).touch()


_WHOLE = ".whole"


def root() -> Path:
    """The folder for what the serving benchmark makes once: ``$TAILORBIRD_BENCH``, or in the user's cache."""
    return Path(os.environ.get("TAILORBIRD_BENCH") or cache() / "serving-bench")


def wheel(requirement: str) -> Path:
    """A wheel's files, unpacked and nothing of what it depends on; raises as :meth:`Environment.make`."""
    target = root() / requirement.replace("==", "-")
    if not target.exists():
        with whole(target) as unfinished:
            _pip(["install", "--no-deps", "--target", str(unfinished), requirement])
    return target


def _here() -> tuple[str, ...]:
    return tuple(f"{name}=={importlib.metadata.version(name)}" for name in RUNTIMES)


def _install(python: Path, packages: tuple[str, ...]) -> None:
    _pip(["--python", str(python), "install", *packages])


def _pip(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message from pip"]
        raise TailorbirdError(f"cannot install {arguments[-1]}", got=said[-1],
                              hint="it is fetched once, and needs the network")  # fmt: skip
