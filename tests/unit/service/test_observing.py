"""Recording by a real server over both protocols, and what is done with it afterwards."""

import asyncio
import json
import re
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import UsageError
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.domain.trace import read_trace
from tailorbird.load.run import Load, Scenario, run
from tailorbird.service.app import running_server, serve
from tailorbird.service.options import ServerOptions, options_of
from tailorbird.serving.hub import Hub
from tests.project import tree
from tests.protocol.engines import echo_model, fake_model

WORDS = Signature((TensorSpec("x", DType.FP32, ("N", "L")),), (TensorSpec("y", DType.FP32, ("N", "L")),))
SECRET = 31337.25


def words_model(delay=0.0, outstanding=256):
    return fake_model("words", 3, WORDS, lambda inputs: {"y": inputs["x"]}, delay, outstanding)


def body(rows, length, **parameters):
    x = {"name": "x", "shape": [rows, length], "datatype": "FP32", "data": [SECRET] * (rows * length)}
    return {"id": "client-42", "inputs": [x], "parameters": parameters}


def recorded(folder):
    return [(one.form.model, one.form.version, one.form.rows, one.form.inputs, one.outcome, one.priority,
             one.timeout_us) for one in read_trace(folder)]  # fmt: skip


def test_requests_of_both_protocols_are_recorded_and_nothing_of_what_they_held(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ServerOptions(port=0, grpc_port=port, record=str(tmp_path / "trace"))
    with running_server(Hub([words_model()]), options) as url:
        target = f"{url}/v2/models/words/infer"
        headers = {"x-token": "very-private"}
        assert httpx.post(target, json=body(2, 5), headers=headers).status_code == 200
        assert httpx.post(target, json=body(1, 7, priority=1, timeout=5_000_000)).status_code == 200
        wrong = {"inputs": [{"name": "private", "shape": [1], "datatype": "FP32", "data": [1]}]}
        assert httpx.post(target, json=wrong).status_code == 400
        assert httpx.post(f"{url}/v2/models/nobody/infer", json=body(1, 1)).status_code == 404
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            x = triton.InferInput("x", [4, 2], "FP32")
            x.set_data_from_numpy(np.full((4, 2), SECRET, np.float32))
            client.infer("words", [x], request_id="client-43")
    assert recorded(tmp_path / "trace") == [
        ("words", 3, 2, {"x": (2, 5)}, "", 0, 0),
        ("words", 3, 1, {"x": (1, 7)}, "", 1, 5_000_000),
        ("words", 3, 1, {}, "OTHER", 0, 0),
        ("words", 3, 4, {"x": (4, 2)}, "", 0, 0),
    ]
    text = b"".join(path.read_bytes() for path in (tmp_path / "trace").iterdir())
    for private in (b"31337", b"client", b"private", b"nobody"):
        assert private not in text


def test_refusals_and_clients_that_left_are_recorded_as_such(tmp_path: Path) -> None:
    async def ask(url):
        async with httpx.AsyncClient() as client:
            target = f"{url}/v2/models/words/infer"
            first = asyncio.create_task(client.post(target, json=body(1, 1)))
            await asyncio.sleep(0.6)  # until it is being answered
            refused = await client.post(target, json=body(1, 2))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return refused.status_code

    options = ServerOptions(port=0, grpc_port=0, record=str(tmp_path))
    with running_server(Hub([words_model(delay=2.0, outstanding=1)]), options) as url:
        assert asyncio.run(ask(url)) == 503
    assert [(outcome, inputs) for _, _, _, inputs, outcome, *_ in recorded(tmp_path)] == [
        ("REJECTED", {"x": (1, 2)}),
        ("CANCELED", {"x": (1, 1)}),
    ]


def test_a_recording_is_replayed_with_its_rows_and_shapes(tmp_path: Path) -> None:
    options = ServerOptions(port=0, grpc_port=0, record=str(tmp_path / "first"))
    with running_server(Hub([words_model(), echo_model("other", DType.FP32)]), options) as url:
        for number in range(20):
            httpx.post(f"{url}/v2/models/words/infer", json=body(1 + number % 3, 4 + number % 2))
        httpx.post(f"{url}/v2/models/other/infer", json={"inputs": [body(1, 1)["inputs"][0] | {"shape": [1]}]})
    again = ServerOptions(port=0, grpc_port=0, record=str(tmp_path / "second"))
    with running_server(Hub([words_model()]), again) as url:
        found = run(Load(url=url, model="words", scenario=Scenario.TRACE, trace=str(tmp_path / "first")))
    assert (found.answered, found.faults) == (20, {})
    first = [one for one in recorded(tmp_path / "first") if one[0] == "words"]
    assert recorded(tmp_path / "second")[-20:] == first  # before them, the warm-up
    kept = [list(read_trace(tmp_path / folder)) for folder in ("first", "second")]
    spans = [(max(at) - min(at)) / 1e9 for at in ([one.at for one in some[-20:]] for some in kept)]
    assert spans[1] == pytest.approx(spans[0], abs=0.5)


def test_what_is_recorded_and_dropped_is_a_metric(tmp_path: Path) -> None:
    options = ServerOptions(port=0, grpc_port=0, record=str(tmp_path))
    with running_server(Hub([words_model()]), options) as url:
        text = httpx.get(f"{url}/metrics").text
        assert "tailorbird_recorded_requests_total 0.0" in text
        assert "tailorbird_recording_dropped_requests_total 0.0" in text
    with running_server(Hub([words_model()])) as url:
        assert "recorded" not in httpx.get(f"{url}/metrics").text


def test_a_folder_that_cannot_be_used_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ServerOptions(port=0, grpc_port=0, record=str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot record into"):
        serve(tmp_path / "nothing", options)


def test_settings_become_options() -> None:
    options = options_of(record="traces", record_limit="2GiB", otel=True)
    assert (options.record, options.record_limit, options.otel) == ("traces", 2 << 30, True)
    with pytest.raises(UsageError, match="that is no size: got 'lots'"):
        options_of(record_limit="lots")


def test_the_access_log_has_what_it_had(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running_server(Hub([words_model()]), ServerOptions(port=0, grpc_port=0, access_log=True)) as url:
        httpx.post(f"{url}/v2/models/words/infer", json=body(2, 5))
    (line,) = [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"event":"request"' in line]
    assert (line["protocol"], line["model"], line["status"], line["rows"], line["id"]) == (
        *("http", "words", 200, 2, "client-42"),
    )


def test_the_guide_names_every_metric_and_no_other(tmp_path: Path) -> None:
    guide = (tree.ROOT / "docs" / "guides" / "observing.md").read_text("utf-8")
    tables = "".join(line for line in guide.split("## Metrics")[1].split("## Logs")[0].splitlines(keepends=True)
                     if line.startswith("|"))  # fmt: skip
    named = set(re.findall(r"`((?:nv|tailorbird|process)_\w+)`", tables))
    options = ServerOptions(port=0, grpc_port=0, record=str(tmp_path))
    with running_server(Hub([words_model()]), options) as url:
        text = httpx.get(f"{url}/metrics").text
    locked = {"tailorbird_refused_requests_total"}  # of a server with tokens alone; the guard's tests read it
    assert named - locked == set(re.findall(r"^# TYPE (\w+) ", text, flags=re.MULTILINE))
