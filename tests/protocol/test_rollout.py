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

from tailorbird.service.app import running_server
from tailorbird.service.options import ServerOptions
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
