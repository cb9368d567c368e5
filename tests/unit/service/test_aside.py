"""What takes long to read is read beside the event loop."""

import asyncio
import json
import secrets
import threading
from multiprocessing.shared_memory import SharedMemory

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

from tailorbird.domain.dtype import DType
from tailorbird.service import tensors
from tailorbird.service.limits import Limits
from tailorbird.service.rpc import schema
from tailorbird.service.rpc.servicer import Servicer
from tailorbird.service.web.http import HttpService
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub
from tailorbird.serving.shared_memory import Regions
from tests.protocol.engines import echo_model
from tests.unit.service.web.test_http import ask

MANY = 100_000
KEY = f"tailorbird_test_{secrets.token_hex(6)}"


@pytest.fixture
def plane():
    hub = Hub([echo_model("text", DType.BYTES, ("N", "M")), echo_model("echo", DType.FP32, ("N", "M"))])
    yield DataPlane(hub)
    hub.close()


@pytest.fixture
def regions():
    """One of empty strings."""
    segment = SharedMemory(KEY, create=True, size=4 * MANY)
    found = Regions(1 << 20, 1 << 20)
    found.register("r", f"/{KEY}", 0, 4 * MANY)
    yield found
    segment.close()
    segment.unlink()


@pytest.fixture
def threads(monkeypatch):
    """Those in which binary tensors were read."""
    found = []
    read = tensors.from_binary

    def noted(*arguments):
        found.append(threading.current_thread())
        return read(*arguments)

    monkeypatch.setattr(tensors, "from_binary", noted)
    return found


def posted(plane, count, parameters, blob=b"", model="text", datatype="BYTES", said="BYTES"):
    tensor = {"name": "x", "shape": [-(-count // 50), min(count, 50)], "datatype": datatype, "parameters": parameters}
    text = json.dumps({"inputs": [tensor]}).replace("BYTES", said).encode()
    headers = [(b"inference-header-content-length", b"%d" % len(text))]
    return ask(HttpService(plane, Limits()), "POST", f"/v2/models/{model}/infer", text + blob, headers=headers)


def is_aside(threads):
    (thread,) = threads
    return thread is not threading.main_thread()


@pytest.mark.parametrize("said", ["BYTES", "\\u0042YTES"])
def test_many_strings_behind_little_json(plane, threads, said):
    reply = posted(plane, MANY, {"binary_data_size": 4 * MANY}, bytes(4 * MANY), said=said)
    assert (reply.status, is_aside(threads)) == (200, True)


def test_few_strings_and_many_numbers_are_read_at_once(plane, threads):
    assert posted(plane, 2, {"binary_data_size": 8}, bytes(8)).status == 200
    assert not is_aside(threads)
    threads.clear()
    assert posted(plane, MANY, {"binary_data_size": 4 * MANY}, bytes(4 * MANY), "echo", "FP32").status == 200
    assert not is_aside(threads)


def test_strings_in_shared_memory_behind_a_small_body(plane, threads, regions):
    plane.regions = regions
    where = {"shared_memory_region": "r", "shared_memory_byte_size": 4 * MANY}
    assert (posted(plane, MANY, where).status, is_aside(threads)) == (200, True)


def test_nothing_is_read_for_a_model_that_is_not_there(plane, threads):
    reply = posted(plane, MANY, {"binary_data_size": 4 * MANY}, bytes(4 * MANY), model="no")
    assert (reply.status, threads) == (404, [])


def test_over_grpc(plane, threads, regions):
    def read(size, datatype="BYTES", region=False):
        request = schema.ModelInferRequest(model_name="text")
        tensor = request.inputs.add(name="x", datatype=datatype, shape=[size])
        if region:
            tensor.parameters["shared_memory_region"].string_param = "r"
            tensor.parameters["shared_memory_byte_size"].int64_param = 4 * size
        else:
            request.raw_input_contents.append(bytes(4 * size))
        threads.clear()
        asyncio.run(Servicer(plane, Limits())._decode(request.SerializeToString()))
        return is_aside(threads)

    assert read(MANY)
    assert not read(2)
    assert not read(MANY, "FP32")
    plane.regions = regions
    assert read(MANY, region=True)
