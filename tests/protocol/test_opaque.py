"""Faults of the server are told to clients by a number alone, whatever the way in; the log explains the number."""

import json
import re

import httpx
import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.repository.store import LocalRepository
from tailorbird.service import app
from tailorbird.service.guard.options import Guarding
from tailorbird.service.options import ServerOptions
from tailorbird.serving.rollout.control import ControlOptions, Mode
from tailorbird.serving.starting import HubOptions, Isolation
from tests import bundles
from tests.protocol.doors import ECHO, free_port, locked_server
from tests.protocol.engines import echo_model, fake_model

SECRETS = ("/etc/shadow", "/dev/shm", "memfd:", "0x7f", "psm_", "Traceback", "secret", ".py")
OPAQUE = re.compile(r"the server failed to answer: error ([0-9a-f]{16})\nHint: the server's log explains it under .*")


def burn(_):
    raise RuntimeError("secret: /etc/shadow, /dev/shm/psm_1a2b, /memfd:tailorbird at 0x7f00dead")


def burning():
    return fake_model("hot", signature=echo_model("x", DType.FP32).signature, function=burn)


def told(text, log):
    """The identifier that the client was given; nothing of what happened is in its words, all of it in the log."""
    found = OPAQUE.fullmatch(text)
    assert found, text
    assert not [secret for secret in SECRETS if secret in text]
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("error_id") == found[1]]
    assert "/dev/shm/psm_1a2b" in line["message"]


def test_over_http(capsys):
    with locked_server(models=[burning()], grpc=False) as running:
        url = f"{running.url}/v2/models/hot/infer"
        direct = httpx.post(url, json=ECHO)
        by_asgi = httpx.post(url, json=ECHO, headers={"connection": "close"})
        page = httpx.get(running.url).text
        pages = [httpx.get(running.url + path).text for path in ("/metrics", "/v2/models/stats")]
    log = capsys.readouterr().err
    for answer in (direct, by_asgi):
        assert answer.status_code == 500
        told(answer.json()["error"], log)
        assert not [value for value in answer.headers.values() if "secret" in value]
    for text in (page, *pages):
        assert not [secret for secret in SECRETS if secret in text]


def test_over_grpc(capsys):
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    import queue

    from tritonclient.utils import InferenceServerException

    tensor = triton.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.ones(1, np.float32))
    with locked_server(models=[burning()]) as running, triton.InferenceServerClient(running.grpc) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("hot", [tensor])
        answers = queue.Queue()
        client.start_stream(lambda result, error: answers.put(error))
        client.async_stream_infer("hot", [tensor])
        in_stream = answers.get(timeout=20)
        client.stop_stream()
    log = capsys.readouterr().err
    assert caught.value.status() == "StatusCode.INTERNAL"
    told(caught.value.message(), log)
    told(in_stream.message(), log)


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_why_a_model_does_not_load_is_for_the_log(tmp_path, capsys, door):
    store = LocalRepository(tmp_path / "models")
    number = store.publish(bundles.version(tmp_path / "made"))
    engine = next(path for path in (store.root / "tiny" / str(number)).iterdir() if path.is_file())
    engine.write_bytes(b"altered")
    control = ControlOptions(mode=Mode.EXPLICIT)
    options = ServerOptions(
        port=0,
        grpc_port=free_port(),
        models=HubOptions(isolation=Isolation.THREAD, instances=1),
        control=control,
        guarding=Guarding(admin_on_public=True),
    )
    with app.running_server(store.root, options) as url:
        if door == "http":
            text = httpx.post(f"{url}/v2/repository/models/tiny/load", json={}).json()["error"]
        else:
            text = _load_by_grpc(f"127.0.0.1:{options.grpc_port}")
        index = httpx.post(f"{url}/v2/repository/index").text
        page = httpx.get(url).text
    for said in (text, index, page):
        assert str(tmp_path) not in said
        assert engine.name not in said
    assert engine.name in capsys.readouterr().err


def _load_by_grpc(address):
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(address) as client, pytest.raises(InferenceServerException) as caught:
        client.load_model("tiny")
    return caught.value.message()


@pytest.mark.parametrize("key", ["/../etc/shadow", "/psm_1a2b", "/none", "memfd:x", "/", "x"])
def test_shared_memory_tells_nothing_of_what_lies_there(key):
    """Neither whether a segment exists nor whose it is: the same words for both."""
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    from tritonclient.utils import InferenceServerException

    guarding = Guarding(admin_on_public=True)
    with (
        locked_server(guarding, grpc=False, client_shm=True) as running,
        triton.InferenceServerClient(running.address) as client,
        pytest.raises(InferenceServerException) as caught,
    ):
        client.register_system_shared_memory("region", key, 16)
    message = caught.value.message()
    assert not [secret for secret in ("No such file", "Permission", "/dev/shm", "Errno") if secret in message]
