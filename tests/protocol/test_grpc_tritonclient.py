"""The official client over gRPC against a real server with real engines."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tailorbird.domain.dtype import DType
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.service.limits import Limits
from tailorbird.serving.descriptions import EXTENSIONS
from tailorbird.serving.hub import FailedModel, Hub
from tests.protocol import engines
from tests.protocol.grpc_server import grpc_server

ROWS = 3
X = np.arange(4 * ROWS, dtype=np.float32).reshape(ROWS, 4)
K = np.arange(ROWS, dtype=np.int64).reshape(ROWS, 1)
PLAIN = [dtype for dtype in DType if dtype not in (DType.BF16, DType.BYTES)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    models = [
        engines.real_model("onnxruntime", folder, version=1),
        engines.real_model("openvino", folder, version=2),
        *(engines.echo_model(dtype.lower(), dtype) for dtype in DType),
        engines.fake_model("broken", function=lambda inputs: 1 / 0),
    ]
    with grpc_server(Hub(models, [FailedModel("late", 1, "/secret/path")]), Limits(body_bytes=1 << 20)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name, datatype, array):
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array)
    return made


def inputs():
    return [tensor("x", "FP32", X), tensor("k", "INT64", K)]


def check(result):
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * X + K)
    np.testing.assert_array_equal(result.as_numpy("n"), K + 1)


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert not client.is_server_ready()  # one model failed
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "7")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("late")
    about = client.get_server_metadata(as_json=True)
    assert about == {"name": "tailorbird", "version": "1.2.3", "extensions": list(EXTENSIONS)}
    described = client.get_model_metadata("tiny", as_json=True)
    assert (described["versions"], described["platform"]) == (["1", "2"], "openvino")
    assert described["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}
    assert client.get_model_metadata("tiny", "1").platform == "onnxruntime_onnx"


@pytest.mark.parametrize("version", ["", "1", "2"])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(client, version, compression):
    options = {"model_version": version, "request_id": "r1", "compression_algorithm": compression}
    result = client.infer("tiny", inputs(), outputs=[triton.InferRequestedOutput(name) for name in "yn"], **options)
    check(result)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("tiny", version or "2", "r1")
    assert [output.datatype for output in response.outputs] == ["FP32", "INT64"]


def test_outputs_asked_for_come_in_that_order(client):
    asked = [triton.InferRequestedOutput(name) for name in ("n", "y")]
    assert [one.name for one in client.infer("tiny", inputs(), outputs=asked).get_response().outputs] == ["n", "y"]
    only = client.infer("tiny", inputs(), outputs=asked[:1])
    assert only.as_numpy("y") is None
    np.testing.assert_array_equal(only.as_numpy("n"), K + 1)


@pytest.mark.parametrize("dtype", PLAIN)
def test_every_dtype(client, dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype.numpy)
    if dtype.is_float:
        values[1:4] = np.nan, np.inf, -np.inf
    elif dtype is not DType.BOOL:
        bounds = np.iinfo(dtype.numpy)
        values[1:3] = bounds.min, bounds.max
    answer = client.infer(dtype.lower(), [tensor("x", dtype, values)]).as_numpy("y")
    assert answer.dtype == values.dtype
    np.testing.assert_array_equal(answer, values)


def test_brain_floats_keep_their_bits(client):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    values = np.array([1.0, -2.5, 3.0], ml_dtypes.bfloat16)
    result = client.infer("bf16", [tensor("x", "BF16", values)])
    assert result.get_response().outputs[0].datatype == "BF16"
    np.testing.assert_array_equal(result.as_numpy("y"), values)


def test_strings(client):
    words = np.array([b"tailor", "Schneider č".encode(), b"\xff\x00", b""], dtype=object)
    assert client.infer("bytes", [tensor("x", "BYTES", words)]).as_numpy("y").tolist() == words.tolist()


def test_typed_contents(stub):
    request = service_pb2.ModelInferRequest(model_name="tiny", id="typed")
    request.inputs.add(name="x", datatype="FP32", shape=X.shape).contents.fp32_contents[:] = X.ravel()
    request.inputs.add(name="k", datatype="INT64", shape=K.shape).contents.int64_contents[:] = K.ravel()
    response = stub.ModelInfer(request)
    assert response.id == "typed"
    np.testing.assert_array_equal(
        np.frombuffer(response.raw_output_contents[0], np.float32).reshape(X.shape), 2 * X + K
    )


@pytest.mark.parametrize(
    ("model", "version", "names", "code", "text"),
    [
        ("tiny", "", "x", "INVALID_ARGUMENT", "missing input 'k': expected x FP32[N,4], k INT64[N,1]"),
        ("tiny", "7", "xk", "NOT_FOUND", "model 'tiny' has no version 7\nHint: versions: 1, 2"),
        ("tinny", "", "xk", "NOT_FOUND", "unknown model 'tinny'\nHint: did you mean 'tiny'?"),
        ("", "", "xk", "INVALID_ARGUMENT", "the request names no model: got 0 characters, expected 1 to 128"),
        ("tiny", "v1", "xk", "INVALID_ARGUMENT",
         "the model's version is no version: got 'v1', expected digits, or nothing"),
        ("late", "", "xk", "UNAVAILABLE",
         "model 'late' is not ready: it failed to load\nHint: the server's log has the reason"),
    ],
)  # fmt: skip
def test_errors_reach_the_client(client, model, version, names, code, text):
    chosen = [one for one in inputs() if one.name() in names]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, chosen, model_version=version)
    assert (caught.value.status(), caught.value.message()) == (f"StatusCode.{code}", text)


def test_long_words_of_an_error_arrive(client):
    """They travel in a header, and a client refuses headers that are too long."""
    with pytest.raises(InferenceServerException) as caught:
        client.infer("fp32", [tensor("č" * 1024, "FP32", X[0])])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message().startswith("unknown input 'čččč")


def test_metadata_of_what_is_not_there(client):
    with pytest.raises(InferenceServerException, match=r"unknown model 'other'") as caught:
        client.get_model_metadata("other")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_a_fault_of_the_server_is_opaque(client, capfd):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("broken", inputs())
    assert caught.value.status() == "StatusCode.INTERNAL"
    assert caught.value.message().startswith("the server failed to answer: error ")
    identifier = caught.value.message().split()[6]
    assert "division" not in caught.value.message()
    (line,) = [line for line in capfd.readouterr().err.splitlines() if identifier in line]
    assert "fake could not run the engine: got division by zero" in line


def test_what_is_not_offered_says_so(client, stub):
    for call, operation in (
        (client.get_cuda_shared_memory_status, "CudaSharedMemoryStatus"),
        (client.get_trace_settings, "TraceSetting"),
        (client.get_log_settings, "LogSettings"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
        assert caught.value.message() == f"the operation {operation} is not offered by this server"


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_messages_over_the_limit(server, client, compression):
    """A bomb of zeros is as small as its gzip on the way, and must not be unpacked past the limit either."""
    zeros = np.zeros(8 << 20, np.uint8)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("uint8", [tensor("x", "UINT8", zeros)], compression_algorithm=compression)
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert server.held == 0


def test_health_of_grpc(server):
    def ask(service):
        named = b"\n" + bytes([len(service)]) + service if service else b""
        return check(named)

    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert ask(b"") == b"\x08\x02"  # NOT_SERVING: one model failed
        assert ask(b"inference.GRPCInferenceService") == b"\x08\x02"
        assert ask(b"tiny") == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"other")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# --- streams ---


def stream(client, send):
    """Everything that a stream answers, as (error, result)."""
    answers = SimpleQueue()
    client.start_stream(lambda result, error: answers.put((error, result)))
    sent = send(client.async_stream_infer)
    client.stop_stream()
    found = [answers.get(timeout=5) for _ in range(sent)]
    assert answers.empty()
    return found


def test_a_stream_answers_in_order_and_outlives_errors(server):
    def send(infer):
        for index in range(40):
            model = "tinny" if index % 4 == 1 else "fp32"
            infer(model, [tensor("x", "FP32", np.full(2, index, np.float32))], request_id=str(index))
        return 40

    with triton.InferenceServerClient(server.address) as client:
        for index, (error, result) in enumerate(stream(client, send)):
            if index % 4 == 1:
                assert "unknown model 'tinny'" in error.message()
            else:
                assert result.get_response().id == str(index)
                assert result.as_numpy("y").tolist() == [index, index]
    assert server.held == 0


def test_an_error_in_a_stream_names_its_request(stub):
    requests = [service_pb2.ModelInferRequest(model_name="tinny", id="the third")]
    (answer,) = stub.ModelStreamInfer(iter(requests))
    assert answer.infer_response.id == "the third"
    assert answer.error_message.startswith("unknown model 'tinny'")


def test_every_message_of_a_stream_gets_an_answer(server):
    draw = np.random.default_rng(5)
    messages = [draw.bytes(int(draw.integers(0, 60))) for _ in range(300)]
    with grpc.insecure_channel(server.address) as channel:
        answers = list(channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(messages)))
    assert len(answers) == 300
    assert all(service_pb2.ModelStreamInferResponse.FromString(answer).error_message for answer in answers)
    assert server.held == 0


def test_an_idle_stream_does_not_hold_up_a_drain():
    with grpc_server(Hub([engines.echo_model("slow", DType.FP32, delay=0.3)]), grace=60) as running:
        with triton.InferenceServerClient(running.address) as client:
            answers = SimpleQueue()
            client.start_stream(lambda result, error: answers.put((error, result)))
            client.async_stream_infer("slow", [tensor("x", "FP32", np.ones(1, np.float32))])
            while not running.held:
                time.sleep(0.01)
            begun = time.monotonic()
            running.drain()
            error, result = answers.get(timeout=5)
            assert error is None
            assert result.as_numpy("y").tolist() == [1]
            client.stop_stream()
        running.join()
        assert time.monotonic() - begun < 5


# --- leaving, waiting, crowding ---


def recorded(delay):
    """A slow model, and the first number of each request that it really ran."""
    seen = []
    signature = Signature((TensorSpec("x", DType.FP32, ("N",)),), (TensorSpec("y", DType.FP32, ("N",)),))

    def run(given):
        seen.append(int(given["x"][0]))
        time.sleep(delay)
        return {"y": given["x"]}

    return engines.fake_model("slow", signature=signature, function=run), seen


def numbered(number):
    return [tensor("x", "FP32", np.array([number], np.float32))]


def test_a_client_that_leaves_takes_its_request_along():
    model, seen = recorded(0.3)
    with grpc_server(Hub([model])) as running, triton.InferenceServerClient(running.address) as client:
        answers = SimpleQueue()
        calls = []
        for number in range(3):
            calls.append(
                client.async_infer("slow", numbered(number), lambda result, error: answers.put((error, result)))
            )
            while model.instance.outstanding <= number:
                time.sleep(0.005)
        calls[1].cancel()
        found = [answers.get(timeout=5) for _ in range(3)]
        assert sorted(result.as_numpy("y")[0] for error, result in found if error is None) == [0, 2]
        assert [str(error.status()) for error, _ in found if error] == ["StatusCode.CANCELLED"]
        assert running.held == 0
    assert seen == [0, 2]


def test_a_deadline_that_passes_while_the_request_waits():
    model, seen = recorded(0.5)
    with grpc_server(Hub([model])) as running, triton.InferenceServerClient(running.address) as client:
        client.async_infer("slow", numbered(0), lambda result, error: None)
        while not seen:
            time.sleep(0.005)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("slow", numbered(1), client_timeout=0.1)
        # Both ends know the deadline: which of the two speaks first is chance.
        assert caught.value.status() in ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE")
        assert client.infer("slow", numbered(2)).as_numpy("y").tolist() == [2]
    assert seen == [0, 2]


def test_a_thousand_at_once_each_get_their_own_rows():
    signature = Signature((TensorSpec("x", DType.FP32, ("N", 16)),), (TensorSpec("y", DType.FP32, ("N", 16)),))
    model = engines.fake_model(signature=signature, function=lambda given: {"y": -given["x"]}, outstanding=1000)
    answers, problems = {}, []
    done = threading.Semaphore(0)

    def note(number):
        def call(result, error):
            if error:
                problems.append(error)
            else:
                answers[number] = result.as_numpy("y")
            done.release()

        return call

    with grpc_server(Hub([model])) as running, triton.InferenceServerClient(running.address) as client:
        for number in range(1000):
            rows = np.full((1 + number % 3, 16), number, np.float32)
            client.async_infer("fake", [tensor("x", "FP32", rows)], note(number), request_id=str(number))
        for _ in range(1000):
            assert done.acquire(timeout=30)
    assert not problems
    assert all((answers[number] == -number).all() for number in range(1000))
    assert {number: len(rows) for number, rows in answers.items()} == {one: 1 + one % 3 for one in range(1000)}


def test_overload_is_unavailable():
    model = engines.echo_model("slow", DType.FP32, delay=0.2, outstanding=1)
    with grpc_server(Hub([model])) as running, triton.InferenceServerClient(running.address) as client:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(client.infer, "slow", numbered(0))
            while not model.instance.outstanding:
                time.sleep(0.005)
            with pytest.raises(InferenceServerException, match="too many requests are waiting") as caught:
                client.infer("slow", numbered(1))
            assert first.result().as_numpy("y").tolist() == [0]
        assert caught.value.status() == "StatusCode.UNAVAILABLE"


def test_messages_held_at_once_are_bounded():
    model = engines.echo_model("slow", DType.FP32, delay=0.3)
    with grpc_server(Hub([model]), Limits(buffered_bytes=1000)) as running:
        with triton.InferenceServerClient(running.address) as client, ThreadPoolExecutor(2) as pool:
            rows = [tensor("x", "FP32", np.ones(60, np.float32))]
            first = [pool.submit(client.infer, "slow", rows) for _ in range(2)]
            while model.instance.outstanding < 2:
                time.sleep(0.005)
            large = [tensor("x", "FP32", np.ones(250, np.float32))]
            with pytest.raises(InferenceServerException, match=r"^.*the server holds too many messages at once: got "):
                client.infer("slow", large)
            assert all(one.result().as_numpy("y").sum() == 60 for one in first)
        assert running.held == 0


def test_calls_at_once_are_bounded():
    model = engines.echo_model("slow", DType.FP32, delay=0.5)
    with (
        grpc_server(Hub([model]), Limits(grpc_calls=2)) as running,
        triton.InferenceServerClient(running.address) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        first = [pool.submit(client.infer, "slow", numbered(one)) for one in range(2)]
        while model.instance.outstanding < 2:
            time.sleep(0.005)
        with pytest.raises(InferenceServerException) as caught:
            client.is_server_live()
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert [one.result().as_numpy("y")[0] for one in first] == [0, 1]


def test_the_end_waits_no_longer_than_its_grace():
    model = engines.echo_model("slow", DType.FP32, delay=1.5)
    with grpc_server(Hub([model]), grace=0.2) as running, triton.InferenceServerClient(running.address) as client:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.infer, "slow", numbered(0))
            while not model.instance.outstanding:
                time.sleep(0.005)
            begun = time.monotonic()
            running.drain()
            running.join()
            assert time.monotonic() - begun < 1.2
            with pytest.raises(InferenceServerException) as caught:
                first.result()
        assert caught.value.status() in {"StatusCode.CANCELLED", "StatusCode.UNAVAILABLE"}


def test_accepted_requests_are_answered_before_the_end():
    model = engines.echo_model("slow", DType.FP32, delay=0.3)
    with grpc_server(Hub([model])) as running, triton.InferenceServerClient(running.address) as client:
        with ThreadPoolExecutor(3) as pool:
            first = [pool.submit(client.infer, "slow", numbered(one)) for one in range(3)]
            while model.instance.outstanding < 3:
                time.sleep(0.005)
            running.drain()
            assert [one.result().as_numpy("y")[0] for one in first] == [0, 1, 2]
        running.join()
        with pytest.raises(InferenceServerException) as caught:
            client.is_server_live()
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
