"""Which heads take the direct way, and which are remembered."""

import pytest

from tailorbird.service.web.heads import REMEMBERED, REMEMBERED_BYTES, WHOLE_BYTES, Heads, plain_head

PATH = b"/v2/models/m/infer"
LENGTH = (b"content-length", b"12")


def test_a_small_post_is_plain():
    headers = [(b"host", b"t"), LENGTH, (b"inference-header-content-length", b"3")]
    head = plain_head(b"POST", PATH, headers)
    assert head is not None
    assert (head.path, head.headers, head.length, head.memorable) == (PATH, headers, 12, True)
    assert head.read == {b"content-length": b"12", b"inference-header-content-length": b"3"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        (b"GET", PATH, [LENGTH]),
        (b"POST", PATH, []),
        (b"POST", PATH, [LENGTH, LENGTH]),
        (b"POST", PATH, [(b"content-length", b"+1")]),
        (b"POST", PATH, [(b"content-length", b"")]),
        (b"POST", PATH, [(b"content-length", b"%d" % (WHOLE_BYTES + 1))]),
        (b"POST", PATH, [(b"content-length", b"000000012")]),
        (b"POST", PATH, [LENGTH, (b"transfer-encoding", b"chunked")]),
        (b"POST", PATH, [LENGTH, (b"content-encoding", b"gzip")]),
        (b"POST", PATH, [LENGTH, (b"expect", b"100-continue")]),
        (b"POST", PATH, [LENGTH, (b"upgrade", b"h2c")]),
        (b"POST", PATH, [LENGTH, *[(b"inference-header-content-length", b"1")] * 2]),
        (b"POST", PATH + b"?a", [LENGTH]),
        (b"POST", b"/v2/models/%6d/infer", [LENGTH]),
        (b"POST", b"//v2/models/m/infer", [LENGTH]),
        (b"POST", b"http://t" + PATH, [LENGTH]),
        (b"POST", PATH + b";a", [LENGTH]),
        (b"POST", "/v2/modèles".encode(), [LENGTH]),
        (b"POST", b"/", [LENGTH]),
    ],
)
def test_everything_else_is_not(method, path, headers):
    assert plain_head(method, path, headers) is None


@pytest.mark.parametrize("name", [b"authorization", b"cookie", b"proxy-authorization"])
def test_secrets_are_not_remembered(name):
    heads = Heads()
    head = plain_head(b"POST", PATH, [LENGTH, (name, b"secret")])
    assert head is not None
    heads.learn(b"the secret's head", head)
    assert heads.find(b"the secret's head") is None


def test_only_so_many_and_so_large_ones_are_remembered():
    heads = Heads()
    head = plain_head(b"POST", PATH, [LENGTH])
    assert head is not None
    for number in range(3 * REMEMBERED):
        heads.learn(b"%d" % number, head)
        assert heads.find(b"%d" % number) is head
    assert sum(heads.find(b"%d" % number) is not None for number in range(3 * REMEMBERED)) <= REMEMBERED
    heads.learn(b"a" * (REMEMBERED_BYTES + 1), head)
    assert heads.find(b"a" * (REMEMBERED_BYTES + 1)) is None
