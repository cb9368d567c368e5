"""Paths: an exact table."""

import pytest

from tailorbird.service.faults import MethodNotAllowed, UnknownPath
from tailorbird.service.routes import Operation, Route, route

O = Operation  # noqa: E741


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", b"/v2", Route(O.SERVER_METADATA)),
        ("GET", b"/v2/health/live", Route(O.SERVER_LIVE)),
        ("HEAD", b"/v2/health/ready", Route(O.SERVER_READY)),
        ("GET", b"/v2/models/m", Route(O.MODEL_METADATA, "m")),
        ("GET", b"/v2/models/m-1.b_c/ready", Route(O.MODEL_READY, "m-1.b_c")),
        ("POST", b"/v2/models/m/infer", Route(O.MODEL_INFER, "m")),
        ("POST", b"/v2/models/m/versions/12/infer", Route(O.MODEL_INFER, "m", 12)),
        ("GET", b"/v2/models/m/versions/3", Route(O.MODEL_METADATA, "m", 3)),
        ("GET", b"/v2/models/%6d/ready", Route(O.MODEL_READY, "m")),
        ("GET", b"/v2/models/m/versions/3/config", Route(O.MODEL_CONFIG, "m", 3)),
        ("GET", b"/v2/models/m/stats", Route(O.MODEL_STATISTICS, "m")),
        ("GET", b"/v2/models/stats", Route(O.MODEL_STATISTICS)),
        ("GET", b"/v2/models/stats/versions/1/stats", Route(O.MODEL_STATISTICS, "stats", 1)),
        ("POST", b"/v2/repository/index", Route(O.REPOSITORY_INDEX)),
        ("GET", b"/metrics", Route(O.METRICS)),
        ("GET", b"/v2/models/infer", Route(O.MODEL_METADATA, "infer")),
        ("GET", b"/v2/models/versions/versions/1", Route(O.MODEL_METADATA, "versions", 1)),
    ],
)
def test_known_paths(method, path, expected):
    assert route(method, path) == expected


@pytest.mark.parametrize(
    "path",
    [
        *[b"", b"//", b"/v1", b"/v2/", b"//v2", b"/V2", b"*", b"/v2/health", b"/v2/health/live/"],
        *[b"/v2/models", b"/v2/models/", b"/v2/models/a/b", b"/v2/models/a/infer/", b"/v2/models/" + b"a/" * 600],
        *[b"/v2/models/%2e%2e", b"/v2/models/../ready", b"/v2/models/.hidden", b"/v2/models/-a", b"/v2/models/%256d"],
        *[b"/v2/models/a%2Fb/ready", b"/v2/models/a%00", b"/v2/models/%ff", b"/v2/models/" + b"a" * 129],
        *[b"/v2/models/a/versions", b"/v2/models/a/versions/x", b"/v2/models/a/versions/-1"],
        *[b"/v2/models/a/versions/" + b"1" * 19, b"/v2/models/a/versions/1/settings", b"/v2/repository"],
    ],
)  # fmt: skip
def test_unknown_paths(path):
    with pytest.raises(UnknownPath, match=r"^unknown path "):
        route("GET", path)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", b"/v2", "GET, HEAD"),
        ("DELETE", b"/v2/models/m", "GET, HEAD"),
        ("GET", b"/v2/models/m/infer", "POST"),
        ("HEAD", b"/v2/models/m/infer", "POST"),
        ("GET", b"/v2/repository/index", "POST"),
        ("POST", b"/metrics", "GET, HEAD"),
    ],
)
def test_wrong_methods(method, path, expected):
    with pytest.raises(MethodNotAllowed) as caught:
        route(method, path)
    assert caught.value.message == f"method {method} does not apply here: expected {expected}"
    assert caught.value.allowed == expected


def test_a_long_unknown_path_is_shown_in_part():
    with pytest.raises(UnknownPath) as caught:
        route("GET", b"/" + b"a" * 5000)
    assert len(caught.value.message) < 300
