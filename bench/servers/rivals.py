"""The rivals: what each needs, how it is started, and what a request to it looks like."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench import rawload
from bench.servers.process import Server, free_port, running
from bench.servers.triton import start_triton
from bench.servers.venvs import Environment

HANDLERS = Path(__file__).parent / "handlers"
NAME = "served"


class Spec(msgspec.Struct, frozen=True):
    """What a rival serves; :mod:`bench.servers.handlers.runner` reads it."""

    runtime: str
    model: str = ""
    threads: int = 1
    config: dict[str, Any] = {}
    input: str = "x"
    row: tuple[int, ...] = (16,)
    dtype: str = "float32"
    batch: int = 1
    """Rows to join at most; 1 for no joining."""
    wait: float = 0.0
    """Seconds to wait for others, where a server asks for that."""
    workers: int = 1


Start = Callable[[Spec, Path], Any]
Ask = Callable[[Any], bytes]


@dataclass(frozen=True)
class Rival:
    """A server to be compared with."""

    name: str
    environment: Environment | None
    start: Start
    """From what is served and a folder to a context manager of a :class:`Server`."""
    tensor: Ask
    """A request with one row of a large tensor, as bytes to send."""
    numbers: Ask
    """A request with one row of few numbers, in JSON."""
    restless: bool = False
    """It takes a good part of a core while nobody asks it anything: others are measured while it is paused."""


FLASK = Environment("flask", ("flask==3.1.3", "gunicorn==27.0.1"))
LITSERVE = Environment("litserve", ("litserve==0.2.19", "uvloop==0.23.0"))
MLSERVER = Environment("mlserver", ("mlserver==1.7.1", "uvloop==0.21.0"))  # its workers do not start with a newer one
BENTOML = Environment("bentoml", ("bentoml==1.4.39",))


def _spec(spec: Spec, folder: Path) -> dict[str, str]:
    """The environment of a rival's processes."""
    path = folder / "spec.json"
    path.write_bytes(msgspec.json.encode(spec))
    threads = str(spec.threads)
    return {"BENCH_SPEC": str(path), "PYTHONPATH": str(HANDLERS), "OMP_NUM_THREADS": threads,
            "BENTOML_DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1", "HOME": str(folder)}  # fmt: skip


@contextmanager
def flask(spec: Spec, folder: Path) -> Iterator[Server]:
    """A worker for each instance, with threads, as gunicorn's documentation advises for handlers that wait."""
    port = free_port()
    command = [FLASK.program("gunicorn"), "flask_app:app", "--bind", f"127.0.0.1:{port}",
               "--workers", str(spec.workers), "--threads", "4", "--worker-class", "gthread",
               "--timeout", "120", "--keep-alive", "75",
               "--chdir", str(HANDLERS)]  # fmt: skip
    with running("flask", command, port, folder / "log", ready="/ready", env=_spec(spec, folder)) as server:
        yield server


@contextmanager
def litserve(spec: Spec, folder: Path) -> Iterator[Server]:
    """A worker for each instance behind its one web server."""
    port = free_port()
    command = [str(LITSERVE.python), str(HANDLERS / "litserve_app.py"), str(port)]
    with running("litserve", command, port, folder / "log", ready="/health", env=_spec(spec, folder)) as server:
        yield server


@contextmanager
def bentoml(spec: Spec, folder: Path) -> Iterator[Server]:
    """A worker for each instance."""
    port = free_port()
    command = [BENTOML.program("bentoml"), "serve", "bento_service:Served", "--host", "127.0.0.1", "--port", str(port),
               "--timeout-keep-alive", "75", "--working-dir", str(HANDLERS)]  # fmt: skip
    with running("bentoml", command, port, folder / "log", ready="/readyz", env=_spec(spec, folder)) as server:
        yield server


@contextmanager
def mlserver(spec: Spec, folder: Path) -> Iterator[Server]:
    """A worker for each instance, its default; none where a run takes no time, which is faster then.

    Without a worker runs block its event loop, and it closes connections that have waited for five seconds.
    """
    port = free_port()
    workers = 0 if spec.runtime == "double" else spec.workers
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(),
                "parallel_workers": workers, "debug": False, "use_structured_logging": False}  # fmt: skip
    model = {"name": NAME, "implementation": "mlserver_model.Served"}
    batching = {"max_batch_size": spec.batch, "max_batch_time": max(spec.wait, 1e-6)} if spec.batch > 1 else {}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model | batching))
    command = [MLSERVER.program("mlserver"), "start", str(folder)]
    ready = f"/v2/models/{NAME}/ready"
    with running("mlserver", command, port, folder / "log", ready=ready, env=_spec(spec, folder)) as server:
        yield server


CONFIG = """backend: "python"
max_batch_size: 64
input [{ name: "x" data_type: TYPE_FP32 dims: [16] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [16] }]
dynamic_batching { }
instance_group [{ count: 1 kind: KIND_CPU }]
"""


@contextmanager
def triton(spec: Spec, folder: Path) -> Iterator[Server]:  # noqa: ARG001 - it doubles
    """The Python backend with dynamic batching."""
    version = folder / "models" / NAME / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    shutil.copyfile(HANDLERS / "triton_model.py", version / "model.py")
    with start_triton(folder / "models", log=folder / "log") as server:
        yield server


def post(path: str, body: object) -> bytes:
    """A POST of JSON."""
    return rawload.post(path, json.dumps(body).encode())


def oip_json(row: Any, model: str = NAME) -> bytes:
    """The Open Inference Protocol, in JSON."""
    tensor = {"name": "x", "shape": [1, *row.shape], "datatype": "FP32", "data": row.ravel().tolist()}
    return post(f"/v2/models/{model}/infer", {"inputs": [tensor]})


def _oip_base64(row: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "parameters": {"content_type": "base64"},
              "data": [_base64(row)]}  # fmt: skip
    return post(f"/v2/models/{NAME}/infer", {"inputs": [tensor]})


def _base64(row: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(row).tobytes()).decode()


def _octets(row: Any) -> bytes:
    return rawload.post("/infer", row.tobytes(), {"Content-Type": "application/octet-stream"})


RIVALS = (
    Rival("triton", None, triton, oip_json, oip_json),
    Rival("litserve", LITSERVE, litserve, lambda row: post("/infer", {"tensor": _base64(row)}),
          lambda row: post("/infer", {"x": row.tolist()}), restless=True),
    Rival("mlserver", MLSERVER, mlserver, _oip_base64, oip_json),
    Rival("bentoml", BENTOML, bentoml, lambda row: post("/infer", {"tensors": [_base64(row)]}),
          lambda row: post("/plain", {"x": [row.tolist()]})),
    Rival("flask", FLASK, flask, _octets, lambda row: post("/json", {"x": [row.tolist()]})),
)  # fmt: skip
