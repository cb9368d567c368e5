"""The whole server with its engines in processes: rows stay with their requests, whatever happens to the processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from tailorbird.service.app import running_server
from tailorbird.service.options import ServerOptions
from tailorbird.serving.loading import load_hub
from tailorbird.serving.starting import HubOptions, Isolation
from tests import bundles, processes
from tests.project import tree


def request(mark, rows=2, turns=1):
    """For the model that takes its time: rows that all say whose they are."""
    data = [mark] * 4 * rows
    return {
        "inputs": [
            {"name": "n", "shape": [], "datatype": "INT64", "data": [turns]},
            {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data},
        ]
    }


SECOND = 300_000
"""Turns that take about so long."""


def plain(mark, rows=2):
    """For the model ``y = relu(x @ w)``: rows that all say whose they are."""
    values = [float(mark)] * bundles.WIDTH * rows
    return {"inputs": [{"name": "x", "shape": [rows, bundles.WIDTH], "datatype": "FP32", "data": values}]}


def is_own(answer, mark, rows):
    values = np.array(answer.json()["outputs"][0]["data"], np.float32).reshape(rows, bundles.WIDTH)
    wanted = np.maximum(np.full((rows, bundles.WIDTH), mark, np.float32) @ bundles.weights(), 0)
    return np.allclose(values, wanted, rtol=1e-4, atol=1e-4)


@contextmanager
def served(source, **models):
    """A server of ``source``; yields its URL, its hub and what happened to its processes."""
    events, options = [], HubOptions(**models)
    hub = load_hub(source, options, watch=lambda *about: events.append(about[2]))
    with running_server(hub, ServerOptions(port=0, grpc_port=0, models=options)) as url:
        yield url, hub, events


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return bundles.version(tmp_path_factory.mktemp("tiny") / "1")


@pytest.mark.parametrize("isolation", list(Isolation))
def test_rows_are_never_mixed(tiny, isolation):
    with served(tiny, isolation=isolation, instances=2) as (url, hub, _):
        with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(8) as pool:

            def ask(number):
                rows = 1 + number % 11  # more than one run takes, now and then
                answer = client.post("/v2/models/tiny/infer", json=plain(number, rows))
                return answer.status_code == 200 and is_own(answer, number, rows)

            assert all(pool.map(ask, range(400)))
        (model,) = hub.loaded
        assert model.statistics.answered.count == 400
        assert model.statistics.rows == sum(1 + number % 11 for number in range(400))


class Killer(threading.Thread):
    """Kills processes of a server at random for as long as a block lasts."""

    def __init__(self, events):
        super().__init__(name="killer")
        self._events = events
        self._stop_it = threading.Event()

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self._stop_it.set()
        self.join()

    def run(self):
        chosen = np.random.default_rng(7)
        while not self._stop_it.wait(0.15):
            lives = {event.pid: event.what for event in tuple(self._events)}
            if ready := [pid for pid, what in lives.items() if what == "ready"]:
                os.kill(int(chosen.choice(ready)), signal.SIGKILL)


def ask_in_turn(url, first, count):
    """One request after another; the statuses of their answers, each of which has its own rows or an error."""
    statuses = Counter()
    with httpx.Client(base_url=url, timeout=30) as client:
        for number in range(first, first + count):
            answer = client.post("/v2/models/tiny/infer", json=plain(number, 1 + number % 3))
            if answer.status_code == 200:
                assert is_own(answer, number, 1 + number % 3)
            else:
                assert answer.json()["error"]
                time.sleep(0.02)
            statuses[answer.status_code] += 1
    return statuses


def test_each_request_is_answered_once_while_its_process_is_killed_again_and_again(tiny):
    """With its own rows, or with an error; and in the end everything is well again."""
    with served(tiny, instances=2) as (url, hub, events):
        with Killer(events), ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda worker: ask_in_turn(url, worker * 1000, 150), range(4)))
        statuses = sum(found, Counter())
        assert statuses.total() == 600
        assert set(statuses) <= {200, 500, 503}
        assert statuses[200]
        (model,) = hub.loaded
        assert model.statistics.crashes == len([one for one in events if one.what == "crashed"]) > 0
        assert model.statistics.answered.count == statuses[200]
        assert model.statistics.failures.total() == 600 - statuses[200]
        processes.eventually(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200, 60)
        assert is_own(httpx.post(f"{url}/v2/models/tiny/infer", json=plain(5)), 5, 2)


def test_nothing_alive_is_not_ready(tiny, monkeypatch):
    with served(tiny) as (url, hub, events):
        (model,) = hub.loaded
        keeper = model.instance._slots.all[0].executor._keeper
        monkeypatch.setattr("tailorbird.serving.processes.backoff.FIRST_WAIT_S", 2.0)
        os.kill(events[-1].pid, signal.SIGKILL)
        while model.alive:
            time.sleep(0.001)
        assert httpx.get(f"{url}/v2/health/ready").json() == {"ready": False}
        assert httpx.get(f"{url}/v2/models/tiny/ready").status_code == 503
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        refused = httpx.post(f"{url}/v2/models/tiny/infer", json=plain(1))
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
        assert refused.json()["error"].startswith("model 'tiny' version 1 is not ready: nothing is alive to run it")
        index = httpx.post(f"{url}/v2/repository/index").json()
        assert [(one["state"], one["reason"][:20]) for one in index] == [("UNAVAILABLE", "down, starting again")]
        assert httpx.post(f"{url}/v2/repository/index", json={"ready": True}).json() == []
        assert "down, starting again" in httpx.get(url).text
        assert keeper.failure is None


@pytest.mark.parametrize("isolation", list(Isolation))
def test_a_client_that_leaves_takes_its_request_with_it(tmp_path, isolation):
    """What runs is let run, what waits is not run at all."""
    version = processes.turns(tmp_path / "1")
    with served(version, isolation=isolation) as (url, hub, _):
        (model,) = hub.loaded
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps(request(1, turns=SECOND)).encode()
        head = f"POST /v2/models/{model.name}/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        sockets = [socket.create_connection((host, int(port))) for _ in range(3)]
        for number, one in enumerate(sockets, start=1):
            one.sendall(head + body)
            while model.instance.outstanding < number:
                time.sleep(0.005)
        for one in sockets:
            one.close()
        deadline = time.monotonic() + 2
        while model.instance.outstanding and time.monotonic() < deadline:
            time.sleep(0.005)
        assert model.instance.outstanding == 0
        assert model.statistics.failures == {"CANCELED": 3}
        answer = httpx.post(f"{url}/v2/models/{model.name}/infer", json=request(8), timeout=60)
        assert answer.json()["outputs"][0]["data"] == [8.0] * 8
        assert model.statistics.runs <= 3  # those that were cancelled while they waited were not run


SERVE = """
import sys
from pathlib import Path
from tailorbird.service import app
from tailorbird.service.options import options_of

load = app.load

def loaded(*arguments, **options):
    global hub
    controller = load(*arguments, **options)
    hub = controller.hub
    return controller

app.load = loaded
app.serve(Path(sys.argv[1]), options_of(port=0, grpc_port=0, isolation=sys.argv[2], instances=2))
print(hub.loaded[0].statistics.answered.count)
"""


@contextmanager
def server_process(version, isolation):
    """A server in a process of its own, which says in the end how many requests it answered."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree.ROOT / "src"), str(tree.ROOT)])}
    command = [sys.executable, "-c", SERVE, str(version), isolation]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = ""
            while " on http://" not in line:
                line = process.stderr.readline()
                assert line, "the server ended"
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.mark.parametrize("isolation", list(Isolation))
def test_shutdown_under_load_answers_all_that_was_accepted(tiny, isolation):
    results = Counter()

    def ask(url, worker):
        """Until the server is gone; a connection may be closed as the next request is on its way."""
        with httpx.Client(base_url=url, timeout=30) as client, contextlib.suppress(httpx.TransportError):
            for number in range(worker * 10_000, worker * 10_000 + 5000):
                answer = client.post("/v2/models/tiny/infer", json=plain(number))
                assert answer.status_code == 200, answer.text
                assert is_own(answer, number, 2)
                results[worker] += 1

    with server_process(tiny, isolation) as (process, url), ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, url, worker) for worker in range(8)]
        processes.eventually(lambda: results.total() > 100)
        process.send_signal(signal.SIGTERM)
        for one in asked:
            one.result()
        assert process.wait(20) == 0
        assert int(process.stdout.read()) == results.total()
        assert max(results.values()) < 5000
