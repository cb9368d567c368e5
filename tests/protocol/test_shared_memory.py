"""Local clients' shared memory through the real server, with the official client's own helper, and with ill will."""

import os
import secrets
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils.shared_memory as segments
from tritonclient.utils import InferenceServerException

from tailorbird.domain.dtype import DType
from tailorbird.service.app import running_server
from tailorbird.service.guard.options import Guarding
from tailorbird.service.limits import Limits
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tests.protocol.doors import free_port
from tests.protocol.engines import echo_model

BODY_BYTES = 1 << 20


@contextmanager
def serving(**options):
    """Addresses of a server of ``echo``, over HTTP and gRPC."""
    port = free_port()
    limits = Limits(body_bytes=BODY_BYTES)
    with running_server(
        Hub([echo_model("echo", DType.FP32, ("N", 2))]), ServerOptions(port=0, grpc_port=port, limits=limits, **options)
    ) as url:
        yield url.removeprefix("http://"), f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def addresses():
    with serving(client_shm=True, guarding=Guarding(admin_on_public=True)) as found:
        yield found


@pytest.fixture(params=["http", "grpc"])
def module(request):
    return {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]


@pytest.fixture
def client(addresses, module):
    address = addresses[module is tritonclient.grpc]
    with module.InferenceServerClient(address) as client:
        yield client


@pytest.fixture
def segment():
    """One page, known by key and handle."""
    key = f"/tailorbird_test_{secrets.token_hex(6)}"
    handle = segments.create_shared_memory_region("region", key, 4096)
    yield key, handle
    with suppress(FileNotFoundError):
        segments.destroy_shared_memory_region(handle)


@pytest.fixture
def region(client, segment):
    """It is registered as ``region``, and forgotten in the end."""
    key, handle = segment
    client.register_system_shared_memory("region", key, 4096)
    yield Path("/dev/shm") / key.lstrip("/"), handle
    client.unregister_system_shared_memory("region")


def tensor(module, size=8, offset=0, rows=1):
    made = module.InferInput("x", [rows, 2], "FP32")
    made.set_shared_memory("region", size, offset)
    return made


def refused(call, *arguments, **options):
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_inputs_and_outputs(client, module, region):
    _, handle = region
    sent = np.arange(8, dtype=np.float32).reshape(4, 2)
    segments.set_shared_memory_region(handle, [sent], 64)
    wanted = module.InferRequestedOutput("y")
    wanted.set_shared_memory("region", 64, 1024)
    answer = client.infer("echo", [tensor(module, 32, 64, rows=4)], outputs=[wanted])
    output = answer.get_output("y")
    shape = output["shape"] if module is tritonclient.http else list(output.shape)
    assert shape == [4, 2]
    np.testing.assert_array_equal(segments.get_contents_as_numpy(handle, np.float32, [4, 2], 1024), sent)


def test_the_server_states_it(addresses, client):
    stated = httpx.get(f"http://{addresses[0]}/v2").json()["extensions"]
    assert "system_shared_memory" in stated
    assert "cuda_shared_memory" not in stated


def test_a_client_that_shrinks_its_segment_is_told_so(client, module, region):
    """Under a mapping the server would end by SIGBUS."""
    path, _ = region
    wanted = module.InferRequestedOutput("y")
    wanted.set_shared_memory("region", 8, 2048)
    os.truncate(path, 100)
    _, words = refused(client.infer, "echo", [tensor(module, 8, 1024)])
    assert words.startswith("region 'region' is no longer whole")
    _, words = refused(client.infer, "echo", [tensor(module)], outputs=[wanted])
    assert words.startswith("region 'region' is no longer whole")
    assert path.stat().st_size == 100
    assert client.infer("echo", [tensor(module)]).as_numpy("y").tolist() == [[0.0, 0.0]]


def test_a_client_that_keeps_changing_its_segment(client, module, region):
    """It gets its own bytes or a refusal, and the server lives."""
    path, handle = region
    done = threading.Event()

    def change():
        while not done.is_set():
            os.truncate(path, 0)
            os.truncate(path, 4096)

    thread = threading.Thread(target=change)
    thread.start()
    wanted = module.InferRequestedOutput("y")
    wanted.set_shared_memory("region", 2048, 2048)
    told = set()
    for _ in range(150):
        try:
            client.infer("echo", [tensor(module, 256, 0, rows=32)], outputs=[wanted])
            told.add("ok")
        except InferenceServerException as error:
            told.add(error.message().partition("\n")[0])
    done.set()
    thread.join()
    assert told <= {"ok", "region 'region' is no longer whole"}
    assert client.is_server_live()
    del handle


@pytest.mark.parametrize(
    ("size", "offset", "words"),
    [
        (8, 4092, "shared memory outside of region 'region': got 8 bytes at 4092, expected within 4096 bytes"),
        (12, 0, "input 'x' has binary data of the wrong size: got 12 bytes, expected 8 bytes for FP32 [1,2]"),
    ],
)
def test_slices_that_are_wrong(client, module, region, size, offset, words):
    status, said = refused(client.infer, "echo", [tensor(module, size, offset)])
    assert status in ("400", "INVALID_ARGUMENT")
    assert said == words


def test_one_request_has_so_much_and_no_more(client, module):
    key = f"/tailorbird_test_{secrets.token_hex(6)}"
    handle = segments.create_shared_memory_region("region", key, 2 * BODY_BYTES)
    try:
        client.register_system_shared_memory("region", key, 2 * BODY_BYTES)
        rows = BODY_BYTES // 8 + 1
        _, said = refused(client.infer, "echo", [tensor(module, 8 * rows, rows=rows)])
        assert said == f"the request has too much in shared memory: expected at most {BODY_BYTES} bytes"
    finally:
        client.unregister_system_shared_memory("region")
        segments.destroy_shared_memory_region(handle)


def test_what_may_not_be_named_is_refused_in_the_same_words(client):
    """Whether there is such a file, or not, or a link to it, is none of a client's business."""
    link = Path("/dev/shm") / f"tailorbird_test_{secrets.token_hex(6)}"
    link.symlink_to("/etc/passwd")
    try:
        for key in (f"/{link.name}", "/tailorbird_nobody_made_this"):
            _, said = refused(client.register_system_shared_memory, "other", key, 8)
            assert said == "region 'other' has no segment that this server may use"
        for key in ("/../etc/passwd", "/proc/self/mem", "/sem.lock"):
            _, said = refused(client.register_system_shared_memory, "other", key, 8)
            assert said.startswith("the key of region 'other' is no key: got ")
    finally:
        link.unlink()


BODY = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32"}]}


@pytest.mark.parametrize(
    ("parameters", "members", "words"),
    [
        ({"shared_memory_region": "r"}, {}, "input 'x' has a shared_memory_region and no shared_memory_byte_size"),
        ({"shared_memory_byte_size": 8}, {"data": [1, 2]},
         "input 'x' has a shared_memory_byte_size and no shared_memory_region"),
        ({"shared_memory_region": 3, "shared_memory_byte_size": 8}, {},
         "input 'x' has a shared_memory_region that is no name: got 3"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": -8}, {},
         "input 'x' has a shared_memory_byte_size that is no number of bytes: got -8"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 0.5}, {},
         "input 'x' has a shared_memory_offset that is no number of bytes: got 0.5"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 8}, {"data": [1, 2]},
         "input 'x' has data both here and in shared memory"),
    ],
)  # fmt: skip
def test_parameters_that_contradict_themselves(addresses, parameters, members, words):
    body = {"inputs": [{**BODY["inputs"][0], "parameters": parameters, **members}]}
    answer = httpx.post(f"http://{addresses[0]}/v2/models/echo/infer", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": words})


def test_an_output_cannot_be_both_classes_and_shared(addresses):
    both = {"classification": 1, "shared_memory_region": "r", "shared_memory_byte_size": 8}
    body = {"inputs": [{**BODY["inputs"][0], "data": [1, 2]}], "outputs": [{"name": "y", "parameters": both}]}
    answer = httpx.post(f"http://{addresses[0]}/v2/models/echo/infer", json=body)
    assert answer.json() == {"error": "output 'y' has both classification and shared_memory_region"}


@pytest.mark.parametrize("path", ["register", "region//register", "region/a/b/register", "regions/a/register"])
def test_paths_that_are_none(addresses, path):
    assert httpx.post(f"http://{addresses[0]}/v2/systemsharedmemory/{path}", json={}).status_code in (400, 404)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"key":3,"byte_size":8}', b'{"key":"/a","byte_size":"8"}'])
def test_registrations_that_are_none(addresses, body):
    answer = httpx.post(f"http://{addresses[0]}/v2/systemsharedmemory/region/r/register", content=body)
    assert answer.status_code == 400
    assert "JSON is not valid" in answer.json()["error"]


class TestWhereItIsOffered:
    """Off by default; registering is administration."""

    def test_off(self, module):
        with serving(guarding=Guarding(admin_on_public=True)) as found:
            with module.InferenceServerClient(found[module is tritonclient.grpc]) as client:
                status, words = refused(client.get_system_shared_memory_status)
                assert status in ("501", "UNIMPLEMENTED")
                assert words == (
                    "the operation system shared memory is not offered by this server\n"
                    "Hint: 'tailorbird serve --allow-client-shm' offers it to local clients"
                )
                _, words = refused(client.infer, "echo", [tensor(module)])
                assert (
                    words == "input 'x' has the parameter shared_memory_region: got shared memory is off on this server"
                )
            assert "system_shared_memory" not in httpx.get(f"http://{found[0]}/v2").json()["extensions"]

    def test_not_at_the_public_door(self, module):
        with (
            serving(client_shm=True, guarding=Guarding(admin="0")) as found,
            module.InferenceServerClient(found[module is tritonclient.grpc]) as client,
        ):
            status, _ = refused(client.register_system_shared_memory, "r", "/a", 8)
            assert status in ("403", "PERMISSION_DENIED")

    def test_registered_at_the_door_of_administration_and_used_at_the_public_one(self, segment):
        key, handle = segment
        admin = f"127.0.0.1:{free_port()}"
        segments.set_shared_memory_region(handle, [np.array([1, 2], np.float32)])
        with (
            serving(client_shm=True, guarding=Guarding(admin=admin)) as (public, _),
            tritonclient.http.InferenceServerClient(admin) as door,
            tritonclient.http.InferenceServerClient(public) as client,
        ):
            door.register_system_shared_memory("region", key, 4096)
            assert client.infer("echo", [tensor(tritonclient.http)]).as_numpy("y").tolist() == [[1.0, 2.0]]
