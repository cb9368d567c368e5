"""The guard over gRPC: no method comes past it, nor any message of one."""

import queue
import time

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

import grpc

from tailorbird.service.guard import tokenfile
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.scopes import ADMINISTRATION, OF_ALL_MODELS, SCOPES, Scope
from tailorbird.service.limits import Limits
from tailorbird.service.routes import Operation
from tailorbird.service.rpc import schema
from tailorbird.service.rpc.gate import METHODS
from tailorbird.service.rpc.servicer import Servicer
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub
from tests.protocol.doors import locked_server, make_tokens

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
STREAMED = f"/{schema.INFERENCE}/ModelStreamInfer"
UNKNOWN = [
    *("/inference.GRPCInferenceService/Nothing", "/inference.GRPCInferenceService/serverlive"),
    *("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.health.v1.Health/Watch"),
    *("/grpc.health.v1.Health/", "//inference.GRPCInferenceService/ServerLive", "/", "/x"),
]


def message(method, model="alpha"):
    """A request that is in order, about a model where the method is about one."""
    kind = schema.POOL.FindServiceByName(method.split("/")[1]).FindMethodByName(method.split("/")[2]).input_type
    request = schema._message(kind.full_name)()
    if "model_name" in kind.fields_by_name:
        request.model_name = model
    elif "name" in kind.fields_by_name and "SharedMemory" not in method:
        request.name = model
    if kind.full_name == "inference.ModelInferRequest":
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[1])
        tensor.contents.fp32_contents.append(7)
    return request.SerializeToString()


def known(method):
    """Whether its messages are compiled here."""
    service, name = method.split("/")[1:]
    return name in schema.POOL.FindServiceByName(service).methods_by_name


def call(channel, method, content=b"", token=None, metadata=()):
    """The code and the words of the answer; for a stream also what it says instead."""
    shown = (*metadata, ("authorization", f"Bearer {token}")) if token else metadata
    try:
        if method == STREAMED:
            (answer,) = channel.stream_stream(method)(iter([content]), metadata=shown, timeout=20)
            return grpc.StatusCode.OK, schema.ModelStreamInferResponse.FromString(answer).error_message
        channel.unary_unary(method)(content, metadata=shown, timeout=20)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    return path, make_tokens(path)


@pytest.fixture(scope="module")
def channel(tokens):
    with (
        locked_server(Guarding(tokens=tokens[0], admin_on_public=True)) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        yield channel


def test_the_table_names_every_method_that_is_answered_and_every_one_that_is_published():
    handlers = Servicer(DataPlane(Hub()), Limits()).handlers()
    answered = {f"/{service}/{name}" for service, methods in handlers.items() for name in methods}
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from tritonclient.grpc import service_pb2

    published = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    assert set(METHODS) == answered
    assert {f"/{schema.INFERENCE}/{method.name}" for method in published} <= answered
    over_http_only = {Operation.STATUS_PAGE, Operation.METRICS, Operation.ROLLOUTS}
    assert set(METHODS.values()) - {None} == set(Operation) - over_http_only


@pytest.mark.parametrize("method", [*METHODS, *UNKNOWN])
def test_without_a_good_token_no_method_is_answered(channel, tokens, method):
    words = "a token is needed\nHint: send it as 'Authorization: Bearer TOKEN'"
    assert call(channel, method) == (UNAUTHENTICATED, words)
    for bad in (tokens[1]["expired"], tokens[1]["revoked"], "x", tokens[1]["all"] + "x"):
        assert call(channel, method, token=bad) == (UNAUTHENTICATED, "the token is not valid")
    twice = [("authorization", f"Bearer {tokens[1]['all']}")] * 2
    assert call(channel, method, metadata=twice) == (UNAUTHENTICATED, "the token is not valid")
    basic = (("authorization", f"Basic {tokens[1]['all']}"),)
    assert call(channel, method, metadata=basic) == (UNAUTHENTICATED, "the token is not valid")


@pytest.mark.parametrize("method", METHODS)
def test_each_scope_is_good_for_its_methods_alone(channel, tokens, method):
    operation = METHODS[method]
    content = message(method) if known(method) else b""
    for scope in Scope:
        code, words = call(channel, method, content, tokens[1][scope.value])
        if operation is None:
            assert code is grpc.StatusCode.UNIMPLEMENTED
        elif scope in SCOPES[operation]:
            assert code not in (UNAUTHENTICATED, DENIED), words
            assert "not allowed" not in words
        else:
            expected = " or ".join(sorted(SCOPES[operation]))
            assert (code, words) == (
                DENIED,
                f"the operation '{operation}' is not allowed: expected a token with the scope {expected}",
            )


@pytest.mark.parametrize("method", [method for method in METHODS if known(method)])
def test_a_token_of_some_models_sees_no_other(channel, tokens, method):
    some, operation = tokens[1]["some"], METHODS[method]
    if operation in OF_ALL_MODELS:
        assert call(channel, method, message(method), some)[0] is DENIED
    elif message(method) != message(method, "beta"):
        assert "not allowed" not in call(channel, method, message(method), some)[1]
        for name in ("beta", "nothing"):
            code, words = call(channel, method, message(method, name), some)
            assert words == f"model '{name}' is not allowed with this token"
            assert code is (grpc.StatusCode.OK if method == STREAMED else DENIED)


def test_lists_and_hints_name_only_what_a_token_may_see(channel, tokens):
    shown = (("authorization", f"Bearer {tokens[1]['some']}"),)

    def ask(name, kind, request=b""):
        return kind.FromString(channel.unary_unary(f"/{schema.INFERENCE}/{name}")(request, metadata=shown))

    index = ask("RepositoryIndex", schema.RepositoryIndexResponse)
    stats = ask("ModelStatistics", schema.ModelStatisticsResponse)
    assert {one.name for one in index.models} == {one.name for one in stats.model_stats} == {"alpha"}
    for method in (f"/{schema.INFERENCE}/ModelInfer", STREAMED, f"/{schema.INFERENCE}/ModelMetadata"):
        assert call(channel, method, message(method, "alphabet"), tokens[1]["some"])[1] == "unknown model 'alphabet'"
        assert "alpha" in call(channel, method, message(method, "alphabet"), tokens[1]["all"])[1].split("Hint")[1]


def test_health_of_a_model_is_its_clients_matter(tokens):
    """The method is open where health is; the models that a client names in it are not."""
    method = f"/{schema.HEALTH}/Check"
    server = schema.HealthCheckRequest().SerializeToString()
    alpha, beta, nothing = (
        schema.HealthCheckRequest(service=name).SerializeToString() for name in ("alpha", "beta", "nothing")
    )
    with (
        locked_server(Guarding(tokens=tokens[0], open_health=True)) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        assert call(channel, method, server)[0] is grpc.StatusCode.OK
        assert call(channel, f"/{schema.INFERENCE}/ServerLive")[0] is grpc.StatusCode.OK
        assert call(channel, f"/{schema.INFERENCE}/ServerMetadata")[0] is UNAUTHENTICATED
        assert call(channel, method, alpha) == call(channel, method, nothing)
        assert call(channel, method, alpha)[0] is UNAUTHENTICATED
    with (
        locked_server(Guarding(tokens=tokens[0])) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        assert call(channel, method, server)[0] is UNAUTHENTICATED
        assert call(channel, method, alpha, tokens[1]["some"])[0] is grpc.StatusCode.OK
        assert call(channel, method, beta, tokens[1]["some"])[0] is DENIED


def test_the_message_of_a_refused_call_is_not_read(channel):
    """A message over the limit, which gRPC would refuse with another code if it read it."""
    method = f"/{schema.INFERENCE}/ModelInfer"
    assert call(channel, method, bytes(70 << 20))[0] is UNAUTHENTICATED


def test_one_unknown_to_everybody_is_unknown_to_those_who_are_let_in(channel, tokens):
    for method in UNKNOWN:
        assert call(channel, method, token=tokens[1]["all"])[0] is grpc.StatusCode.UNIMPLEMENTED


def test_without_a_lock_only_administration_is_refused():
    with locked_server() as running, grpc.insecure_channel(running.grpc) as channel:
        for method, operation in METHODS.items():
            code, words = call(channel, method, message(method) if known(method) else b"")
            assert (code is DENIED) == (operation in ADMINISTRATION), (method, words)


def test_a_stream_ends_to_be_answered_when_its_token_is_revoked(tmp_path):
    tokens = make_tokens(tmp_path / "tokens.json")
    shown = [("authorization", f"Bearer {tokens['infer']}")]
    content = message(STREAMED)
    with (
        locked_server(Guarding(tokens=tmp_path / "tokens.json")) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        sent = queue.Queue()
        answers = channel.stream_stream(STREAMED)(iter(sent.get, None), metadata=shown, timeout=30)

        def ask():
            sent.put(content)
            return schema.ModelStreamInferResponse.FromString(next(answers)).error_message

        assert ask() == ""
        with tokenfile.changing(tmp_path / "tokens.json") as known:
            known.clear()
        end = time.monotonic() + 10
        while (said := ask()) == "" and time.monotonic() < end:
            time.sleep(0.1)
        assert said == "the token is not valid"
        sent.put(None)


def test_the_official_client_shows_its_token(channel, tokens):
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    import numpy as np
    from tritonclient.utils import InferenceServerException

    with locked_server(Guarding(tokens=tokens[0])) as running, triton.InferenceServerClient(running.grpc) as client:
        tensor = triton.InferInput("x", [1], "FP32")
        tensor.set_data_from_numpy(np.ones(1, np.float32))
        headers = {"authorization": f"Bearer {tokens[1]['infer']}"}
        assert client.infer("alpha", [tensor], headers=headers).as_numpy("y").tolist() == [1]
        with pytest.raises(InferenceServerException, match="a token is needed"):
            client.infer("alpha", [tensor])
