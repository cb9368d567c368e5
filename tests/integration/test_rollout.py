"""Versions come and go under a real server while real clients ask: no request is lost, no answer is of two versions.

Version ``n`` of the model answers ``x * n``, so an answer says which version it is of.
"""

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import RepositoryError
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.repository.store import LocalRepository
from tailorbird.service import app
from tailorbird.service.app import running_server
from tailorbird.service.options import options_of
from tailorbird.serving.processes.events import Happening
from tests.processes import eventually, fickle, is_running, scaled, turns

VERSIONS = 4
TIMES = Signature((TensorSpec("x", DType.FP32, ("rows", 4)),), (TensorSpec("y", DType.FP32, ("rows", 4)),))

PROFILE = Profile(*({"x": (rows, 4)} for rows in (1, 2, 64)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return [scaled(folder / str(n), n, TIMES, PROFILE) for n in range(1, VERSIONS + 1)]


@pytest.fixture
def store(tmp_path, made):
    found = LocalRepository(tmp_path / "repository")
    for version in made:
        found.publish(version, "times")
    found.promote("times", 1, "production")
    return found


def options(**settings):
    settings = {"isolation": "thread", "instances": 1, "repository_poll_secs": 0.05, "keep_previous_secs": 0} | settings
    return options_of(port=0, grpc_port=0, **settings)


def infer(url, model="times", rows=1, version=None):
    data = np.arange(rows * 4, dtype=np.float32).tolist()
    body = {"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}]}
    path = f"{url}/v2/models/{model}" + (f"/versions/{version}" if version else "")
    return httpx.post(f"{path}/infer", json=body, timeout=60)


def live(url, model="times"):
    answer = infer(url, model)
    return int(answer.json()["model_version"]) if answer.status_code == 200 else None


def index(url):
    found = httpx.post(f"{url}/v2/repository/index", timeout=30).json()
    return {(one["name"], int(one["version"])): (one["state"], one["reason"]) for one in found}


class Clients:
    """Ask without pause, through the official client, and hold every answer against its version's function."""

    def __init__(self, url, count=3):
        self.url = url
        self.wrong = []
        self.answers = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, number):
        client = triton.InferenceServerClient(self.url.removeprefix("http://"), network_timeout=60)
        for mark in itertools.count(number):
            if self._stop.is_set():
                break
            rows = np.full((1 + mark % 3, 4), mark % 1000, np.float32)
            tensor = triton.InferInput("x", list(rows.shape), "FP32")
            tensor.set_data_from_numpy(rows)
            try:
                answer = client.infer("times", [tensor])
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
                continue
            version = int(answer.get_response()["model_version"])
            self.answers.append(version)
            if not np.array_equal(answer.as_numpy("y"), rows * version):
                self.wrong.append(f"version {version} answered {answer.as_numpy('y')} to {rows}")
        client.close()


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_swaps_under_load_lose_nothing(store, isolation):
    with running_server(store.root, options(isolation=isolation)) as url, Clients(url) as clients:
        for version in (2, 3, 1):
            store.promote("times", version, "production")
            eventually(lambda version=version: live(url) == version, 60)
        store.rollback("times", "production")
        eventually(lambda: live(url) == 3, 60)
        eventually(lambda: index(url) == {("times", 3): ("READY", "")}, 60)
        before = len(clients.answers)
        eventually(lambda: len(clients.answers) > before + 5)
    assert clients.wrong == []
    assert set(clients.answers) == {1, 2, 3}


@pytest.mark.heavy
def test_a_hundred_swaps_under_load(store):
    with running_server(store.root, options()) as url, Clients(url) as clients:
        for turn in range(100):
            version = 1 + (turn + 1) % VERSIONS
            store.promote("times", version, "production")
            eventually(lambda version=version: live(url) == version, 60)
    assert clients.wrong == []
    assert set(clients.answers) == set(range(1, VERSIONS + 1))


def test_the_command_lines_follow_one_another(store):
    """Two shells: one serves, the other promotes and rolls back."""
    command = [sys.executable, "-m", "tailorbird"]
    flags = ["--port", "0", "--grpc-port", "0", "--isolation", "thread", "--repository-poll-secs", "0.1"]
    with subprocess.Popen([*command, "serve", str(store.root), *flags], stderr=subprocess.PIPE, text=True) as server:
        try:
            url = next(line.split()[-1] for line in server.stderr if line.startswith("serving times/1 on "))
            assert live(url) == 1
            channel = ["--channel", "production"]
            subprocess.run([*command, "repo", "promote", str(store.root), "times", "--version", "2", *channel],
                           check=True, capture_output=True)  # fmt: skip
            eventually(lambda: live(url) == 2, 30)
            loaded = dict(index(url))
            assert loaded[("times", 1)] == ("READY", "")  # kept for what comes now
            subprocess.run([*command, "repo", "rollback", str(store.root), "times", *channel],
                           check=True, capture_output=True)  # fmt: skip
            eventually(lambda: live(url) == 1, 30)
            assert httpx.get(f"{url}/metrics").text.count('tailorbird_model_loads_total{model="times"} 2.0') == 1
        finally:
            server.send_signal(signal.SIGTERM)
            server.stderr.read()
    assert server.returncode == 0


def test_a_process_killed_while_its_version_loads(store, monkeypatch):
    """It is started again; until then the version before answers."""
    killed = []
    watch = app._journal_event

    def kill(model, version, event):
        watch(model, version, event)
        if version == 2 and event.what is Happening.STARTED and not killed:
            killed.append(event.pid)
            os.kill(event.pid, signal.SIGKILL)

    monkeypatch.setattr(app, "_journal_event", kill)
    with running_server(store.root, options(isolation="process")) as url, Clients(url, 2) as clients:
        store.promote("times", 2, "production")
        eventually(lambda: live(url) == 2, 60)
    assert killed
    assert not is_running(killed[0])
    assert clients.wrong == []


def test_versions_that_fail_change_nothing(store, made, tmp_path, capfd):
    """One that was altered, and one whose engine answers the same rows differently each time: no client sees either."""
    random = fickle(tmp_path / "random", TIMES, PROFILE)
    with running_server(store.root, options()) as url, Clients(url) as clients:
        store.promote("times", store.publish(random, "times"), "production")
        eventually(lambda: index(url).get(("times", 5), ("",))[0] == "UNAVAILABLE", 30)
        broken = tmp_path / "broken"
        shutil.copytree(made[1], broken)
        (broken / "model.onnx").write_bytes((broken / "model.onnx").read_bytes()[:-1] + b"?")
        shutil.copytree(broken, store.root / "plain" / "1")  # as a stranger would add it
        eventually(lambda: index(url).get(("plain", 1), ("",))[0] == "UNAVAILABLE", 30)
        reason = "failed to load: the server's log has the reason"
        assert index(url)[("times", 5)] == index(url)[("plain", 1)] == ("UNAVAILABLE", reason)
        assert infer(url, "plain").status_code == 503
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        store.promote("times", 3, "production")
        eventually(lambda: live(url) == 3, 30)
    assert clients.wrong == []
    assert set(clients.answers) <= {1, 3}
    log = capfd.readouterr().err
    assert "differs when the same rows are asked again" in log
    assert "model.onnx' of" in log


def test_what_was_put_away_answers_what_it_accepted(tmp_path):
    """A slow request that the old version took is answered by it, after the new one has taken over."""
    store = LocalRepository(tmp_path / "repository")
    first = turns(tmp_path / "first")
    store.publish(first, "turns")
    store.publish(first, "turns", again=True)
    store.promote("turns", 1, "production")
    body = {"inputs": [{"name": "n", "shape": [], "datatype": "INT64", "data": [200_000]},
                       {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [7] * 4}]}  # fmt: skip
    with running_server(store.root, options()) as url:
        answers = []

        def ask():
            answers.append(httpx.post(f"{url}/v2/models/turns/infer", json=body, timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        pending = 'nv_inference_pending_request_count{model="turns",version="1"} 1.0'
        eventually(lambda: pending in httpx.get(f"{url}/metrics").text)
        store.promote("turns", 2, "production")
        eventually(lambda: index(url).get(("turns", 2)) == ("READY", ""), 30)
        eventually(lambda: index(url).get(("turns", 1), ("UNLOADING",))[0] == "UNLOADING", 30)
        asking.join(60)
        (answer,) = answers
        assert (answer.status_code, answer.json()["model_version"]) == (200, "1")
        assert answer.json()["outputs"][0]["data"] == [7.0] * 4
        eventually(lambda: index(url) == {("turns", 2): ("READY", "")}, 30)


def test_a_small_budget_wakes_models_when_they_are_asked_for(tmp_path, made):
    """Real processes, measured: two models, and room for one."""
    store = LocalRepository(tmp_path / "repository")
    store.publish(made[0], "first")
    store.publish(made[1], "second")
    with running_server(store.root, options(isolation="process", memory_budget="60MiB")) as url:
        states = {name: state for (name, _), state in index(url).items()}
        assert sorted(state for state, _ in states.values()) == ["READY", "UNAVAILABLE"]
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        asleep = next(name for name, (state, _) in states.items() if state != "READY")
        awake = next(name for name in states if name != asleep)
        answers = []
        asking = [threading.Thread(target=lambda: answers.append(infer(url, asleep))) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(60)
        assert [answer.status_code for answer in answers] == [200] * 4
        eventually(lambda: index(url)[(awake, 1)] == ("UNAVAILABLE", "evicted: memory budget"), 30)
        text = httpx.get(f"{url}/metrics").text
        assert f'tailorbird_model_evictions_total{{model="{awake}"}} 1.0' in text
        weight = f'tailorbird_model_memory_bytes{{model="{asleep}",version="1"}}'
        eventually(lambda: weight in httpx.get(f"{url}/metrics").text, 30)  # it is looked at now and then
        raw = httpx.post(f"{url}/v2/models/{awake}/infer", content=np.ones(4, np.float32).tobytes(), timeout=60,
                         headers={"Inference-Header-Content-Length": "0"})  # fmt: skip
        assert raw.status_code == 200
        refused = httpx.post(f"{url}/v2/models/{asleep}/infer", timeout=60, json={
            "parameters": {"timeout": 1000},
            "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0] * 4}]})  # fmt: skip
        assert refused.status_code == 503


def test_closing_in_the_middle_of_a_load(store):
    before = set(threading.enumerate())
    with running_server(store.root, options(isolation="process")) as url:
        store.promote("times", 2, "production")
        eventually(lambda: index(url).get(("times", 2), ("",))[0] == "LOADING", 30)
        assert live(url) == 1
    # The load that was under way is not waited for: it ends by itself, and with it its process.
    eventually(lambda: not [thread.name for thread in set(threading.enumerate()) - before], 30)


def ask_any(url, names, over, wrong):
    """Until it is over: each answer is right by its version, or a refusal."""
    chance = random.Random(threading.get_ident())
    while not over.is_set():
        answer = infer(url, chance.choice(names))
        if answer.status_code == 200:
            factor = float(answer.json()["model_version"])
            if answer.json()["outputs"][0]["data"] != [factor * mark for mark in range(4)]:
                wrong.append(answer.text)
        elif answer.status_code != 503:
            wrong.append(answer.text)


def turmoil(store, names, seed, turns):
    """Promote, roll back, begin and end canaries and shadows, at random."""
    chance = random.Random(seed)
    for _ in range(turns):
        name, version = chance.choice(names), 1 + chance.randrange(VERSIONS)
        channel = chance.choice(["production", "production", "canary", "shadow", ""])
        with contextlib.suppress(RepositoryError):  # nothing to go back to
            store.promote(name, version, channel) if channel else store.rollback(name, "production")
        time.sleep(chance.random() * 0.1)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_at_once(tmp_path, made, seed):
    """Six models, room for four and a half versions, canaries, shadows, rollbacks: answers are right or refused."""
    store = LocalRepository(tmp_path / "repository")
    names, over, wrong = [f"m{number}" for number in range(6)], threading.Event(), []
    for name, version in itertools.product(names, made):
        store.publish(version, name)
    size = sum(path.stat().st_size for path in made[0].rglob("*") if path.is_file())
    settings = {"memory_budget": f"{int(4.5 * size)}B", "pin": ["m0"], "keep_previous_secs": 0.2,
                "canary_weight": 0.3, "shadow_channel": "shadow"}  # fmt: skip
    with running_server(store.root, options(**settings)) as url:
        clients = [threading.Thread(target=ask_any, args=(url, names, over, wrong)) for _ in range(4)]
        for client in clients:
            client.start()
        turmoil(store, names, seed, 150)
        over.set()
        for client in clients:
            client.join(60)
        assert not any(client.is_alive() for client in clients)
        for name in names:  # whatever happened, each can be had again
            store.promote(name, 2, "production")
            eventually(lambda name=name: live(url, name) == 2, 30)
    assert wrong == []
