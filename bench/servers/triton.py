"""The real Triton: the binary that the wheel ``nvidia-pytriton`` carries, with its Python backend.

It has no other backend: what it serves are ``model.py`` files.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.servers.process import Server, free_port, running
from bench.servers.venvs import Environment, wheel
from tailorbird.demo.wheel import whole

PYTRITON = "nvidia-pytriton==0.7.0"
ENVIRONMENT = Environment("triton", ("numpy==1.26.4",), runtimes=False)
"""What the models' own Python sees. With numpy 2 this Triton answers every request with an error."""


@dataclass(frozen=True)
class Triton(Server):
    """A running Triton."""

    grpc_port: int = 0


def prepare() -> Path:
    """The unpacked wheel, with a backend directory as Triton wants it; made once.

    Raises:
        TailorbirdError: it could not be fetched.
    """
    ENVIRONMENT.make()
    found = wheel(PYTRITON)
    target = found / "backend" / "python"
    if not target.exists():
        with whole(target) as unfinished:
            _link_backend(found / "pytriton" / "tritonserver", unfinished)
    return found


@contextmanager
def start_triton(
    repository: Path, http_port: int = 0, grpc_port: int = 0, *, extra: tuple[str, ...] = (), log: Path | None = None
) -> Iterator[Triton]:
    """Triton over a repository of Python models until the block ends; yields once all of them are ready.

    Args:
        repository: Triton's model repository.
        http_port: on 127.0.0.1; 0 takes any free one.
        grpc_port: likewise.
        extra: further arguments, as ``--model-control-mode=explicit``.
        log: a file for what it says.

    Raises:
        TailorbirdError: it cannot be fetched, ended, or was not ready in time.
    """
    found, http, grpc = prepare(), http_port or free_port(), grpc_port or free_port()
    with tempfile.TemporaryDirectory(prefix="triton-") as scratch:
        said = log or Path(scratch, "triton.log")
        command = [*_command(found, repository, http, grpc), *extra]
        with running("triton", command, http, said, ready="/v2/health/ready", env=_environment(found)) as one:
            yield Triton(one.name, one.pid, one.port, one.started, grpc)


def _command(found: Path, repository: Path, http: int, grpc: int) -> list[str]:
    return [
        str(found / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={found / 'backend'}",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        "--allow-metrics=false",
    ]


def _environment(found: Path) -> dict[str, str]:
    libraries = (found / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"))
    return {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        # The stub embeds an interpreter, which takes its home from the python3 of the path. It ignores PYTHONPATH.
        "PATH": f"{ENVIRONMENT.folder / 'bin'}:{os.environ['PATH']}",
    }


def _link_backend(tritonserver: Path, target: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = tritonserver / "python_backend_stubs" / version / "triton_python_backend_stub"
    for file in (*(tritonserver / "backends" / "python").glob("*triton*"), stub):
        (target / file.name).write_bytes(file.read_bytes())
    (target / stub.name).chmod(0o755)
