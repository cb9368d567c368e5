"""TLS over both protocols: certificates asked for, names let in, files renewed while the server runs."""

import shutil
import socket
import ssl
import time
from contextlib import ExitStack

import httpx
import pytest
from cryptography import x509

from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.tls import TlsFiles
from tailorbird.service.limits import Limits
from tests.protocol.certificates import Authority
from tests.protocol.doors import ECHO, bearer, locked_server, make_tokens

LIVE = "/v2/health/live"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder):
    return Authority(folder)


@pytest.fixture(scope="module")
def served(authority):
    return authority.server()


@pytest.fixture(scope="module")
def plain(served):
    """TLS alone: no certificate is asked for."""
    with locked_server(Guarding(tls=TlsFiles(*served))) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(authority, served):
    """Clients of our authority whose name is like ``robot-*``, or of a workload like this."""
    guarding = Guarding(
        tls=TlsFiles(*served, client_authorities=authority.file), client_names=("robot-*", "spiffe://bird/*")
    )
    with locked_server(guarding) as running:
        yield running


def trusting(authority, client=None):
    context = ssl.create_default_context(cafile=authority.file)
    if client:
        context.load_cert_chain(*client)
    return httpx.Client(verify=context)


def stub(address, authority, client=None, options=()):
    """A gRPC channel that trusts the authority and shows a client's certificate."""
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    key, certificate = (client[1].read_bytes(), client[0].read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), key, certificate)
    return grpc.secure_channel(address, credentials, options)


def live(channel, timeout=20, metadata=()):
    """The code of an answer to ServerLive."""
    import grpc

    try:
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=timeout, metadata=metadata)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def test_http_is_encrypted(plain, authority):
    assert plain.url.startswith("https://127.0.0.1:")
    with trusting(authority) as client:
        assert client.post(f"{plain.url}/v2/models/alpha/infer", json=ECHO).json()["outputs"][0]["data"] == [7.0]
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(plain.url.replace("https", "http"))


def test_grpc_is_encrypted(plain, authority):
    with stub(plain.grpc, authority) as channel:
        assert live(channel) == ("OK", "")
    import grpc

    with grpc.insecure_channel(plain.grpc) as channel:
        assert live(channel, 3)[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("door", ["http", "grpc"])
@pytest.mark.parametrize(
    ("version", "spoken"),
    [(ssl.TLSVersion.TLSv1, False), (ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True),
     (ssl.TLSVersion.TLSv1_3, True)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_not_spoken(plain, authority, door, version, spoken):
    context = ssl.create_default_context(cafile=authority.file)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"] if door == "grpc" else ["http/1.1"])
    port = plain.port if door == "http" else int(plain.grpc.split(":")[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        if spoken:
            with context.wrap_socket(line, server_hostname="localhost") as wrapped:
                assert wrapped.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        else:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                context.wrap_socket(line, server_hostname="localhost")


NAMES = [
    ("robot-7", (), True),
    ("spiffe", (x509.UniformResourceIdentifier("spiffe://bird/ns/a"),), True),
    ("human", (x509.DNSName("robot-7"),), True),
    ("human", (), False),
    ("xrobot-7", (x509.DNSName("robot.7"),), False),
]


@pytest.mark.parametrize(("name", "alternatives", "let_in"), NAMES)
def test_only_named_clients_are_let_in(mutual, authority, name, alternatives, let_in):
    client = authority.issue(name, alternatives, stem=f"{name}-{len(alternatives)}-{let_in}")
    with trusting(authority, client) as asked:
        answer = asked.get(mutual.url + LIVE)
        assert answer.status_code == (200 if let_in else 403)
        if not let_in:
            assert answer.json() == {"error": "the client's certificate is not for this server"}
    with stub(mutual.grpc, authority, client) as channel:
        expected = ("OK", "") if let_in else ("PERMISSION_DENIED", "the client's certificate is not for this server")
        assert live(channel) == expected
        missing = channel.unary_unary("/inference.GRPCInferenceService/Nothing")
        with pytest.raises(Exception, match="UNIMPLEMENTED" if let_in else "PERMISSION_DENIED"):
            missing(b"", timeout=20)


def test_inference_and_streams_pass_with_a_certificate(mutual, authority):
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    import queue

    import numpy as np

    certificate, key = authority.issue("robot-stream")
    tensor = triton.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.ones(1, np.float32))
    with triton.InferenceServerClient(
        mutual.grpc, ssl=True, root_certificates=str(authority.file), private_key=str(key),
        certificate_chain=str(certificate),
    ) as client:  # fmt: skip
        assert client.infer("alpha", [tensor]).as_numpy("y").tolist() == [1]
        answers = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("alpha", [tensor])
        result, error = answers.get(timeout=20)
        client.stop_stream()
        assert error is None
        assert result.as_numpy("y").tolist() == [1]


@pytest.mark.parametrize("kind", ["none", "strangers", "its own"])
def test_clients_without_a_certificate_of_ours_are_not_heard(mutual, authority, folder, kind):
    client = None
    if kind == "strangers":
        client = Authority(folder, "stranger").issue("robot-7", stem="stranger-robot")
    if kind == "its own":
        (folder / "own").mkdir(exist_ok=True)
        other = Authority(folder / "own", "robot-7")
        client = other.issue("robot-7", stem="own")
    with trusting(authority, client) as asked, pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        asked.get(mutual.url + LIVE)
    with stub(mutual.grpc, authority, client) as channel:
        assert live(channel, 5)[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_both_locks_are_asked_for(authority, served, tmp_path, capsys):
    tokens = make_tokens(tmp_path / "tokens.json")
    guarding = Guarding(
        tokens=tmp_path / "tokens.json",
        tls=TlsFiles(*served, client_authorities=authority.file),
        client_names=("robot-*",),
    )
    robot, human = authority.issue("robot-1"), authority.issue("human-1")
    with locked_server(guarding, access_log=True) as running:
        with trusting(authority, robot) as client:
            assert client.get(f"{running.url}/v2").status_code == 401
            url, shown = f"{running.url}/v2/models/alpha/infer", bearer(tokens["infer"])
            assert client.post(url, json=ECHO, headers=shown).status_code == 200
        with trusting(authority, human) as client:
            assert client.post(url, json=ECHO, headers=shown).status_code == 403
        metadata = [("authorization", f"Bearer {tokens['infer']}")]
        with stub(running.grpc, authority, robot) as channel:
            assert live(channel)[0] == "UNAUTHENTICATED"
            assert live(channel, metadata=metadata)[0] == "OK"
        with stub(running.grpc, authority, human) as channel:
            assert live(channel, metadata=metadata)[0] == "PERMISSION_DENIED"
    assert '"caller":"token infer, certificate robot-1"' in capsys.readouterr().err


def test_handshakes_that_never_end_are_counted_and_ended(served, authority):
    limits = Limits(connections=4, read_seconds=1.0, idle_seconds=30)
    with locked_server(Guarding(tls=TlsFiles(*served)), grpc=False, limits=limits) as running, ExitStack() as lines:
        began = time.monotonic()
        silent = [lines.enter_context(socket.create_connection((running.host, running.port), 10)) for _ in range(8)]
        time.sleep(0.3)
        assert [_is_open(line) for line in silent] == [True] * 4 + [False] * 4
        with trusting(authority) as client, pytest.raises((httpx.ConnectError, httpx.ReadError)):
            client.get(running.url + LIVE)
        for line in silent[:4]:
            assert line.recv(1) == b""
        assert 0.9 < time.monotonic() - began < 8
        with trusting(authority) as client:  # whose connection is counted as such
            assert client.get(running.url + LIVE).status_code == 200
            rest = [lines.enter_context(socket.create_connection((running.host, running.port), 10)) for _ in range(4)]
            time.sleep(0.3)
            assert [_is_open(line) for line in rest] == [True] * 3 + [False]


def test_handshakes_that_fail_leave_room(served, authority):
    limits = Limits(connections=2)
    with locked_server(Guarding(tls=TlsFiles(*served)), grpc=False, limits=limits) as running:
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b""):
            for _ in range(4):
                with socket.create_connection((running.host, running.port), 10) as line:
                    line.sendall(sent)
                    line.shutdown(socket.SHUT_WR)
                    while line.recv(1000):  # its words, that this was no handshake
                        pass
        with trusting(authority) as client:
            assert client.get(running.url + LIVE).status_code == 200


def _is_open(line):
    line.setblocking(False)
    try:
        return line.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        line.settimeout(10)


def serial(port, authority, protocol):
    """The serial number of the certificate that a port shows now."""
    context = ssl.create_default_context(cafile=authority.file)
    context.set_alpn_protocols([protocol])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as line,
        context.wrap_socket(line, server_hostname="localhost") as wrapped,
    ):
        return wrapped.getpeercert()["serialNumber"]


def until(look, wanted, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := look()) == wanted:
            return found
        time.sleep(0.1)
    return look()


def test_renewed_files_are_taken_without_a_restart(authority, tmp_path, capsys):
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    first, second = authority.server("first"), authority.server("second")

    def put(pair):
        shutil.copy(pair[1], key)
        shutil.copy(pair[0], certificate)

    def number(pair):
        return f"{x509.load_pem_x509_certificate(pair[0].read_bytes()).serial_number:X}"

    put(first)
    with locked_server(Guarding(tls=TlsFiles(certificate, key))) as running:
        doors = [(running.port, "http/1.1"), (int(running.grpc.split(":")[1]), "h2")]
        for port, protocol in doors:
            assert int(serial(port, authority, protocol), 16) == int(number(first), 16)
        shutil.copy(second[1], key)  # of another certificate: for a moment they do not fit
        time.sleep(1.1)
        for port, protocol in doors:
            assert int(serial(port, authority, protocol), 16) == int(number(first), 16)
        put(second)
        for port, protocol in doors:
            wanted = int(number(second), 16)
            assert until(lambda: int(serial(port, authority, protocol), 16), wanted) == wanted  # noqa: B023
    said = capsys.readouterr().err
    assert "new TLS files do not fit: the old ones stay" in said
    assert "TLS files read again" in said
    assert "PRIVATE KEY" not in said


def test_an_authority_that_was_taken_out_is_heard_no_more(authority, served, folder, tmp_path):
    other = Authority(folder, "other")
    client = other.issue("robot-old")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority.file.read_bytes() + other.file.read_bytes())
    with locked_server(Guarding(tls=TlsFiles(*served, client_authorities=trusted))) as running:
        with trusting(authority, client) as asked:
            assert asked.get(running.url + LIVE).status_code == 200
        with stub(running.grpc, authority, client) as channel:
            assert live(channel) == ("OK", "")
        trusted.write_bytes(authority.file.read_bytes())

        def http():
            try:
                with trusting(authority, client) as asked:
                    return asked.get(running.url + LIVE).status_code
            except httpx.TransportError:
                return None

        def grpc():
            with stub(running.grpc, authority, client, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                return live(channel, 5)[0]

        assert until(http, None) is None
        assert until(grpc, "UNAVAILABLE") in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        with trusting(authority, authority.issue("robot-new")) as asked:
            assert asked.get(running.url + LIVE).status_code == 200


def test_metrics_and_the_door_of_administration_are_encrypted_too(authority, served):
    guarding = Guarding(tls=TlsFiles(*served), admin="0")
    with locked_server(guarding, grpc=False, metrics=True) as running, trusting(authority) as client:
        assert client.get(f"{running.metrics}/metrics").status_code == 200
