"""The C++ compiler that Inductor uses, and whether what it makes can be loaded.

A package of AOTInductor is a shared library. Where ``CXX`` names a second GCC whose output carries a static libstdc++,
loading one ends in a segmentation fault, even of a single Linear layer. So one is compiled and loaded in a process of
its own before anything else is, once for each compiler and version of torch on a machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.host import cpu_facts
from tailorbird.backends.isolate import Worker
from tailorbird.domain.cache import Cache, cache_root
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import BackendError, StepCrashed, TailorbirdError

_TRY = f"{__name__}:try_out"
_KIND = "toolchain"
_VERDICT = "verdict.json"
_LIMITS = Limits(seconds=300.0)
_QUICK = {"aot_inductor.enable_line_tables": False, "aot_inductor.precompile_headers": False}
"""Headers that are compiled once pay for themselves with the second program."""
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL")
"""Signals that code which cannot be loaded ends in; others come from outside."""


class Compiler(msgspec.Struct, frozen=True):
    """A C++ compiler, as Inductor finds it."""

    named: str
    """What was looked for: the value of ``CXX``, or ``g++``."""
    path: str
    version: str
    """The first line of ``--version``."""


class TryArgs(msgspec.Struct, frozen=True):
    """An existing empty directory for the package that is tried."""

    folder: str


class Verdict(msgspec.Struct, frozen=True):
    """What became of the trial: nothing when the package ran, otherwise why not."""

    fault: str = ""


def torch_version() -> str:
    """The installed version, without importing it; raises ModuleNotFoundError without one."""
    try:
        return version("torch")
    except PackageNotFoundError:
        raise ModuleNotFoundError("No module named 'torch'") from None


def compiler() -> Compiler:
    """The compiler that Inductor would use; raises FileNotFoundError when there is none."""
    named = os.environ.get("CXX") or "g++"
    path = shutil.which(named)
    if path is None:
        raise FileNotFoundError(f"no C++ compiler: {_naming(named)}, and it is not there")
    return Compiler(named, path, _version_line(path))


@cache
def _version_line(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise FileNotFoundError(f"no C++ compiler: {path} does not run: {error}") from None
    return done.stdout.partition("\n")[0].strip()


def known_fault() -> str:
    """Why this machine's packages cannot be loaded, as far as it was ever tried; empty when nothing is known."""
    with Cache(cache_root()) as cached:
        place = cached.get(_KIND, _key(compiler()))
        return _read(place).fault if place is not None else ""


def check_toolchain() -> None:
    """Raise :class:`BackendError` when packages that are compiled here crash as they are loaded.

    Tried once for each compiler and kept in the cache; about twenty seconds.
    """
    used = compiler()
    with tempfile.TemporaryDirectory() as aside, Cache(cache_root()) as cached:
        place = cached.make(_KIND, _key(used), _try, about=used.path, aside=Path(aside))
        fault = _read(place).fault
    if fault:
        raise unusable(used, fault)


def unusable(used: Compiler, fault: str) -> BackendError:
    """The error for a compiler whose packages cannot be loaded, which names it and what to do."""
    return BackendError(
        "packages compiled by AOTInductor cannot be loaded here",
        got=f"{fault}; {_naming(used.named)} ({used.version})",
        expected="the system's own C++ compiler, whose output shares its libstdc++ with torch's",
        hint="set CXX and CC to it, e.g. CXX=/usr/bin/g++ CC=/usr/bin/gcc",
    )


def understood(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of Inductor's settings that the installed release has, by dotted names: they come and go."""
    from torch._inductor import config

    return {name: value for name, value in settings.items() if _has(config, name)}


def try_out(args: TryArgs) -> Verdict:
    """Compile one Linear layer, load it and run it, for real; meant for a process of its own, which may crash."""
    import torch

    model, x = torch.nn.Linear(4, 4).eval(), torch.ones(2, 4)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=f"{args.folder}/model.pt2", inductor_configs=understood(_QUICK)
        )
        (got,) = torch._inductor.aoti_load_package(path).loader.run([x])
        right = bool(torch.allclose(got, model(x), atol=1e-5))
    return Verdict("" if right else "it ran, and gave a wrong answer")


def _has(config: Any, name: str) -> bool:
    try:
        attrgetter(name)(config)
    except AttributeError:
        return False
    return True


def _try(place: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "engine")
        folder.mkdir()
        verdict = _tried(folder, Path(scratch))
    (place / _VERDICT).write_bytes(msgspec.json.encode(verdict))


def _tried(folder: Path, scratch: Path) -> Verdict:
    """A crash is a verdict, and kept; what else goes wrong is an error, and tried again the next time."""
    with Worker(_LIMITS, scratch / "trial.log", scratch=scratch) as worker:
        try:
            return worker.call(_TRY, TryArgs(str(folder)), Verdict)
        except TailorbirdError as error:
            signal = str(error.got).partition(";")[0]
            if isinstance(error, StepCrashed) and signal in _CRASHES:
                return Verdict(f"loading one ended in {signal}")
            raise BackendError("inductor could not compile a Linear layer", got=error.message,
                               hint="is there a working C++ compiler with its headers?") from error  # fmt: skip


def _read(place: Path) -> Verdict:
    return msgspec.json.decode((place / _VERDICT).read_bytes(), type=Verdict)


def _key(used: Compiler) -> dict[str, Any]:
    return {"torch": torch_version(), "compiler": used, "cpu": cpu_facts()["cpu"], "cc": os.environ.get("CC", "")}


def _naming(named: str) -> str:
    return f"CXX names '{named}'" if os.environ.get("CXX") else f"'{named}'"
