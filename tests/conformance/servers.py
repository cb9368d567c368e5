"""The servers that the suite is run against."""

import contextlib
import json
import os
import secrets
import signal
import urllib.request
from pathlib import Path

from tailorbird.repository.store import LocalRepository
from tailorbird.service.app import running_server
from tailorbird.service.guard.options import Guarding
from tailorbird.service.limits import Limits
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tailorbird.serving.rollout.control import ControlOptions, Mode
from tests import bundles
from tests.conformance import models
from tests.conformance.suite import Server

BODY_BYTES = 1 << 20


@contextlib.contextmanager
def ours():
    """Our own server over HTTP and gRPC, with everything on that is off by default; and one with a repository."""
    fixed = ServerOptions(
        port=0,
        grpc_port=models.free_port(),
        client_shm=True,
        guarding=Guarding(admin_on_public=True),
        limits=Limits(body_bytes=BODY_BYTES),
    )
    explicit = ControlOptions(mode=Mode.EXPLICIT, load=("*",))
    changing = ServerOptions(
        port=0, grpc_port=models.free_port(), guarding=Guarding(admin_on_public=True), control=explicit
    )
    with (
        models.scratch() as folder,
        running_server(_repository(folder), changing) as second,
        running_server(Hub(models.our_models()), fixed) as first,
    ):
        grpc, changing_grpc = (f"127.0.0.1:{one.grpc_port}" for one in (fixed, changing))
        yield Server("tailorbird", _version(first), _host(first), grpc, _host(second), changing_grpc)


@contextlib.contextmanager
def triton():
    """The real Triton, of the wheel that the benchmarks fetch."""
    from bench.servers.triton import start_triton

    name = f"conformance_{secrets.token_hex(6)}"
    explicit = (
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--backend-config=python,shm-region-prefix-name={name}",
    )
    with models.scratch() as folder, _leftovers_removed(name):
        repository = models.triton_repository(folder / "models")
        with start_triton(repository, extra=explicit, log=folder / "triton.log") as running:
            http, grpc = f"127.0.0.1:{running.port}", f"127.0.0.1:{running.grpc_port}"
            yield Server("triton", _version(f"http://{http}"), http, grpc, http, grpc)


@contextlib.contextmanager
def _leftovers_removed(prefix):
    """A Triton that crashes leaves processes and segments of its Python backend behind, named in their arguments."""
    try:
        yield
    finally:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if prefix.encode() in process.joinpath("cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        for left in Path("/dev/shm").glob(f"{prefix}*"):
            left.unlink(missing_ok=True)


def _repository(folder):
    store = LocalRepository(folder / "repository")
    store.publish(bundles.version(folder / "made"), models.CHANGING)
    return store.root


def _version(url):
    with urllib.request.urlopen(f"{url}/v2") as answer:
        return json.load(answer)["version"]


def _host(url):
    return url.removeprefix("http://")
