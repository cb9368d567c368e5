"""The guard over HTTP: no operation, no path and no way of asking comes past it."""

import json
import re
import socket

import httpx
import pytest

from tailorbird.cli.main import run
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.scopes import ADMINISTRATION, HEALTH, OF_ALL_MODELS, SCOPES, Scope
from tailorbird.service.routes import POSTED, Operation, route
from tests.protocol.doors import ECHO, bearer, locked_server, make_tokens

PATHS = {
    Operation.STATUS_PAGE: "/",
    Operation.SERVER_METADATA: "/v2",
    Operation.SERVER_LIVE: "/v2/health/live",
    Operation.SERVER_READY: "/v2/health/ready",
    Operation.MODEL_METADATA: "/v2/models/alpha",
    Operation.MODEL_READY: "/v2/models/alpha/ready",
    Operation.MODEL_INFER: "/v2/models/alpha/infer",
    Operation.MODEL_CONFIG: "/v2/models/alpha/config",
    Operation.MODEL_STATISTICS: "/v2/models/alpha/stats",
    Operation.REPOSITORY_INDEX: "/v2/repository/index",
    Operation.MODEL_LOAD: "/v2/repository/models/alpha/load",
    Operation.MODEL_UNLOAD: "/v2/repository/models/alpha/unload",
    Operation.ROLLOUTS: "/v2/rollouts",
    Operation.SHARED_MEMORY_STATUS: "/v2/systemsharedmemory/status",
    Operation.SHARED_MEMORY_REGISTER: "/v2/systemsharedmemory/region/r/register",
    Operation.SHARED_MEMORY_UNREGISTER: "/v2/systemsharedmemory/unregister",
    Operation.METRICS: "/metrics",
}
"""A path of each operation."""


def method(operation):
    return "POST" if operation in POSTED else "GET"


CLIENT = httpx.Client(timeout=30)


def ask(url, operation, token=None):
    body = ECHO if operation is Operation.MODEL_INFER else {}
    headers = bearer(token) if token else {}
    content = {"json": body} if operation in POSTED else {}
    return CLIENT.request(method(operation), url + PATHS[operation], headers=headers, **content)


def test_every_operation_has_a_path_here_and_a_scope():
    assert set(PATHS) == set(Operation) == set(SCOPES)
    for operation, path in PATHS.items():
        assert route(method(operation), path.encode()).operation is operation


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    return path, make_tokens(path)


@pytest.fixture(scope="module")
def server(tokens):
    with locked_server(Guarding(tokens=tokens[0], admin_on_public=True), grpc=False) as running:
        yield running


@pytest.mark.parametrize("operation", Operation)
def test_without_a_token_nothing_is_answered(server, operation):
    answer = ask(server.url, operation)
    assert (answer.status_code, answer.json()) == (
        401,
        {"error": "a token is needed\nHint: send it as 'Authorization: Bearer TOKEN'"},
    )
    assert answer.headers.get_list("www-authenticate")[-1] == 'Bearer realm="tailorbird"'


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("bad", ["expired", "revoked", "unknown", "altered", "short", "bare", "basic"])
def test_with_a_bad_token_nothing_is_answered_and_nothing_is_told(server, tokens, operation, bad):
    good = tokens[1]["all"]
    shown = {
        "expired": f"Bearer {tokens[1]['expired']}",
        "revoked": f"Bearer {tokens[1]['revoked']}",
        "unknown": f"Bearer tailorbird_00000000_{'A' * 43}",
        "altered": f"Bearer {good[:-1]}{'A' if good[-1] != 'A' else 'B'}",
        "short": f"Bearer {good[:-1]}",
        "bare": "Bearer",
        "basic": f"Basic {good}",
    }[bad]
    answer = CLIENT.request(method(operation), server.url + PATHS[operation], headers={"authorization": shown})
    assert (answer.status_code, answer.json()) == (401, {"error": "the token is not valid"})
    assert answer.headers.get_list("www-authenticate")[-1] == 'Bearer realm="tailorbird", error="invalid_token"'


@pytest.mark.parametrize("operation", Operation)
def test_each_scope_is_good_for_its_operations_alone(server, tokens, operation):
    for scope in Scope:
        answer = ask(server.url, operation, tokens[1][scope.value])
        if scope in SCOPES[operation]:
            assert answer.status_code not in (401, 403), (scope, answer.text)
        else:
            assert answer.status_code == 403
            words = " or ".join(sorted(SCOPES[operation]))
            assert answer.json() == {
                "error": f"the operation '{operation}' is not allowed: expected a token with the scope {words}"
            }
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("operation", Operation)
def test_a_token_of_some_models_sees_no_other(server, tokens, operation):
    some = tokens[1]["some"]
    there = ask(server.url, operation, some)
    assert there.status_code == 403 if operation in OF_ALL_MODELS else there.status_code not in (401, 403)
    if "alpha" in PATHS[operation]:
        answers = [
            CLIENT.request(
                method(operation), server.url + PATHS[operation].replace("alpha", name), headers=bearer(some)
            )
            for name in ("beta", "nothing")
        ]
        assert [(one.status_code, one.json()["error"].replace("nothing", "beta")) for one in answers] == [
            (403, "model 'beta' is not allowed with this token")
        ] * 2


def test_lists_and_hints_name_only_what_a_token_may_see(server, tokens):
    some = bearer(tokens[1]["some"])
    index = CLIENT.post(f"{server.url}/v2/repository/index", json={}, headers=some).json()
    stats = CLIENT.get(f"{server.url}/v2/models/stats", headers=some).json()
    rollouts = CLIENT.get(f"{server.url}/v2/rollouts", headers=some).json()
    assert {one["name"] for one in index} == {one["name"] for one in stats["model_stats"]} == {"alpha"}
    assert {one["model"] for one in rollouts} <= {"alpha"}
    for answer in (
        CLIENT.get(f"{server.url}/v2/models/alphabet", headers=some),
        CLIENT.post(f"{server.url}/v2/models/alphabet/infer", json=ECHO, headers=some),
    ):
        assert (answer.status_code, answer.json()) == (404, {"error": "unknown model 'alphabet'"})
    everyone = CLIENT.get(f"{server.url}/v2/models/alphabet", headers=bearer(tokens[1]["all"])).json()
    assert "alpha" in everyone["error"].split("Hint")[1]


def raw(server, text, answers=1):
    """What the server says to some bytes: so many whole answers, or what came before it hung up."""
    said = b""
    with socket.create_connection((server.host, server.port), timeout=10) as line:
        line.sendall(text)
        while not is_whole(said, answers, is_head=text.startswith(b"HEAD ")):
            try:
                part = line.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                break
            said += part
    return said


def is_whole(said, answers, *, is_head):
    for _ in range(answers):
        head, end, said = said.partition(b"\r\n\r\n")
        if not end:
            return False
        length = 0 if is_head else int(re.search(rb"content-length: (\d+)", head)[1])
        if len(said) < length:
            return False
        said = said[length:]
    return True


BODY = json.dumps(ECHO).encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)
INFER = "/v2/models/alpha/infer"
ODD_TARGETS = [
    *["//v2/models/alpha/infer", "/v2//models/alpha/infer", "/v2/models/alpha//infer", "/v2/models/alpha/infer/"],
    *["/v2/models%2Falpha/infer", "/v2/models/alpha%2Finfer", "/%76%32/models/alpha/infer", "/v2/models/%61lpha/infer"],
    *["/v2/models/alpha/infer.", "/v2/models/alpha/infer;x=1", "/v2/models/alpha;x=1/infer", "/V2/MODELS/ALPHA/INFER"],
    *["/v2/models/./alpha/infer", "/v2/health/live/../../models/alpha/infer", "/v2/health/live%2F..%2F..%2Fmodels"],
    *[
        "/v2/models/alpha/infer?token=x",
        "/v2/models/alpha/infer#x",
        "/v2/health/live/",
        "/v2/health/live?",
        "/metrics/",
    ],
    *["/v2/health/live;", "/v2/health/live%00", "/v2/health/LIVE", "/v2/health/live/x", "\\v2\\models\\alpha\\infer"],
    *["*", "http://127.0.0.1/v2/models/alpha/infer", "http://127.0.0.1/v2/health/live", "alpha:80", "/%2e%2e/metrics"],
    *["/favicon.ico", "/v2/trace/setting", "/v2/logging", "/v2/cudasharedmemory/status", "/v2/models/alpha/generate"],
]


@pytest.mark.parametrize("verb", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_no_spelling_of_a_request_comes_past(server, verb, version):
    for target in (*PATHS.values(), *ODD_TARGETS):
        head = f"{verb} {target} HTTP/{version}\r\nhost: x\r\n".encode()
        answer = raw(server, head + LENGTH + b"\r\n" + BODY)
        assert answer.split(b" ")[1] in (b"400", b"401"), (target, answer)  # 400: it is no request at all
        assert b"alpha" not in answer
        assert b'"live"' not in answer


WAYS = {
    "chunked": b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "upgrade to HTTP/2": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAA\r\n"
    + LENGTH
    + b"\r\n"
    + BODY,
    "websocket": b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "two lengths": LENGTH + b"transfer-encoding: chunked\r\n\r\n" + BODY,
    "expect": b"expect: 100-continue\r\n" + LENGTH + b"\r\n" + BODY,
    "header of a proxy": b"x-forwarded-for: 127.0.0.1\r\nx-real-ip: ::1\r\nx-original-url: /v2/health/live\r\n"
    + LENGTH
    + b"\r\n"
    + BODY,
    "another method": b"x-http-method-override: GET\r\n" + LENGTH + b"\r\n" + BODY,
    "cookie": b"cookie: token=x; authorization=Bearer x\r\n" + LENGTH + b"\r\n" + BODY,
    "folded": b"authorization:\r\n Bearer x\r\n" + LENGTH + b"\r\n" + BODY,
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_sending_comes_past(server, way):
    answer = raw(server, b"POST /v2/models/alpha/infer HTTP/1.1\r\nhost: x\r\n" + WAYS[way])
    assert answer.split(b" ")[1] in (b"400", b"401"), answer
    assert b"outputs" not in answer


def test_prior_knowledge_of_http2_is_no_request(server):
    answer = raw(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert answer.split(b" ")[1] in (b"400", b"401"), answer


def test_a_request_behind_a_good_one_is_asked_for_its_own_token(server, tokens):
    head = b"POST /v2/models/alpha/infer HTTP/1.1\r\nhost: x\r\n" + LENGTH
    good = head + b"authorization: Bearer " + tokens[1]["infer"].encode() + b"\r\n\r\n" + BODY
    answers = raw(server, good + head + b"\r\n" + BODY + good, 3)
    assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"401", b"200"]


def test_two_authorizations_are_none(server, tokens):
    token = tokens[1]["all"]
    answer = CLIENT.get(f"{server.url}/v2", headers=[("authorization", f"Bearer {token}")] * 2)
    assert (answer.status_code, answer.json()) == (401, {"error": "the token is not valid"})


def test_the_scheme_is_known_by_any_case(server, tokens):
    answer = CLIENT.get(f"{server.url}/v2", headers={"Authorization": f"bEARER {tokens[1]['read']}"})
    assert answer.status_code == 200


def test_the_body_of_a_refused_request_is_not_read(server):
    """Not even asked for: the server says no to ``Expect`` before a byte of a body that is too large to wait for."""
    head = (
        b"POST /v2/models/alpha/infer HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 60000000\r\n\r\n"
    )
    answer = raw(server, head)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in answer.lower()


def test_a_browser_may_show_its_token_for_the_status_page_alone(server, tokens):
    refused = CLIENT.get(f"{server.url}/")
    assert refused.headers.get_list("www-authenticate")[0].startswith("Basic ")
    assert len(CLIENT.get(f"{server.url}/v2").headers.get_list("www-authenticate")) == 1
    read = httpx.BasicAuth("anybody", tokens[1]["read"])
    assert CLIENT.get(f"{server.url}/", auth=read).status_code == 200
    assert CLIENT.get(f"{server.url}/v2", auth=read).status_code == 401
    assert CLIENT.get(f"{server.url}/", auth=httpx.BasicAuth(tokens[1]["read"], "")).status_code == 401


@pytest.mark.parametrize("header", ["origin", "sec-fetch-site"])
@pytest.mark.parametrize("operation", sorted(ADMINISTRATION))
def test_web_pages_do_not_administer(server, tokens, operation, header):
    headers = {**bearer(tokens[1]["all"]), header: "null"}
    answer = CLIENT.request(method(operation), server.url + PATHS[operation], headers=headers)
    assert (answer.status_code, answer.json()) == (403, {"error": "web pages do not administer this server"})


def test_whoever_opens_it_in_a_browser_by_himself_is_no_page(server, tokens):
    headers = {**bearer(tokens[1]["all"]), "sec-fetch-site": "none"}
    assert CLIENT.get(f"{server.url}/v2/rollouts", headers=headers).status_code == 200


def test_bench_shows_its_token(server, tokens, monkeypatch, capsys):
    monkeypatch.setenv("TAILORBIRD_TOKEN", tokens[1]["infer"])
    assert run(["bench", "alpha", "--url", server.address, "--seconds", "0.3", "--json"]) == 0
    assert tokens[1]["infer"] not in "".join(capsys.readouterr())
    monkeypatch.setenv("TAILORBIRD_TOKEN", tokens[1]["read"])
    assert run(["bench", "alpha", "--url", server.address, "--seconds", "0.3", "--json"]) == 1


def test_refusals_are_counted(server, tokens):
    read = bearer(tokens[1]["read"])
    CLIENT.get(f"{server.url}/v2")
    CLIENT.post(f"{server.url}{INFER}", json=ECHO, headers=read)
    text = CLIENT.get(f"{server.url}/metrics", headers=read).text
    assert 'tailorbird_refused_requests_total{protocol="http",reason="no token"}' in text
    assert 'tailorbird_refused_requests_total{protocol="http",reason="scope"}' in text


def test_health_is_open_where_that_is_asked_for_and_nothing_else(tokens):
    with locked_server(Guarding(tokens=tokens[0], open_health=True), grpc=False) as running:
        for operation in Operation:
            answer = ask(running.url, operation)
            assert answer.status_code == (200 if operation in HEALTH else 401), operation
        for target in ODD_TARGETS:
            assert raw(running, f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode()).split(b" ")[1] in (
                *(b"400", b"401"),
                *((b"200",) if target in ("/v2/health/live?", "http://127.0.0.1/v2/health/live") else ()),
            )
        assert CLIENT.post(f"{running.url}/v2/health/live").status_code == 405


def test_metrics_on_a_port_of_their_own_are_locked_too(tokens):
    with locked_server(Guarding(tokens=tokens[0]), grpc=False, metrics=True) as running:
        url = f"{running.metrics}/metrics"
        found = [
            CLIENT.get(url, headers=bearer(tokens[1][name]) if name else {}).status_code
            for name in ("", "infer", "some", "revoked", "read")
        ]
        assert found == [401, 403, 403, 401, 200]
        assert CLIENT.get(f"{running.metrics}/v2", headers=bearer(tokens[1]["read"])).status_code == 403


def test_without_a_lock_only_administration_is_refused(server):
    with locked_server(grpc=False) as running:
        for operation in Operation:
            answer = ask(running.url, operation)
            assert (answer.status_code == 403) == (operation in ADMINISTRATION), (operation, answer.text)
        assert ask(running.url, Operation.MODEL_UNLOAD).json() == {
            "error": "the operation 'model unload' is not offered here\n"
            "Hint: 'tailorbird serve --admin' opens a door for administration"
        }
