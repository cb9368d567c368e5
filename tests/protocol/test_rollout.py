"""Canaries and shadows in a real server, with engines in processes: no client sees what goes wrong on either."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import tritonclient.http as triton
from numpy import float32, full

from tailorbird.repository.store import LocalRepository
from tailorbird.service.app import running_server
from tailorbird.service.options import ServerOptions, options_of
from tailorbird.serving.hub import Direction, Hub
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.rollout.traffic import Traffic
from tailorbird.serving.starting import HubOptions, Isolation, Started, put_in_service
from tests import variants
from tests.processes import eventually

KINDS = {
    "plain": {"turns": 2 * variants.MILLISECOND},
    "slow": {"turns": 8 * variants.MILLISECOND},
    "breaks": {"breaks": True, "turns": 2 * variants.MILLISECOND},
    "other": {"offset": 0.5, "turns": 2 * variants.MILLISECOND},
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    return {kind: variants.variant(folder / kind, **how) for kind, how in KINDS.items()}


class Served:
    """A running server: its address, its traffic, its processes, and what was stopped."""

    def __init__(self, url, traffic, models, events, stops):
        self.url, self.traffic, self.models, self.events, self.stops = url, traffic, models, events, stops

    def pid(self, version):
        """Of the version's process that was started last."""
        return [pid for number, pid in self.events if number == version][-1]

    def ask(self, client, mark, **more):
        """Who answered; whatever the version, the answer is this request's own."""
        answer = client.post(f"{self.url}/v2/models/tiny/infer", json={**variants.request(mark), **more})
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        assert output["data"] in ([mark] * 8, [mark + 0.5] * 8)
        return answer.json()["model_version"]

    def hammer(self, requests, clients=4, mark=None, until=lambda: False):
        """Who answered how many; ends early once ``until`` says so."""

        def one(client_number):
            found = Counter()
            with httpx.Client(timeout=60) as client:
                for number in range(requests // clients):
                    if until():
                        break
                    found[self.ask(client, float(mark or client_number * 1000 + number))] += 1
            return found

        with ThreadPoolExecutor(clients) as pool:
            return sum(pool.map(one, range(clients)), Counter())


@contextlib.contextmanager
def served(versions, *, canary="", shadow="", isolation=Isolation.PROCESS, **options):
    """Version 1 is live and plain, 2 the canary, 3 the shadow."""
    events, stops = [], []

    def watch(_, number, event):
        if event.what == "ready":
            events.append((number, event.pid))

    kinds = {1: "plain", 2: canary, 3: shadow}
    how = HubOptions(isolation=isolation, instances=1)
    models = {
        number: put_in_service(Started("tiny", number, versions[kind]), how, watch, contextlib.ExitStack())
        for number, kind in kinds.items()
        if kind
    }
    hub, weight = Hub(models.values()), options.get("weight", 0.5)
    traffic = Traffic(models[1], models.get(2), models.get(3), RolloutOptions(**options), stops.append)
    hub.direct("tiny", Direction(1, 2 if canary else None, weight, 3 if shadow else None), traffic)
    with running_server(hub, ServerOptions(port=0, grpc_port=0)) as url:
        yield Served(url, traffic, models, events, stops)


@pytest.mark.parametrize("isolation", list(Isolation))
def test_a_fifth_of_the_traffic_is_a_fifth(versions, isolation):
    with served(versions, canary="plain", isolation=isolation, weight=0.2) as server:
        assert server.hammer(200) == {"1": 160, "2": 40}
        assert server.stops == []
        found = server.traffic.status().canary
        assert (found.canary.requests, found.live.requests, found.canary.errors) == (40, 160, 0)
        metrics = httpx.get(f"{server.url}/metrics").text
        for line in (
            'tailorbird_canary_requests_total{model="tiny",version="2"} 40.0',
            'tailorbird_canary_live_requests_total{model="tiny",version="2"} 160.0',
            'tailorbird_canary_weight{model="tiny",version="2"} 0.2',
            'tailorbird_canary_stopped{model="tiny",version="2"} 0.0',
            'nv_inference_request_success{model="tiny",version="2"} 40.0',
        ):
            assert line in metrics


def test_the_official_client_gets_both(versions):
    with (
        served(versions, canary="other", weight=0.5) as server,
        triton.InferenceServerClient(server.url.removeprefix("http://")) as client,
    ):
        x = triton.InferInput("x", [2, 4], "FP32")
        x.set_data_from_numpy(full((2, 4), 3, float32))
        seen = Counter(float(client.infer("tiny", [x]).as_numpy("y")[0, 0]) for _ in range(20))
        assert seen == {3.0: 10, 3.5: 10}
        named = {float(client.infer("tiny", [x], model_version="2").as_numpy("y")[0, 0]) for _ in range(5)}
        assert named == {3.5}


def test_a_canary_that_breaks_is_stopped_and_no_client_sees_an_error(versions):
    with served(versions, canary="breaks", weight=0.5) as server:
        assert set(server.hammer(40)) == {"1", "2"}
        server.hammer(400, mark=variants.POISON, until=lambda: server.stops)
        (stop,) = server.stops
        assert (stop.reason, stop.canary.version) in {("dead", 2), ("errors", 2)}
        assert set(server.hammer(40)) == {"1"}
        metrics = httpx.get(f"{server.url}/metrics").text
        assert 'tailorbird_canary_stopped{model="tiny",version="2"} 1.0' in metrics
        assert 'tailorbird_canary_weight{model="tiny",version="2"} 0.0' in metrics


def test_a_canary_that_is_killed_is_stopped_and_no_client_sees_an_error(versions):
    """Its process is killed with requests in it, and again when it comes back."""
    with served(versions, canary="plain", weight=0.5) as server:
        over = threading.Event()

        def kill():
            while not over.wait(0.02):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server.pid(2), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            found = server.hammer(4000, until=lambda: server.stops)
        finally:
            over.set()
            killer.join()
        assert found["1"] > 0
        assert server.stops[0].reason in ("dead", "errors")
        assert server.models[2].statistics.crashes > 0
        assert server.models[1].statistics.failures.total() == 0
        assert set(server.hammer(40)) == {"1"}


@pytest.mark.alone
@pytest.mark.parametrize("isolation", list(Isolation))
def test_a_slow_canary_is_stopped(versions, isolation):
    with served(versions, canary="slow", isolation=isolation, weight=0.5) as server:
        server.hammer(2000, until=lambda: server.stops)
        (stop,) = server.stops
        assert stop.reason in ("slower", "slow tail")
        assert stop.canary.errors == stop.live.errors == 0
        assert stop.canary.p50_ms > stop.live.p50_ms


@pytest.mark.alone
def test_an_equal_canary_is_not_stopped(versions):
    with served(versions, canary="plain", weight=0.3) as server:
        server.hammer(600)
        assert server.stops == []
        assert server.traffic.status().canary.state == "running"


@pytest.mark.parametrize("isolation", list(Isolation))
def test_a_shadow_with_other_weights_shows_the_difference(versions, isolation):
    with served(versions, shadow="other", isolation=isolation) as server:
        with httpx.Client(timeout=60) as client:
            for number in range(20):
                assert server.ask(client, float(number)) == "1"
                eventually(lambda wanted=number + 1: server.traffic.status().shadow.compared == wanted)
        found = server.traffic.status().shadow
        assert (found.compared, found.errors, found.dropped, found.outputs[0].max_abs_error) == (20, 0, 0, 0.5)
        assert found.outputs[0].worst_snr_db < found.outputs[0].snr_db
        assert server.models[3].statistics.answered.count == 0
        metrics = httpx.get(f"{server.url}/metrics").text
        assert 'tailorbird_shadow_compared_total{model="tiny",version="3"} 20.0' in metrics
        assert 'tailorbird_shadow_max_abs_error{model="tiny",output="y",version="3"} 0.5' in metrics


def test_binary_requests_are_copied_right(versions):
    """Bodies are read where they lie, and many are on their way: the shadow must see what the live version saw."""
    with served(versions, shadow="plain", shadow_waiting=1000) as server:

        def ask(number):
            with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
                for mark in range(number * 100, number * 100 + 25):
                    x = triton.InferInput("x", [2, 4], "FP32")
                    x.set_data_from_numpy(full((2, 4), mark, float32))
                    assert (client.infer("tiny", [x]).as_numpy("y") == mark).all()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))
        eventually(lambda: server.traffic.status().shadow.compared == 100)
        (y,) = server.traffic.status().shadow.outputs
        assert (y.max_abs_error, y.mismatched, y.strange) == (0.0, 0, 0)


def test_a_shadow_that_dies_is_nobodys_business(versions):
    with served(versions, shadow="plain") as server:
        server.hammer(20)
        os.kill(server.pid(3), signal.SIGSTOP)  # it hangs: nothing waits for it
        try:
            started = time.monotonic()
            assert server.hammer(200) == {"1": 200}
            assert time.monotonic() - started < 60
            found = server.traffic.status().shadow
            assert found.dropped > 0
            assert found.waiting <= 16
        finally:
            os.kill(server.pid(3), signal.SIGKILL)
        assert server.hammer(20) == {"1": 20}
        eventually(lambda: server.traffic.status().shadow.errors > 0)
        assert server.models[1].statistics.failures.total() == 0


def test_a_canary_whose_requests_are_refused_by_both_goes_on(versions):
    with served(versions, canary="plain", weight=0.5) as server, httpx.Client(timeout=60) as client:
        for _ in range(40):
            body = variants.request(1.0)
            wrong = {"inputs": [replace_dtype(body["inputs"][0])]}
            answer = client.post(f"{server.url}/v2/models/tiny/infer", json=wrong)
            assert (answer.status_code, "wrong datatype" in answer.json()["error"]) == (400, True)
        assert server.stops == []
        assert server.traffic.status().canary.canary.requests == 0


def replace_dtype(tensor):
    return {**tensor, "datatype": "FP64"}


@pytest.fixture
def followed(tmp_path, versions):
    """A repository with version 1 in production, and 2, which breaks on some requests."""
    store = LocalRepository(tmp_path / "repository")
    for kind in ("plain", "breaks"):
        store.publish(versions[kind])
    store.promote("tiny", 1, "production")
    return store


class Following:
    """A server that follows a repository, and what it says of its one model."""

    def __init__(self, client):
        self._client = client

    @property
    def rollout(self):
        (found,) = self._client.get("/v2/rollouts").json()
        return found

    def ask(self, mark=1.0, times=10):
        """The versions that answered."""
        answers = [self._client.post("/v2/models/tiny/infer", json=variants.request(mark)) for _ in range(times)]
        assert {answer.status_code for answer in answers} == {200}
        return {int(answer.json()["model_version"]) for answer in answers}


@pytest.fixture
def following(followed):
    options = options_of(port=0, grpc_port=0, isolation="thread", repository_poll_secs=0.05, admin_on_public=True,
                         canary_weight=0.5, shadow_channel="shadow")  # fmt: skip
    with running_server(followed.root, options) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield Following(client)


def test_a_channel_makes_a_canary_and_its_stop_is_told_everywhere(followed, following, capfd):
    """Promoted while the server runs; stopped; not begun anew, until the channel points at another version."""
    assert following.rollout == {"model": "tiny", "live": 1, "canary": None, "shadow": None}
    followed.promote("tiny", 2, "canary")
    eventually(lambda: following.rollout["canary"])
    assert following.ask() == {1, 2}
    following.ask(variants.POISON, 40)
    found = following.rollout["canary"]
    assert (found["state"], found["weight"], found["stop"]["reason"]) == ("stopped", 0.0, "dead")
    assert following.ask() == {1}
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "canary stopped" in line]
    assert '"level":"warning"' in line
    assert "5 requests in a row broke on it that the live version answered" in line
    followed.promote("tiny", 2, "shadow")  # the direction changes, and brings nothing back
    time.sleep(0.3)
    assert following.ask() == {1}
    followed.publish(followed.version_dir("tiny", 1), again=True)
    followed.promote("tiny", 3, "canary")
    eventually(lambda: (following.rollout["canary"] or {}).get("version") == 3)
    assert following.ask() == {1, 3}
    eventually(lambda: following.rollout["shadow"]["compared"] > 0)
