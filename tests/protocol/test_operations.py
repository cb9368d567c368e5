"""What the server says of itself, over both protocols, asked with the official client where that can ask."""

import json
import socket
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.service import beside
from tailorbird.service.app import running_server
from tailorbird.service.options import ServerOptions
from tailorbird.service.web.listener import bind
from tailorbird.serving.hub import FailedModel, Hub
from tests.protocol.engines import echo_model, fake_model


def free_port():
    with bind("127.0.0.1", 0) as bound:
        return bound.getsockname()[1]


@pytest.fixture(scope="module")
def ports():
    return {"grpc_port": free_port(), "metrics_port": free_port()}


@pytest.fixture(scope="module")
def server(ports):
    models = [
        echo_model("echo", DType.FP32, ("N", 2)),
        fake_model("tiny", 3),
        echo_model("slow", DType.FP32, delay=0.3),
    ]
    hub = Hub(models, [FailedModel("late", 1, "secret /etc/path")])
    with running_server(hub, ServerOptions(port=0, access_log=True, **ports)) as url:
        yield url


@pytest.fixture
def clients(server, ports):
    with (
        triton.InferenceServerClient(server.removeprefix("http://")) as over_http,
        triton_grpc.InferenceServerClient(f"127.0.0.1:{ports['grpc_port']}") as over_grpc,
    ):
        yield over_http, over_grpc


def ask(client, rows=2, module=triton, model="echo", **options):
    shape = (rows,) if model == "slow" else (rows, 2)
    tensor = module.InferInput("x", shape, "FP32")
    tensor.set_data_from_numpy(np.ones(shape, np.float32))
    return client.infer(model, [tensor], **options)


def test_statistics(clients):
    over_http, over_grpc = clients
    before = over_http.get_inference_statistics("echo")["model_stats"][0]
    ask(over_http, rows=2)
    ask(over_grpc, rows=5, module=triton_grpc)
    (found,) = over_http.get_inference_statistics("echo", "1")["model_stats"]
    assert (found["name"], found["version"]) == ("echo", "1")
    assert found["inference_count"] - before["inference_count"] == 7
    assert found["execution_count"] - before["execution_count"] == 2
    assert found["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 2
    assert found["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert {one["batch_size"] for one in found["batch_stats"]} >= {2, 5}
    assert abs(found["last_inference"] / 1e3 - time.time()) < 60
    assert over_grpc.get_inference_statistics("echo").model_stats[0].inference_count == found["inference_count"]
    everything = over_http.get_inference_statistics()["model_stats"]
    assert [one["name"] for one in everything] == ["echo", "slow", "tiny"]
    assert len(over_grpc.get_inference_statistics().model_stats) == 3
    with pytest.raises(InferenceServerException, match="unknown model 'ecco'"):
        over_http.get_inference_statistics("ecco")


def test_the_repository_index(clients, server):
    over_http, over_grpc = clients
    index = over_http.get_model_repository_index()
    assert [(one["name"], one["version"], one["state"]) for one in index] == [
        ("echo", "1", "READY"),
        ("late", "1", "UNAVAILABLE"),
        ("slow", "1", "READY"),
        ("tiny", "3", "READY"),
    ]
    assert index[1]["reason"] == "failed to load: the server's log has the reason"
    assert [one.name for one in over_grpc.get_model_repository_index().models] == ["echo", "late", "slow", "tiny"]
    ready = httpx.post(f"{server}/v2/repository/index", json={"ready": True}).json()
    assert [one["name"] for one in ready] == ["echo", "slow", "tiny"]
    assert httpx.post(f"{server}/v2/repository/index", content=b'{"ready": 3}').status_code == 400


def test_the_configuration(clients):
    over_http, over_grpc = clients
    found = over_http.get_model_config("echo")
    assert (found["name"], found["max_batch_size"]) == ("echo", 64)
    assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
    assert found["dynamic_batching"] == {"preserve_ordering": False}
    config = over_grpc.get_model_config("echo").config
    assert (config.name, config.platform, config.max_batch_size) == ("echo", "fake_platform", 64)
    assert (config.input[0].name, list(config.input[0].dims)) == ("x", [2])
    assert config.input[0].data_type == 11  # TYPE_FP32


def test_metrics_have_a_port_of_their_own(clients, server, ports):
    ask(clients[0])
    answer = httpx.get(f"http://127.0.0.1:{ports['metrics_port']}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    counted = {sample.labels["model"]: sample.value for sample in families["nv_inference_request_success"].samples}
    assert counted["echo"] >= 1
    assert set(counted) == {"echo", "slow", "tiny"}
    assert httpx.get(f"{server}/metrics").status_code == 404
    assert httpx.get(f"http://127.0.0.1:{ports['metrics_port']}/v2").status_code == 404
    assert httpx.post(f"http://127.0.0.1:{ports['metrics_port']}/metrics").status_code == 405


def test_metrics_are_on_the_port_of_http_without_one():
    with running_server(Hub([echo_model("echo", DType.FP32)])) as url:
        assert 'nv_inference_pending_request_count{model="echo",version="1"} 0' in httpx.get(f"{url}/metrics").text


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"timeout": -1}, "the parameter 'timeout' is wrong: got -1, expected a whole number, 0 or more"),
        ({"timeout": "soon"}, "the parameter 'timeout' is wrong: got 'soon', expected a whole number, 0 or more"),
        ({"timeout": True}, "the parameter 'timeout' is wrong: got True, expected a whole number, 0 or more"),
        ({"timeout": 1.5}, "the parameter 'timeout' is wrong: got 1.5, expected a whole number, 0 or more"),
        ({"priority": -2}, "the parameter 'priority' is wrong: got -2, expected a whole number, 0 or more"),
        ({"timeout": 10**400}, f"the parameter 'timeout' is too large: got {10**39}, expected less than 2^63"),
    ],
)
def test_wrong_terms_are_the_clients_fault(server, parameters, error):
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}], "parameters": parameters}
    answer = httpx.post(f"{server}/v2/models/echo/infer", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_a_timeout_that_passes_in_the_queue_is_refused(clients):
    """The official client's own timeout, which is in microseconds."""
    over_http, over_grpc = clients
    first = over_http.async_infer("slow", [_one()])
    time.sleep(0.1)
    for client, module, status in ((over_grpc, triton_grpc, "StatusCode.UNAVAILABLE"),):
        began = time.monotonic()
        with pytest.raises(InferenceServerException, match="deadline") as caught:
            ask(client, module=module, model="slow", rows=1, timeout=50_000, priority=1)
        assert caught.value.status() == status
        assert time.monotonic() - began < 0.25
    assert first.get_result().as_numpy("y").tolist() == [1.0]


def _one():
    tensor = triton.InferInput("x", (1,), "FP32")
    tensor.set_data_from_numpy(np.ones(1, np.float32))
    return tensor


def test_the_access_log_has_a_line_for_each_request_and_no_contents(clients, server, capfd):
    over_http, over_grpc = clients
    capfd.readouterr()
    ask(over_http, rows=2, request_id="a\nb")
    ask(over_grpc, rows=3, module=triton_grpc, model_version="1")
    httpx.post(f"{server}/v2/models/nobody/infer", content=b"{")
    httpx.post(f"{server}/v2/models/nobody/infer", json={"inputs": []})
    httpx.get(f"{server}/v2/health/live")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert all(line.pop("ms") >= 0 and line.pop("time") and line.pop("event") == "request" for line in lines)
    assert lines == [
        {"protocol": "http", "model": "echo", "status": 200, "id": "a\nb", "rows": 2},
        {"protocol": "grpc", "model": "echo", "status": "OK", "version": 1, "rows": 3},
        {"protocol": "http", "model": "nobody", "status": 400},
        {"protocol": "http", "model": "nobody", "status": 404},
    ]


class TestGrpcBesideHttp:
    """When it is there, and what happens where it cannot be."""

    def test_a_taken_port_that_was_asked_for_ends_the_start(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with (
                pytest.raises(TailorbirdError, match=f"^cannot listen for gRPC on 127.0.0.1:{port}"),
                running_server(Hub(), ServerOptions(port=0, grpc_port=port)),
            ):
                pass

    def test_a_taken_port_that_nobody_asked_for_is_a_warning(self, monkeypatch, capfd):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            monkeypatch.setattr(beside, "GRPC_PORT", taken.getsockname()[1])
            with running_server(Hub(), ServerOptions(port=0)) as url:
                assert httpx.get(f"{url}/v2").status_code == 200
        said = capfd.readouterr().err.splitlines()  # gRPC's own library has a line of its own, too
        (line,) = [json.loads(line) for line in said if line.startswith("{")]
        assert (line["event"], line["level"]) == ("gRPC is off", "warning")

    def test_without_the_extra_it_is_off_or_refused(self, monkeypatch, capfd):
        monkeypatch.setattr(beside, "_NEEDED", ("grpc_that_nobody_installed",))
        with running_server(Hub(), ServerOptions(port=0)) as url:
            assert httpx.get(f"{url}/v2").status_code == 200
        assert capfd.readouterr().err == ""
        with pytest.raises(UsageError) as caught, running_server(Hub(), ServerOptions(port=0, grpc_port=8001)):
            pass
        assert caught.value.message == (
            "gRPC is not installed here: got --grpc-port 8001\nHint: pip install 'tailorbird[grpc]'"
        )
