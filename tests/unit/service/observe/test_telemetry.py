"""Traces: sent by the real exporter to a real collector, from requests of real clients over both protocols."""

import json
import logging
import socket
import time

import grpc
import httpx
import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import UsageError
from tailorbird.service.app import running_server
from tailorbird.service.observe import telemetry
from tailorbird.service.options import ServerOptions
from tailorbird.service.rpc import schema
from tailorbird.serving.hub import Hub
from tests.otlp_collector import collector
from tests.protocol.engines import echo_model, fake_model

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
ECHO = {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}
SERVER, INTERNAL = 2, 1
OK, ERROR = 0, 2


def failing(inputs):
    raise RuntimeError("kernel /opt/secret.so")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


@pytest.fixture
def collected(monkeypatch):
    with collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        yield found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def hub():
    return Hub([echo_model("echo", DType.FP32), fake_model("bad", function=failing)])


def infer(address, model="echo", metadata=(), **fields):
    request = schema.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.raw_input_contents.append(np.ones(2, np.float32).tobytes())
    with grpc.insecure_channel(address) as channel:
        return channel.unary_unary(f"/{schema.INFERENCE}/ModelInfer")(
            request.SerializeToString(), metadata=metadata, timeout=20
        )


def one(spans, name):
    (found,) = [span for span in spans if span.name == name]
    return found


def test_a_request_over_http_is_a_span_with_its_queue_and_its_run(collected):
    with running_server(hub(), ServerOptions(port=0, grpc_port=0)) as url:
        sent = httpx.post(f"{url}/v2/models/echo/infer", json=ECHO, headers={"traceparent": TRACEPARENT})
        assert sent.status_code == 200
        spans = collected.wait(lambda spans: len(spans) == 3)
    server, queue, run = (one(spans, name) for name in ("POST /v2/models/{model}/infer", "queue", "run"))
    assert (server.trace, server.parent, server.kind, server.status) == (TRACE, PARENT, SERVER, OK)
    assert server.resource["service.name"] == "tailorbird"
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "http.response.status_code": 200,
        "url.path": "/v2/models/echo/infer",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "tailorbird.model": "echo",
        "tailorbird.version": 1,
        "tailorbird.rows": 3,
    }
    for child in (queue, run):
        assert (child.trace, child.parent, child.kind) == (TRACE, server.id, INTERNAL)
        assert server.began <= child.began <= child.ended <= server.ended
    assert queue.ended <= run.began
    assert (run.attributes["tailorbird.batch.rows"], run.attributes["tailorbird.batch.requests"]) == (3, 1)
    assert run.attributes["tailorbird.batch.reason"] == "idle"
    assert "fp32" in run.attributes["tailorbird.engine"]


def test_a_call_over_grpc_is_a_span_and_so_is_each_request_of_a_stream(collected):
    port = free_port()
    with running_server(hub(), ServerOptions(port=0, grpc_port=port)):
        infer(f"127.0.0.1:{port}", metadata=[("traceparent", TRACEPARENT)])
        request = schema.ModelInferRequest(model_name="echo", raw_input_contents=[np.ones(1, np.float32).tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[1])
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = channel.stream_stream(f"/{schema.INFERENCE}/ModelStreamInfer")
            answers = list(stream(iter([request.SerializeToString()] * 2), metadata=[("traceparent", TRACEPARENT)]))
        assert len(answers) == 2
        spans = collected.wait(lambda spans: len(spans) == 9)
    unary = one(spans, "inference.GRPCInferenceService/ModelInfer")
    assert (unary.trace, unary.parent, unary.kind) == (TRACE, PARENT, SERVER)
    assert unary.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "inference.GRPCInferenceService/ModelInfer",
        "rpc.response.status_code": "OK",
        "tailorbird.model": "echo",
        "tailorbird.version": 1,
        "tailorbird.rows": 2,
    }
    streamed = [span for span in spans if span.name == "inference.GRPCInferenceService/ModelStreamInfer"]
    assert [(span.trace, span.parent) for span in streamed] == [(TRACE, PARENT)] * 2


def test_errors_say_whose_fault_they_are_and_nothing_of_a_runtimes_words(collected):
    port = free_port()
    bad = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]},
                      {"name": "k", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}  # fmt: skip
    with running_server(hub(), ServerOptions(port=0, grpc_port=port)) as url:
        statuses = [httpx.post(f"{url}/v2/models/{model}/infer", json=body).status_code
                    for model, body in (("bad", bad), ("echo", bad), ("none", bad))]  # fmt: skip
        assert statuses == [500, 400, 404]
        with pytest.raises(grpc.RpcError):
            infer(f"127.0.0.1:{port}", "none")
        spans = collected.wait(lambda spans: len([span for span in spans if span.kind == SERVER]) == 4)
    of = {(span.attributes["tailorbird.model"], span.name[:4]): span for span in spans if span.kind == SERVER}
    fault, mistake, unknown = of["bad", "POST"], of["echo", "POST"], of["none", "POST"]
    assert (fault.status, fault.attributes["error.type"]) == (ERROR, "BackendError")
    assert fault.attributes["http.response.status_code"] == 500
    assert one([span for span in spans if span.parent == fault.id], "run").status == ERROR
    for span, status in ((mistake, 400), (unknown, 404)):
        assert (span.status, span.attributes["http.response.status_code"]) == (OK, status)
        assert "error.type" not in span.attributes
    assert of["none", "infe"].attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert of["none", "infe"].status == OK
    assert "secret" not in str([span.attributes for span in spans])


def test_a_parent_that_was_not_sampled_has_no_children_here(collected):
    with running_server(hub(), ServerOptions(port=0, grpc_port=0)) as url:
        for flags in ("00", "01"):
            parent = f"00-{TRACE[:-2]}{flags}-{PARENT}-{flags}"
            httpx.post(f"{url}/v2/models/echo/infer", json=ECHO, headers={"traceparent": parent})
        collected.wait(lambda spans: len(spans) == 3)
    assert {span.trace for span in collected.spans} == {TRACE[:-2] + "01"}


@pytest.mark.parametrize("headers", [[], [("traceparent", "nonsense")], [("traceparent", TRACEPARENT)] * 2])
def test_without_one_clear_parent_a_trace_begins_here(collected, headers):
    with running_server(hub(), ServerOptions(port=0, grpc_port=0)) as url:
        assert httpx.post(f"{url}/v2/models/echo/infer", json=ECHO, headers=headers).status_code == 200
        spans = collected.wait(lambda spans: len(spans) == 3)
    server = one(spans, "POST /v2/models/{model}/infer")
    assert (server.parent, server.trace != TRACE) == ("", True)


def test_the_environment_says_how_much_and_under_what_name(collected, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.2")
    with running_server(hub(), ServerOptions(port=0, grpc_port=0)) as url, httpx.Client() as client:
        for _ in range(200):
            client.post(f"{url}/v2/models/echo/infer", json=ECHO)
    assert 3 * 10 < len(collected.spans) < 3 * 80  # 40 of 200; seven standard deviations either way
    assert {span.resource["service.name"] for span in collected.spans} == {"mine"}


def test_a_collector_that_is_away_changes_nothing_but_the_log(monkeypatch, capfd):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    with running_server(hub(), ServerOptions(port=0, grpc_port=0)) as url, httpx.Client() as client:
        for _ in range(100):
            assert client.post(f"{url}/v2/models/echo/infer", json=ECHO).status_code == 200
        time.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 2 * telemetry.CLOSE_SECONDS + 2
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["level"] for line in told if line["event"] == "traces could not be sent"] == ["warning"]


@pytest.mark.parametrize("name", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"])
def test_it_can_be_off(name, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(*name.split("="))
    assert telemetry.telemetry_of(asked=True) is None


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("OTEL_BSP_MAX_QUEUE_SIZE", "10", "max_export_batch_size must be"),
     ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be")],
)  # fmt: skip
def test_settings_that_it_does_not_take(monkeypatch, name, value, why):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        telemetry.telemetry_of(asked=True)
    said, hint = caught.value.message.split("\n")
    assert said.startswith(f"OpenTelemetry does not start with the environment's settings: got {why}")
    assert name in hint


def test_a_clients_header_is_not_logged_and_hides_no_trouble(collected, capfd, monkeypatch):
    """Nothing but a client's mistake: a log that tells of it holds what it wrote, and for a minute nothing else."""
    monkeypatch.setattr(telemetry._Journal, "_EVERY", 0.0)  # whatever was told of in this minute
    with running_server(hub(), ServerOptions(port=0, grpc_port=0)) as url:
        headers = {"traceparent": TRACEPARENT, "tracestate": "my secret token=hunter2 hunter2"}
        assert httpx.post(f"{url}/v2/models/echo/infer", json=ECHO, headers=headers).status_code == 200
        collected.wait(lambda spans: len(spans) == 3)
        logging.getLogger("opentelemetry.exporter.otlp.proto.http").warning("the real trouble")
    said = capfd.readouterr().err
    assert "hunter2" not in said
    assert '"reason":"the real trouble"' in said


def test_nothing_is_sent_where_nobody_asks_for_it(monkeypatch):
    for name in telemetry._ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert telemetry.telemetry_of(asked=False) is None


def test_without_the_extra_it_is_refused_or_said(monkeypatch, capfd):
    monkeypatch.setattr(telemetry, "_NEEDED", ("no_such_package.at_all",))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"OpenTelemetry is not installed here.*\n.*pip install 'tailorbird\[otel\]'"):
        telemetry.telemetry_of(asked=True)
    assert telemetry.telemetry_of(asked=False) is None
    assert json.loads(capfd.readouterr().err)["event"] == "traces are off"
