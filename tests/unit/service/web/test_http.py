"""The ASGI callable, without a socket: statuses, headers, limits."""

import asyncio
import gzip
import json

import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.service.limits import Limits
from tailorbird.service.web.http import HttpService
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.descriptions import EXTENSIONS
from tailorbird.serving.hub import FailedModel, Hub
from tests.protocol.engines import echo_model, fake_model

ECHO = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}
LIMITS = Limits(body_bytes=1000, buffered_bytes=1500)


def burn(_):
    raise RuntimeError("secret /etc/path")


def nan(inputs):
    return {"y": inputs["x"] * np.float32(np.nan)}


@pytest.fixture(scope="module")
def service():
    models = [echo_model("echo", DType.FP32), fake_model("tiny"), echo_model("slow", DType.FP32, delay=0.1)]
    signature = models[0].signature
    models += [
        fake_model("hot", signature=signature, function=burn),
        fake_model("nan", signature=signature, function=nan),
    ]
    hub = Hub(models, [FailedModel("late", 1, "the reason")])
    yield HttpService(DataPlane(hub, "1.2.3"), LIMITS)
    hub.close()


class Client:
    """One request to the callable."""

    def __init__(self, service, method, path, body=b"", headers=(), parts=None, gone=False):
        self.scope = {"type": "http", "method": method, "raw_path": path.encode(), "headers": list(headers)}
        self.service = service
        self.parts = list(parts if parts is not None else [body])
        self.gone = gone
        self.received = 0
        self.sent = []

    async def receive(self):
        self.received += 1
        await asyncio.sleep(0)
        if not self.parts:
            return {"type": "http.disconnect"}
        part = self.parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts) or self.gone}

    async def send(self, message):
        self.sent.append(message)

    async def __call__(self):
        await self.service(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self):
        assert int(self.headers["content-length"]) == len(self.sent[1]["body"])
        return self.sent[1]["body"]

    @property
    def json(self):
        return json.loads(self.body)


def ask(*arguments, **fields):
    return asyncio.run(Client(*arguments, **fields)())


def infer(service, request=ECHO, model="echo", **fields):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return ask(service, "POST", f"/v2/models/{model}/infer", body, **fields)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/v2", 200, {"name": "tailorbird", "version": "1.2.3", "extensions": list(EXTENSIONS)}),
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 503, {"ready": False}),
        ("/v2/models/echo/ready", 200, {"name": "echo", "ready": True}),
        ("/v2/models/echo/versions/1/ready", 200, {"name": "echo", "ready": True}),
        ("/v2/models/late/ready", 503, {"name": "late", "ready": False}),
        ("/v2/models/no/ready", 404, {"error": "unknown model 'no'\nHint: known: echo, hot, late, nan, slow, tiny"}),
        ("/v2/models/echo/versions/9", 404, {"error": "model 'echo' has no version 9\nHint: versions: 1"}),
        ("/v2/nothing", 404, {"error": "unknown path '/v2/nothing'\nHint: the server's operations begin with /v2"}),
        (
            "/v2/models/late",
            503,
            {"error": "model 'late' is not ready: it failed to load\nHint: the server's log has the reason"},
        ),
        (
            "/v2/models/echo",
            200,
            {
                "name": "echo",
                "versions": ["1"],
                "platform": "fake_platform",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
            },
        ),
    ],
)
def test_what_can_be_read(service, path, status, body):
    reply = ask(service, "GET", path)
    assert (reply.status, reply.json, reply.headers["content-type"]) == (status, body, "application/json")


def test_a_wrong_method_names_the_right_one(service):
    reply = ask(service, "GET", "/v2/models/echo/infer")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.json == {"error": "method GET does not apply here: expected POST"}


def test_json_in_and_out(service):
    reply = infer(service, {**ECHO, "id": "9"})
    assert reply.status == 200
    assert "inference-header-content-length" not in reply.headers
    assert reply.json == {
        "model_name": "echo",
        "model_version": "1",
        "id": "9",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}],
    }


def test_binary_in_and_out(service):
    stated = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    text = json.dumps({"inputs": [stated], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    data = np.array([1, np.nan], np.float32).tobytes()
    length = (b"inference-header-content-length", b"%d" % len(text))
    reply = infer(service, text + data, headers=[length])
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    split = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.body[:split])["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    ]
    assert reply.body[split:] == data


def test_a_raw_body(service):
    reply = infer(service, bytes(4), headers=[(b"inference-header-content-length", b"0")])
    assert reply.status == 200
    assert reply.body.endswith(b"}" + bytes(4))


def test_compressed(service):
    body = gzip.compress(json.dumps(ECHO).encode())
    assert infer(service, body, headers=[(b"content-encoding", b"gzip")]).status == 200


BIG = "\nHint: send fewer rows at once, or raise the server's limit"
LENGTH = b"inference-header-content-length"


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"request": b""}, 400, "the request's JSON is not valid: got Input data was truncated"),
        ({"model": "no"}, 404, "unknown model 'no'\nHint: known: echo, hot, late, nan, slow, tiny"),
        ({"model": "echo/versions/2"}, 404, "model 'echo' has no version 2\nHint: versions: 1"),
        ({"model": "tiny"}, 400, "missing input 'k': expected x FP32[N,4], k INT64[N,1]"),
        ({"headers": [(LENGTH, b"-1")]}, 400, "Inference-Header-Content-Length is no length: got '-1'"),
        ({"headers": [(LENGTH, b"1e1")]}, 400, "Inference-Header-Content-Length is no length: got '1e1'"),
        ({"headers": [(LENGTH, b"9" * 19)]}, 400, f"Inference-Header-Content-Length is no length: got '{'9' * 19}'"),
        (
            {"headers": [(LENGTH, b"1000")], "request": b"{}"},
            400,
            "Inference-Header-Content-Length is out of range: got 1000, expected 0 to 2, the body's length",
        ),
        ({"headers": [(LENGTH, b"1")] * 2}, 400, "the header inference-header-content-length is given twice"),
        (
            {"headers": [(b"content-encoding", b"br")]},
            501,
            "unknown Content-Encoding: got 'br', expected gzip, deflate or identity",
        ),
        (
            {"headers": [(b"content-encoding", b"gzip")], "request": gzip.compress(bytes(2000))},
            413,
            "the request's body is too large: expected at most 1000 bytes" + BIG,
        ),
        (
            {"model": "nan"},
            400,
            "output 'y' holds NaN or Infinity, which JSON cannot carry\n"
            'Hint: ask for it as binary data: "parameters": {"binary_data": true}',
        ),
    ],
)
def test_what_is_refused(service, fields, status, error):
    reply = infer(service, **fields)
    assert (reply.status, reply.json) == (status, {"error": error})


def test_an_unknown_encoding_lists_the_known(service):
    assert infer(service, headers=[(b"content-encoding", b"br")]).headers["accept-encoding"] == "gzip, deflate"


def test_an_announced_large_body_is_not_read(service):
    reply = infer(service, headers=[(b"content-length", b"1001")])
    assert (reply.status, reply.received, reply.headers["connection"]) == (413, 0, "close")
    assert reply.json == {"error": "the request's body is too large: got 1001 bytes, expected at most 1000 bytes" + BIG}


def test_a_body_in_pieces_is_counted_as_it_arrives(service):
    reply = infer(service, parts=[b"x" * 400] * 100)
    assert (reply.status, reply.received) == (413, 3)
    text = json.dumps(ECHO).encode()
    assert infer(service, parts=[text[:9], b"", text[9:]]).status == 200


def test_a_client_that_left_is_not_answered(service):
    assert infer(service, parts=[b"{"], gone=True).sent == []
    assert service._bodies.held == 0


def test_bodies_held_at_once_are_bounded(service):
    body = json.dumps({**ECHO, "pad": "x" * 800}).encode()

    async def main():
        clients = [Client(service, "POST", "/v2/models/slow/infer", body) for _ in range(2)]
        return await asyncio.gather(*(client() for client in clients))

    first, second = asyncio.run(main())
    assert first.status == 200
    assert (second.status, second.headers["retry-after"]) == (503, "1")
    assert second.json["error"].startswith(
        f"the server holds too many bodies at once: got {len(body)} bytes, expected at most"
    )
    assert service._bodies.held == 0


def test_a_fault_of_the_server_is_opaque_and_explained_in_the_log(service, capsys):
    reply = infer(service, model="hot")
    assert reply.status == 500
    assert "secret" not in reply.json["error"]
    line = json.loads(capsys.readouterr().err)
    assert reply.json["error"] == (
        f"the server failed to answer: error {line['error_id']}\n"
        "Hint: the server's log explains it under that identifier"
    )
    assert (line["event"], line["error"]) == ("request failed", "BackendError")
    assert line["message"] == "fake could not run the engine: got secret /etc/path"


def test_an_error_nobody_foresaw_is_logged_with_its_trace(capsys):
    class Broken:
        def server_metadata(self):
            raise KeyError("oops")

    reply = ask(HttpService(Broken()), "GET", "/v2")
    line = json.loads(capsys.readouterr().err)
    assert (reply.status, line["error"]) == (500, "KeyError")
    assert "server_metadata" in line["trace"]


def test_a_full_queue_says_when_to_come_back():
    hub = Hub([echo_model("echo", DType.FP32, outstanding=0)])
    reply = infer(HttpService(DataPlane(hub)))
    hub.close()
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.json["error"].startswith("too many requests are waiting: got 0, expected fewer than 0")
