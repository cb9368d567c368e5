"""What is refused behind the guard: other people's shared memory, and models over gRPC; counted and logged."""

import json
import secrets
import time

import httpx
import numpy as np
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

import grpc
import tritonclient.utils.shared_memory as segments

from tailorbird.domain.dtype import DType
from tailorbird.service.guard import tokenfile
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.scopes import Scope
from tailorbird.service.guard.tokens import issue
from tailorbird.service.rpc import schema
from tests.protocol.doors import ECHO, bearer, locked_server, make_tokens
from tests.protocol.engines import echo_model
from tests.protocol.test_guard_grpc import DENIED, STREAMED, call, message

INFER = f"/{schema.INFERENCE}/ModelInfer"
NO_MEMORY = "shared memory is not allowed with this token: expected a token with the scope admin"
IN_MEMORY = {"shared_memory_region": "theirs", "shared_memory_byte_size": 4}


@pytest.fixture
def tokens(tmp_path):
    found = make_tokens(tmp_path / "tokens.json")
    with tokenfile.changing(tmp_path / "tokens.json") as known:
        for name, scopes in (("both", {"infer", "admin"}), ("short", {"infer"})):
            found[name], record = issue(name, frozenset(map(Scope, scopes)))
            known[record.id] = record
    return found


@pytest.fixture
def running(tokens, tmp_path):
    models = [echo_model("alpha", DType.FP32), echo_model("beta", DType.FP32)]
    guarding = Guarding(tokens=tmp_path / "tokens.json", admin_on_public=True)
    with locked_server(guarding, models, client_shm=True, access_log=True) as found:
        yield found


@pytest.fixture
def theirs(running, tokens):
    """Somebody's region: 1.0 and what follows."""
    key = f"/tailorbird_test_{secrets.token_hex(6)}"
    handle = segments.create_shared_memory_region("theirs", key, 64)
    segments.set_shared_memory_region(handle, [np.ones(1, np.float32)])
    registered = httpx.post(
        f"{running.url}/v2/systemsharedmemory/region/theirs/register",
        json={"key": key, "byte_size": 64},
        headers=bearer(tokens["admin"]),
    )
    assert registered.status_code == 200
    yield handle
    segments.destroy_shared_memory_region(handle)


def first(handle):
    return segments.get_contents_as_numpy(handle, np.float32, [1])[0]


def read_it():
    return {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": IN_MEMORY}]}


def write_it():
    return {**ECHO, "outputs": [{"name": "y", "parameters": IN_MEMORY}]}


def in_proto(inputs, model="alpha"):
    request = schema.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1])
    output = request.outputs.add(name="y")
    if not inputs:
        tensor.contents.fp32_contents.append(7)
    where = (tensor if inputs else output).parameters
    where["shared_memory_region"].string_param = "theirs"
    where["shared_memory_byte_size"].int64_param = 4
    return request.SerializeToString()


def counted(running, tokens):
    text = httpx.get(f"{running.url}/metrics", headers=bearer(tokens["all"])).text
    lines = [line for line in text.splitlines() if line.startswith("tailorbird_refused_requests_total")]
    return {line.split("{")[1].split("}")[0].replace('"', ""): float(line.split()[-1]) for line in lines}


def logged(capfd, wanted):
    """The access log's lines; the last of them may come a moment after its answer."""
    lines = []
    end = time.monotonic() + 5
    while len(lines) < wanted and time.monotonic() < end:
        lines += [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"event":"request"' in line]
        time.sleep(0.01)
    return [(line["protocol"], line["status"], line["caller"]) for line in lines]


@pytest.mark.parametrize("name", ["infer", "some"])
@pytest.mark.parametrize("body", [read_it, write_it])
def test_over_http_a_token_without_the_right_neither_reads_nor_writes_a_region(running, tokens, theirs, name, body):
    reply = httpx.post(f"{running.url}/v2/models/alpha/infer", json=body(), headers=bearer(tokens[name]))
    assert (reply.status_code, reply.json()) == (403, {"error": NO_MEMORY})
    assert first(theirs) == 1
    assert counted(running, tokens) == {"protocol=http,reason=shared memory": 1}


@pytest.mark.parametrize("name", ["infer", "some"])
@pytest.mark.parametrize("inputs", [True, False])
def test_nor_over_grpc(running, tokens, theirs, name, inputs):
    with grpc.insecure_channel(running.grpc) as channel:
        assert call(channel, INFER, in_proto(inputs), tokens[name]) == (DENIED, NO_MEMORY)
        assert call(channel, STREAMED, in_proto(inputs), tokens[name]) == (grpc.StatusCode.OK, NO_MEMORY)
    assert first(theirs) == 1
    assert counted(running, tokens) == {"protocol=grpc,reason=shared memory": 2}


@pytest.mark.parametrize("name", ["both", "all"])
def test_who_may_register_may_use(running, tokens, theirs, name):
    reply = httpx.post(f"{running.url}/v2/models/alpha/infer", json=read_it(), headers=bearer(tokens[name]))
    assert reply.json()["outputs"][0]["data"] == [1.0]
    with grpc.insecure_channel(running.grpc) as channel:
        assert call(channel, INFER, in_proto(False), tokens[name]) == (grpc.StatusCode.OK, "")
    assert first(theirs) == 7


def test_requests_without_regions_are_as_ever(running, tokens):
    reply = httpx.post(f"{running.url}/v2/models/alpha/infer", json=ECHO, headers=bearer(tokens["some"]))
    assert reply.status_code == 200


def test_over_grpc_the_model_is_judged_before_a_tensor_is_read(running, tokens, theirs):
    bad = schema.ModelInferRequest(model_name="beta")
    bad.inputs.add(name="x", datatype="nothing", shape=[1])
    with grpc.insecure_channel(running.grpc) as channel:
        for content in (bad.SerializeToString(), in_proto(True, "beta")):
            assert call(channel, INFER, content, tokens["some"]) == (
                DENIED,
                "model 'beta' is not allowed with this token",
            )


def test_grpc_refusals_by_model_are_counted_and_logged(running, tokens, capfd):
    with grpc.insecure_channel(running.grpc) as channel:
        call(channel, INFER, message(INFER, "beta"), tokens["some"])
        call(channel, STREAMED, message(STREAMED, "beta"), tokens["some"])
        call(channel, INFER, b"\xff\xff", tokens["short"])
        metadata = f"/{schema.INFERENCE}/ModelMetadata"
        assert call(channel, metadata, message(metadata, "beta"), tokens["some"])[0] == DENIED
    assert counted(running, tokens) == {"protocol=grpc,reason=model": 3}
    assert logged(capfd, 3) == [
        ("grpc", "PERMISSION_DENIED", "token some"),
        ("grpc", "PERMISSION_DENIED", "token some"),
        ("grpc", "INVALID_ARGUMENT", "token short"),
    ]


def test_web_pages_are_counted(running, tokens):
    headers = {**bearer(tokens["admin"]), "origin": "https://elsewhere.example"}
    assert httpx.post(f"{running.url}/v2/repository/models/alpha/load", headers=headers).status_code == 403
    assert counted(running, tokens) == {"protocol=http,reason=browser": 1}


def test_what_the_guard_itself_refuses_is_counted_once(running, tokens):
    assert httpx.get(f"{running.url}/v2/models/beta", headers=bearer(tokens["some"])).status_code == 403
    assert counted(running, tokens) == {"protocol=http,reason=model": 1}
