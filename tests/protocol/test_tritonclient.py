"""The official client against a real server with real engines."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

import tritonclient.http as triton
from tritonclient.http import aio as triton_aio
from tritonclient.utils import InferenceServerException

ROWS = 3
X = np.arange(4 * ROWS, dtype=np.float32).reshape(ROWS, 4)
K = np.arange(ROWS, dtype=np.int64).reshape(ROWS, 1)


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.removeprefix("http://")) as connected:
        yield connected


def inputs(binary=True, module=triton):
    made = [module.InferInput("x", X.shape, "FP32"), module.InferInput("k", K.shape, "INT64")]
    for tensor, rows in zip(made, (X, K), strict=True):
        tensor.set_data_from_numpy(rows, binary_data=binary)
    return made


def check(result):
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * X + K)
    np.testing.assert_array_equal(result.as_numpy("n"), K + 1)


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "tailorbird"
    described = client.get_model_metadata("tiny")
    assert (described["versions"], described["platform"]) == (["1", "2"], "openvino")
    assert client.get_model_metadata("tiny", "1")["platform"] == "onnxruntime_onnx"
    assert described["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}


@pytest.mark.parametrize("version", ["", "1", "2"])
@pytest.mark.parametrize("binary", [True, False])
def test_infer(client, version, binary):
    asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("y", "n")]
    result = client.infer("tiny", inputs(binary), model_version=version, outputs=asked, request_id="r1")
    check(result)
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("r1", version or "2")


def test_all_outputs_when_none_are_named(client):
    check(client.infer("tiny", inputs()))


def test_mixed_forms(client):
    asked = [triton.InferRequestedOutput("y", binary_data=True), triton.InferRequestedOutput("n", binary_data=False)]
    check(client.infer("tiny", [inputs(True)[0], inputs(False)[1]], outputs=asked))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, algorithm):
    both = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    check(client.infer("tiny", inputs(), **both))


def test_strings_and_halves(client):
    words = np.array(["tailor", "Schneider", "č", ""], dtype=object)
    for binary in (True, False):
        tensor = triton.InferInput("x", words.shape, "BYTES")
        tensor.set_data_from_numpy(words, binary_data=binary)
        asked = [triton.InferRequestedOutput("y", binary_data=binary)]
        answer = client.infer("text", [tensor], outputs=asked).as_numpy("y")
        assert [item.decode() if isinstance(item, bytes) else item for item in answer] == words.tolist()
    halves = np.array([1.5, -2], np.float16)
    tensor = triton.InferInput("x", halves.shape, "FP16")
    tensor.set_data_from_numpy(halves)
    np.testing.assert_array_equal(client.infer("half", [tensor]).as_numpy("y"), halves)


@pytest.mark.parametrize(
    ("model", "version", "names", "status", "text"),
    [
        ("tiny", "", ("x",), "400", "missing input 'k': expected x FP32[N,4], k INT64[N,1]"),
        ("tiny", "7", ("x", "k"), "404", "model 'tiny' has no version 7\nHint: versions: 1, 2"),
        ("tinny", "", ("x", "k"), "404", "unknown model 'tinny'\nHint: did you mean 'tiny'?"),
    ],
)
def test_errors_reach_the_client(client, model, version, names, status, text):
    chosen = [tensor for tensor in inputs() if tensor.name() in names]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, chosen, model_version=version)
    assert (caught.value.status(), caught.value.message()) == (status, text)


def test_more_rows_than_a_run_takes(client):
    many, keys = np.arange(65 * 4, dtype=np.float32).reshape(65, 4), np.arange(65).reshape(65, 1)
    tensor = triton.InferInput("x", many.shape, "FP32")
    tensor.set_data_from_numpy(many)
    other = triton.InferInput("k", keys.shape, "INT64")
    other.set_data_from_numpy(keys)
    result = client.infer("tiny", [tensor, other])
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * many + keys)
    np.testing.assert_array_equal(result.as_numpy("n"), keys + 1)


def test_the_asynchronous_client(server):
    async def main():
        async with triton_aio.InferenceServerClient(server.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            for result in await asyncio.gather(*(client.infer("tiny", inputs(module=triton)) for _ in range(20))):
                check(result)

    asyncio.run(main())
