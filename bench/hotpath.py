"""What one request costs the server: ``python -m bench.hotpath BUNDLE``.

It starts the real ``tailorbird serve`` on a model whose run costs next to nothing, loads it from another process
(:mod:`bench.rawload`), and prints by isolation, form of the body and number of connections: answers a second, p50 and
p99, and CPU time per request, user and system, of the server with all its instances. On a crowded machine that last
figure is the one to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench import rawload

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds of one cell."""

    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """Of the server, for one request."""


@contextmanager
def served(bundle: Path, isolation: str, *flags: str) -> Iterator[tuple[int, int]]:
    """The real server in a process of its own; yields its process id and port."""
    command = [sys.executable, "-m", "tailorbird", "serve", str(bundle), "--port", "0", "--grpc-port", "0",
               "--isolation", isolation, *flags]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield server.pid, _port(server)
        finally:
            server.terminate()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and those it started, so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / TICK
    return own + sum(map(cpu_seconds, _children(pid)))


def requests(name: str, shape: tuple[int, ...], input_name: str) -> dict[str, bytes]:
    """The same request as JSON and with binary tensors."""
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    tensor = {"name": input_name, "shape": list(shape), "datatype": "FP32"}
    plain = json.dumps({"inputs": [{**tensor, "data": [round(float(one), 4) for one in values.ravel()]}]}).encode()
    head = json.dumps({
        "inputs": [{**tensor, "parameters": {"binary_data_size": values.nbytes}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    path, length = f"/v2/models/{name}/infer", {"Inference-Header-Content-Length": str(len(head))}
    return {"json": rawload.post(path, plain), "binary": rawload.post(path, head + values.tobytes(), length)}


def measure(pid: int, port: int, request: bytes, connections: int, seconds: float, rounds: int) -> Cost:
    """Medians of several rounds; one more goes before them, unmeasured."""
    rawload.run("127.0.0.1", port, request, connections, min(1.0, seconds))
    found = []
    for _ in range(rounds):
        before = cpu_seconds(pid)
        rates = rawload.run("127.0.0.1", port, request, connections, seconds)
        found.append((rates, (cpu_seconds(pid) - before) / rates.requests))
    return Cost(
        median(rates.rate for rates, _ in found),
        median(rates.p50 for rates, _ in found) * 1e6,
        median(rates.p99 for rates, _ in found) * 1e6,
        median(cpu for _, cpu in found) * 1e6,
    )


def _port(server: subprocess.Popen[str]) -> int:
    assert server.stderr is not None
    for line in server.stderr:
        found = re.search(r"serving .* on http://[^:]+:(\d+)", line)
        if found:
            return int(found[1])
    raise RuntimeError(f"the server ended with status {server.wait()}")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--model", help="its name; by default the bundle's file name")
    parser.add_argument("--input", default="x")
    parser.add_argument("--shape", default="1x16")
    parser.add_argument("--isolation", nargs="+", default=["thread", "process"])
    parser.add_argument("--form", nargs="+", default=["json", "binary"])
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flag", action="append", default=[], help="more flags for the server, repeatable")
    given = parser.parse_args()
    shape = tuple(map(int, given.shape.split("x")))
    bodies = requests(given.model or given.bundle.stem, shape, given.input)
    print("isolation  form    connections  requests/s    p50 µs    p99 µs  server CPU µs")
    for isolation in given.isolation:
        with served(given.bundle, isolation, *given.flag) as (pid, port):
            time.sleep(0.5)
            for form in given.form:
                for connections in given.connections:
                    cost = measure(pid, port, bodies[form], connections, given.seconds, given.rounds)
                    print(f"{isolation:9}  {form:6}  {connections:11}  {cost.rate:10,.0f}  {cost.p50_us:8.0f}"
                          f"  {cost.p99_us:8.0f}  {cost.cpu_us:13.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
