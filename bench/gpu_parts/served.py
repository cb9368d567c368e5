"""One engine on the GPU behind our own server: its throughput there against the engine's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROWS = 8
CLIENTS = (1, 2, 4, 8)
WAYS = (("process", 1), ("process", 2), ("thread", 1), ("thread", 2))
"""Isolation and instances."""
SECONDS = 5
BACKEND, PRECISION = "inductor_cuda", "fp16"
SOURCE = "bench.gpu_parts.models:pooled_bert"
SHAPES = f"input_ids:{ROWS}x128,attention_mask:{ROWS}x128"

_ALONE = """
import json, sys, time
import numpy as np, tailorbird
with tailorbird.open(sys.argv[1]) as session:
    rng = np.random.default_rng(0)
    sets = [{"input_ids": rng.integers(1000, 30000, (8, 128)), "attention_mask": np.ones((8, 128), np.int64)}
            for _ in range(4)]
    for number in range(50):
        session.run(sets[number % 4])
    began = time.perf_counter()
    for number in range(1000):
        session.run(sets[number % 4])
    print(json.dumps((time.perf_counter() - began) / 1000 * 1e3))
"""


def start_build(scratch: Path, tuned: str) -> subprocess.Popen[bytes]:
    """Begin `tailorbird build` of the model with our kernels, beside other work.

    Args:
        scratch: where the bundle goes.
        tuned: answers of earlier tuning, or an empty name.
    """
    flags = [SOURCE, "--backend", BACKEND, "--precision", PRECISION, "--option", "compiler=kernels", "--name", "bert",
             "-o", str(scratch / "bert.engine")]  # fmt: skip
    for edge in ("min", "opt", "max"):
        flags += [f"--{edge}-shapes", SHAPES]
    environment = {**os.environ, "TAILORBIRD_TUNED": tuned}
    with (scratch / "build.log").open("w") as log:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tailorbird",
            "build",
            *flags,
            "--cache",
            str(scratch / "cache"),
        ]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def served(scratch: Path, say: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Run the bundle alone, then through `tailorbird serve` under closed loops of clients, both ways of isolation."""
    engine, environment = scratch / "bert.engine", dict(os.environ)
    about = {"kind": "served", "model": "BERT-base s128", "batch": ROWS}
    told = _told(say, "alone", [sys.executable, "-c", _ALONE, str(engine)], environment)
    alone = float(json.loads(told.split("\n")[-1]))
    yield about | {"clients": 0, "ms": round(alone, 4), "rows_per_s": round(ROWS / alone * 1e3)}
    for isolation, instances in WAYS:
        way = {"isolation": isolation, "instances": instances}
        with _server(engine, way, environment, say) as port:
            yield from (about | way | _load(port, clients, environment, say) for clients in CLIENTS)


def _told(say: Callable[..., None], what: str, command: list[str], environment: dict[str, str]) -> str:
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    say(what, f"{time.monotonic() - began:.0f} s, status {done.returncode}", done.stdout[-1500:], done.stderr[-1500:])
    done.check_returncode()
    return done.stdout.strip()


@contextmanager
def _server(engine: Path, way: dict[str, Any], environment: dict[str, str],
            say: Callable[..., None]) -> Iterator[int]:  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "tailorbird", "serve", str(engine), "--port", str(port), "--grpc-port", "0"]
    command += [word for name, value in way.items() for word in (f"--{name}", str(value))]
    log = engine.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(30)
        say("server", log.read_text()[-800:])


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    import urllib.request

    for _ in range(240):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.25)
        if process.poll() is not None:
            break
    raise RuntimeError("the server did not become ready")


def _load(port: int, clients: int, environment: dict[str, str], say: Callable[..., None]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tailorbird", "bench", "bert", "--url", f"http://127.0.0.1:{port}", "--json",
               "--scenario", "closed", "--concurrency", str(clients), "--rows", str(ROWS),
               "--seconds", str(SECONDS)]  # fmt: skip
    found = json.loads(_told(say, f"{clients} clients", command, environment))
    return {
        "clients": clients,
        "ms": found["latency_ms"]["p50"],
        "rows_per_s": round(found["rows_rate"]),
        "told": found,
    }
