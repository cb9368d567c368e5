"""Tokens: made, kept as digests, recognised."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tailorbird.service.guard.scopes import Scope
from tailorbird.service.guard.tokens import Caller, Recognised, TokenRecord, issue, recognise

NOW = datetime.now(UTC)
READ = frozenset({Scope.READ})


def known(*records):
    return {record.id: record for record in records}


def test_a_token_is_nowhere_in_what_is_kept_of_it():
    token, record = issue("ci", READ)
    secret = token.removeprefix(f"tailorbird_{record.id}_")
    assert len(secret) == 43  # 256 bits in base 64
    assert secret not in repr(record)
    assert secret not in msgspec.json.encode(record).decode()
    assert msgspec.json.decode(msgspec.json.encode(record), type=TokenRecord) == record


def test_no_two_are_alike():
    assert len({issue("ci", READ)[0] for _ in range(1000)}) == 1000


def test_it_is_recognised_and_nothing_like_it_is():
    token, record = issue("ci", READ)
    _, other = issue("other", READ)
    assert recognise(token, known(record, other), NOW) == Recognised(record, "")
    changed = [token[:place] + chr(ord(token[place]) ^ 1) + token[place + 1 :] for place in range(len(token))]
    assert {recognise(one, known(record, other), NOW).record for one in changed} == {None}
    others = ["", token + "x", token + "\n", " " + token, token[:-1], token.upper(), "é" * 70, "\ud800", "\0" * 63]
    for shown in others:
        assert recognise(shown, known(record), NOW).why == "no token of this kind"


def test_the_secret_of_one_with_the_id_of_another():
    one, record = issue("one", READ)
    two, other = issue("two", READ)
    mixed = f"tailorbird_{record.id}_{two.rsplit('_', 1)[0][20:]}{two[-43:]}"[:63]
    assert recognise(mixed, known(record, other), NOW).record is None
    assert recognise(one, known(other), NOW) == Recognised(None, "unknown token")


@pytest.mark.parametrize(
    ("left", "why"), [(timedelta(0), "expired"), (timedelta(seconds=-1), "expired"), (timedelta(seconds=1), "")]
)
def test_it_ends_when_its_time_has_come(left, why):
    token, record = issue("ci", READ, expires=NOW + left)
    assert recognise(token, known(record), NOW).why == why


def test_one_that_is_revoked_is_that_even_when_it_has_expired_as_well():
    token, record = issue("ci", READ, expires=NOW)
    gone = msgspec.structs.replace(record, revoked=NOW)
    assert recognise(token, known(gone), NOW).why == "revoked"


@pytest.mark.parametrize(
    ("models", "seen", "unseen"),
    [
        (("*",), ["a", "b.c"], []),
        (("a*", "b"), ["a", "ab", "b"], ["bc", "A", ""]),
        (("team-?/*",), [], ["team-a"]),
        ((), [], ["a", ""]),
    ],
)
def test_which_models_a_caller_sees(models, seen, unseen):
    caller = Caller("x", READ, models)
    assert [caller.sees(one) for one in seen] == [True] * len(seen)
    assert [caller.sees(one) for one in unseen] == [False] * len(unseen)
    assert caller.sees_all is (models == ("*",))
