"""The door for administration: over TCP, over a Unix socket, on the public port; what it does, and for whom."""

import json
import os
import re
import socket
import stat
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial

import httpx
import pytest

from tailorbird.cli import render
from tailorbird.cli.main import run
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.repository.store import LocalRepository
from tailorbird.service import app
from tailorbird.service.guard import socketfile
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.scopes import ADMINISTRATION, OFFERED, Door
from tailorbird.service.guard.tls import TlsFiles
from tailorbird.service.options import ServerOptions
from tailorbird.service.routes import Operation
from tailorbird.serving.hub import Hub
from tailorbird.serving.rollout.control import ControlOptions, Mode
from tailorbird.serving.starting import HubOptions, Isolation
from tests import bundles
from tests.protocol.certificates import Authority
from tests.protocol.doors import Running, bearer, free_port, locked_server, make_tokens
from tests.protocol.test_guard_http import PATHS, method

THREADS = HubOptions(isolation=Isolation.THREAD, instances=1)
EXPLICIT = ControlOptions(mode=Mode.EXPLICIT)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    store = LocalRepository(folder / "models")
    store.publish(bundles.version(folder / "made"))
    return store.root


@contextmanager
def explicit(repository, guarding, *, grpc_port=0):
    """A server that loads ``tiny`` when it is told to."""
    options = ServerOptions(port=0, grpc_port=grpc_port, models=THREADS, control=EXPLICIT, guarding=guarding)
    with app.running_server(repository, options) as url:
        yield Running(url, grpc_port, 0)


def door_of(capsys):
    """The door's address, as the log tells it."""
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    (found,) = [line["url"] for line in lines if line["event"] == "administration is served"]
    return found


def over(path):
    """A client of a socket file."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://door", timeout=30)


def state(index):
    return {one["name"]: one["state"] for one in index}


def command(words):
    """Run a command line; capsys replaces the streams for each test."""
    before = render.out, render.err
    render.out, render.err = render._console(sys.stdout), render._console(sys.stderr)
    try:
        return run(words)
    finally:
        render.out, render.err = before


def cli(capsys, *words, log=None):
    """What a command printed, read; it must succeed. What was logged until then goes to ``log``."""
    assert command([*words, "--json"]) == 0, capsys.readouterr()
    said = capsys.readouterr()
    if log is not None:
        log.append(said.err)
    return json.loads(said.out)


def test_models_come_and_go_by_the_command_line(repository, tmp_path, capsys):
    path = tmp_path / "door.sock"
    with explicit(repository, Guarding(admin=f"unix:{path}")) as running:
        assert door_of(capsys) == f"unix:{path}"
        url = ("--url", f"unix:{path}")
        assert cli(capsys, "admin", "load", "tiny", *url) == {"loaded": "tiny"}
        assert state(cli(capsys, "admin", "index", *url)) == {"tiny": "READY"}
        assert [one["model"] for one in cli(capsys, "admin", "rollouts", *url)] == ["tiny"]
        assert httpx.get(f"{running.url}/v2/models/tiny/ready").status_code == 200
        assert cli(capsys, "admin", "unload", "tiny", *url) == {"unloaded": "tiny"}
        assert httpx.get(f"{running.url}/v2/models/tiny/ready").status_code == 503
        assert command(["admin", "load", "nothing", *url]) == 1
        assert "nothing" in capsys.readouterr().err
        for table in ("index", "rollouts"):
            assert command(["admin", table, *url]) == 0
    assert not path.exists()


def test_the_official_client_administers(repository, capsys):
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    from tritonclient.utils import InferenceServerException

    with explicit(repository, Guarding(admin="0")):
        url = door_of(capsys)
        assert url.startswith("http://127.0.0.1:")
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            client.load_model("tiny")
            assert state(client.get_model_repository_index()) == {"tiny": "READY"}
            assert client.is_model_ready("tiny")
            client.unload_model("tiny")
            client.unload_model("tiny", unload_dependents=True)
            assert state(client.get_model_repository_index()) == {"tiny": "UNAVAILABLE"}
            words = "is not taken: what is served is said by the repository alone"
            with pytest.raises(InferenceServerException, match=f"the parameter 'config' {words}"):
                client.load_model("tiny", config="{}")
            with pytest.raises(InferenceServerException, match=f"the parameter 'file:1/model.onnx' {words}"):
                _load_with_file(client)


def _load_with_file(client):
    from tritonclient.http._utils import _raise_if_error

    body = json.dumps({"parameters": {"file:1/model.onnx": "AA=="}})
    _raise_if_error(client._post("v2/repository/models/tiny/load", body, headers=None, query_params=None))


def test_the_official_client_administers_over_grpc(repository, tmp_path):
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from tritonclient.utils import InferenceServerException

    tokens = make_tokens(tmp_path / "tokens.json")
    guarding = Guarding(tokens=tmp_path / "tokens.json", admin_on_public=True)
    shown = {name: {"authorization": f"Bearer {tokens[name]}"} for name in ("admin", "infer")}
    with (
        explicit(repository, guarding, grpc_port=free_port()) as running,
        triton.InferenceServerClient(running.grpc) as client,
    ):
        client.load_model("tiny", headers=shown["admin"])
        assert client.is_model_ready("tiny", headers=shown["infer"])
        with pytest.raises(InferenceServerException, match="'model unload' is not allowed"):
            client.unload_model("tiny", headers=shown["infer"])
        with pytest.raises(InferenceServerException, match="the parameter 'config' is not taken"):
            client.load_model("tiny", config="{}", headers=shown["admin"])
        client.unload_model("tiny", headers=shown["admin"])
        assert not client.is_model_ready("tiny", headers=shown["infer"])


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"parameters": 1}', b'{"parameters": {"a": 1}}', b"\xff"])
def test_what_is_no_request_changes_nothing(repository, tmp_path, body):
    path = tmp_path / "door.sock"
    with explicit(repository, Guarding(admin=f"unix:{path}")), over(path) as client:
        assert client.post("/v2/repository/models/tiny/load", content=body).status_code == 400
        assert state(client.post("/v2/repository/index").json()).get("tiny") != "READY"
        assert client.post("/v2/repository/models/tiny/load", content=b"").status_code == 200


def test_the_door_runs_no_models_and_answers_all_else(tmp_path):
    path = tmp_path / "door.sock"
    with locked_server(Guarding(admin=f"unix:{path}"), grpc=False), over(path) as client:
        for operation in Operation:
            answer = client.request(
                method(operation), PATHS[operation], json={} if method(operation) == "POST" else None
            )
            assert (answer.status_code == 403) == (operation is Operation.MODEL_INFER), (operation, answer.text)
        assert answer.status_code == 200


def test_the_table_of_doors():
    """In words: docs/guides/security.md."""
    everything = set(Operation)
    assert OFFERED[Door.PUBLIC] == everything - ADMINISTRATION
    assert OFFERED[Door.PUBLIC_WITH_ADMIN] == everything
    assert OFFERED[Door.ADMIN] == everything - {Operation.MODEL_INFER}
    assert OFFERED[Door.METRICS] == {Operation.METRICS}


def test_over_tcp_it_asks_for_tokens_and_over_a_file_for_none(repository, tmp_path, capsys):
    tokens = make_tokens(tmp_path / "tokens.json")
    named = Guarding(tokens=tmp_path / "tokens.json", admin="0")
    secret = tmp_path / "token"
    secret.write_text(tokens["admin"] + "\n")
    with explicit(repository, named):
        url = door_of(capsys)
        assert httpx.post(f"{url}/v2/repository/models/tiny/load", json={}).status_code == 401
        for scope, status in (("read", 403), ("infer", 403), ("admin", 200)):
            found = httpx.post(f"{url}/v2/repository/models/tiny/load", json={}, headers=bearer(tokens[scope]))
            assert found.status_code == status
        assert command(["admin", "index", "--url", url]) == 1
        assert "a token is needed" in capsys.readouterr().err
        assert cli(capsys, "admin", "unload", "tiny", "--url", url, "--token-file", str(secret)) == {"unloaded": "tiny"}
    path = tmp_path / "door.sock"
    by_file = Guarding(tokens=tmp_path / "tokens.json", admin=f"unix:{path}")
    with explicit(repository, by_file) as running, over(path) as client:
        assert client.post("/v2/repository/models/tiny/load", json={}).status_code == 200
        assert httpx.get(f"{running.url}/v2/models/tiny").status_code == 401


def test_it_is_encrypted_where_the_public_port_is(repository, tmp_path, capsys):
    authority = Authority(tmp_path)
    guarding = Guarding(tls=TlsFiles(*authority.server()), admin="localhost:0")
    with explicit(repository, guarding):
        url = door_of(capsys)
        assert url.startswith("https://127.0.0.1:")
        ca = ("--ca", str(authority.file))
        assert cli(capsys, "admin", "load", "tiny", "--url", url, *ca) == {"loaded": "tiny"}
        assert command(["admin", "index", "--url", url]) == 1  # of an authority that nobody here knows
        assert "no answer from https://127.0.0.1:" in capsys.readouterr().err


@pytest.mark.parametrize("files", ["two", "one"])
def test_the_command_shows_its_certificate_where_one_is_asked_for(repository, tmp_path, capsys, files):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("operator")
    shown = ("--cert", str(certificate), "--key", str(key))
    if files == "one":
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
        shown = shown[:2]
    guarding = Guarding(tls=TlsFiles(*authority.server(), client_authorities=authority.file), admin="localhost:0")
    with explicit(repository, guarding):
        url, ca = door_of(capsys), ("--ca", str(authority.file))
        assert cli(capsys, "admin", "load", "tiny", "--url", url, *ca, *shown) == {"loaded": "tiny"}
        assert command(["admin", "index", "--url", url, *ca]) == 1
        assert "no answer from https://127.0.0.1:" in capsys.readouterr().err


def test_a_page_that_a_browser_shows_cannot_administer(tmp_path):
    path = tmp_path / "door.sock"
    with locked_server(Guarding(admin=f"unix:{path}"), grpc=False), over(path) as client:
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = client.post("/v2/repository/models/alpha/unload", content=b"{}", headers=headers)
            assert (answer.status_code, answer.json()) == (403, {"error": "web pages do not administer this server"})


@pytest.mark.parametrize("flag", ["--admin", "--admin-on-public"])
def test_it_is_not_opened_to_the_network_unlocked(flag):
    guarding = Guarding(admin="0.0.0.0:0") if flag == "--admin" else Guarding(admin_on_public=True)
    options = ServerOptions(host="0.0.0.0", port=0, grpc_port=0, guarding=guarding)
    with pytest.raises(UsageError) as caught, app.running_server(Hub(), options):
        pass
    assert caught.value.message == (
        f"{flag} would let anybody load and unload models: got address 0.0.0.0, "
        "expected --tokens, --tls-client-ca, a loopback address or unix:PATH"
    )


def test_with_a_lock_it_may_be(tmp_path, capsys):
    make_tokens(tmp_path / "tokens.json")
    guarding = Guarding(tokens=tmp_path / "tokens.json", admin="0.0.0.0:0")
    with app.running_server(Hub(), ServerOptions(host="0.0.0.0", port=0, grpc_port=0, guarding=guarding)):
        said = capsys.readouterr().err
    assert "tokens travel in the clear" in said
    assert "http://0.0.0.0:" in said


@pytest.mark.parametrize("text", ["x", "1:x", "unix", "999999", "-1", "１"])
def test_no_address(text):
    with (
        pytest.raises(UsageError),
        app.running_server(Hub(), ServerOptions(port=0, grpc_port=0, guarding=Guarding(admin=text))),
    ):
        pass


class TestSocketFile:
    """The file of a Unix socket."""

    def test_it_is_its_owners_alone(self, tmp_path):
        before = os.umask(0)
        try:
            with socketfile.bind_file(tmp_path / "s"):
                assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        finally:
            os.umask(before)

    def test_what_a_dead_server_left_is_replaced(self, tmp_path):
        socketfile.bind_file(tmp_path / "s").close()
        assert (tmp_path / "s").exists()
        socketfile.bind_file(tmp_path / "s").close()

    def test_a_living_server_keeps_its_own(self, tmp_path):
        with socketfile.bind_file(tmp_path / "s"):
            with pytest.raises(TailorbirdError) as caught:
                socketfile.bind_file(tmp_path / "s")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
        assert caught.value.message == f"cannot listen on unix:{tmp_path}/s: got another server listens there"

    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_nothing_else_is_taken_away(self, tmp_path, kind):
        path = tmp_path / "s"
        if kind == "folder":
            path.mkdir()
        else:
            (tmp_path / "kept").write_text("precious")
            path.write_text("precious") if kind == "file" else path.symlink_to("kept")
        with pytest.raises(UsageError) as caught:
            socketfile.bind_file(path)
        assert caught.value.message == f"no socket at {path}: got something else is there, expected a free path"
        assert path.exists()

    def test_a_path_that_is_too_long(self, tmp_path):
        with pytest.raises(UsageError, match=r"expected at most 107$"):
            socketfile.bind_file(tmp_path / ("s" * 107))

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(TailorbirdError, match=r"got No such file or directory$"):
            socketfile.bind_file(tmp_path / "none" / "s")


def test_a_server_that_cannot_have_its_door_does_not_start(tmp_path):
    (tmp_path / "door").write_text("")
    guarding = Guarding(admin=f"unix:{tmp_path}/door")
    before = threading.active_count()
    with (
        pytest.raises(UsageError, match="got something else is there"),
        app.running_server(Hub(), ServerOptions(port=0, grpc_port=0, guarding=guarding)),
    ):
        pass
    assert threading.active_count() == before


def test_a_revoked_token_is_let_in_no_longer(tmp_path, capsys):
    """By the command line, while the server runs."""
    log = []
    command_on = partial(cli, capsys, log=log)
    file = ("--file", str(tmp_path / "tokens.json"))
    token = command_on("token", "create", "ci", "--scope", "read", *file)["token"]
    with locked_server(Guarding(tokens=tmp_path / "tokens.json"), grpc=False) as running:
        url = f"{running.url}/v2/repository/index"
        assert httpx.post(url, json={}, headers=bearer(token)).status_code == 200
        other = command_on("token", "create", "other", "--scope", "read", *file)["token"]
        assert _until(url, other, 200) < 3
        assert [one["state"] for one in command_on("token", "revoke", "ci", *file)] == ["revoked"]
        assert _until(url, token, 401) < 3
        (tmp_path / "tokens.json").write_text("{")
        assert _until(url, other, 401) < 3
        (tmp_path / "tokens.json").unlink()
        time.sleep(1.2)
        assert httpx.post(url, json={}, headers=bearer(other)).status_code == 401
        last = command_on("token", "create", "last", "--scope", "read", *file)["token"]
        assert _until(url, last, 200) < 3
        assert httpx.post(url, json={}, headers=bearer(other)).status_code == 401
    said = "".join(log) + capsys.readouterr().err
    assert said.count("tokens cannot be read: nobody is let in") == 2
    assert not re.search(r"tailorbird_[0-9a-f]{8}_", said)


def _until(url, token, status):
    begun = time.monotonic()
    while httpx.post(url, json={}, headers=bearer(token)).status_code != status:
        time.sleep(0.05)
        if time.monotonic() - begun > 10:
            break
    return time.monotonic() - begun
