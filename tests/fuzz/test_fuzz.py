"""A short run of every fuzzing target, the same cases every time; and what longer runs once found."""

import pytest

from tests.fuzz import asgi, documents, seeded, seeds, sockets
from tests.fuzz.documents import Document
from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.world import Finding

CASES = {"body": 1500, "raw": 100, "message": 800, "compressed": 1500, "path": 3000, "http": 500, "calls": 500,
         "stream": 30, "socket": 250}  # fmt: skip


@pytest.mark.parametrize("name", list(TARGETS))
def test_whatever_comes_is_answered_or_refused(name: str) -> None:
    run = seeded.run(TARGETS[name], CASES[name], seed=11)
    assert not run.findings, run.findings[0]
    assert run.cases == CASES[name]
    assert run.grown_kb < 64 << 10, "kB"


@pytest.mark.parametrize("name", list(TARGETS))
def test_every_seed_is_fine(name: str) -> None:
    for case in TARGETS[name].seeds():
        TARGETS[name].one(case)


def test_the_shares_make_a_whole() -> None:
    assert sum(target.share for target in TARGETS.values()) == pytest.approx(1)
    assert set(CASES) == set(TARGETS)


# --- what longer runs found ---

DEEP = b'{"a":' * 3000


@pytest.mark.parametrize(
    "path",
    ["/v2/repository/index", "/v2/repository/models/echo/load", "/v2/systemsharedmemory/region/r/register",
     "/v2/models/echo/infer"],
)  # fmt: skip
def test_json_nested_too_deeply_is_the_clients_fault(path: str) -> None:
    """The index answered it with 500: a RecursionError is no ValueError."""
    asgi.one(Document(b"POST", path.encode(), [], DEEP).text())
    asgi.one(Document(b"POST", path.encode(), [], b"[" * 5000).text())


# --- the fuzzers themselves ---


def test_mutants_are_the_same_every_time_and_differ() -> None:
    for target in TARGETS.values():
        valid = target.seeds()
        first, again = Mutator(3), Mutator(3)
        made = [target.mutate(valid[number % len(valid)], first) for number in range(50)]
        assert made == [target.mutate(valid[number % len(valid)], again) for number in range(50)]
        assert len(set(made)) > 25, target.name


def test_a_document_is_read_back() -> None:
    for case in seeds.requests():
        assert documents.parsed(case).text() == case


def test_a_fault_is_found() -> None:
    """Were a target to raise, or to answer with 500, it would be noticed."""

    def wrong(case: bytes) -> None:
        if b"x" in case:
            raise KeyError("x")

    target = Target("wrong", wrong, lambda: (b"abc",), lambda case, mutator: mutator.any_bytes(case) + b"x", 1.0)
    assert [words for words, _ in seeded.run(target, 3, 1).findings] == ["KeyError: 'x'"] * 2
    with pytest.raises(Finding, match="status 500"):
        asgi.check(500, b'{"error":"x"}', "")
    with pytest.raises(Finding, match="no response"):
        sockets.Answers(b"HTTP/1.1 OK\r\n\r\n", [])
    with pytest.raises(Finding, match="cut short"):
        sockets.Answers(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", [b"GET"])


def test_whole_requests_are_counted() -> None:
    plain = Document(b"GET", b"/v2", [], b"").wire()
    chunked = Document(b"POST", b"/v2/models/echo/infer", [], b"{}").wire(chunked=True)
    assert sockets.Counted(plain * 2 + chunked).methods == [b"GET", b"GET", b"POST"]
    assert sockets.Counted(chunked[:-3]).requests == 0
