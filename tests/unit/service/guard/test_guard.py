"""The guard's rules, apart from any transport."""

import json

import pytest

from tailorbird.domain.errors import ModelNotFound
from tailorbird.service.faults import Forbidden, NotAtThisDoor, Unauthenticated
from tailorbird.service.guard.guard import ANYBODY, Guard, hidden
from tailorbird.service.guard.refusals import Refusals
from tailorbird.service.guard.scopes import HEALTH, OFFERED, SCOPES, Door, Scope
from tailorbird.service.guard.tls import ClientNames
from tailorbird.service.guard.tokens import EVERYBODY, Caller
from tailorbird.service.routes import Operation


def test_an_operation_that_no_table_names_is_refused_to_everybody(monkeypatch):
    monkeypatch.delitem(SCOPES, Operation.SERVER_METADATA)
    for door in Door:
        with pytest.raises(Forbidden, match="'server metadata' is not allowed"):
            Guard(door).allow(EVERYBODY, Operation.SERVER_METADATA)


@pytest.mark.parametrize("door", Door)
def test_a_door_offers_what_its_table_says(door):
    for operation in Operation:
        if operation in OFFERED[door]:
            Guard(door).allow(EVERYBODY, operation, "m")
        else:
            with pytest.raises(NotAtThisDoor):
                Guard(door).allow(EVERYBODY, operation, "m")


def test_whoever_is_let_in_for_health_may_nothing_else():
    for operation in Operation:
        with pytest.raises(Forbidden):
            Guard(Door.PUBLIC).allow(ANYBODY, operation, "m")


@pytest.mark.parametrize("door", Door)
def test_nothing_but_health_is_ever_open(door):
    opened = {one for one in Operation if Guard(door, open_health=True).is_open(one)}
    assert opened == HEALTH & OFFERED[door]
    assert not {one for one in Operation if Guard(door).is_open(one)}
    assert not Guard(door, open_health=True).is_open(None)


def test_without_a_certificate_there_is_no_name_to_let_in():
    guard = Guard(Door.PUBLIC, clients=ClientNames())
    with pytest.raises(Forbidden):
        guard.known(None, ())
    assert guard.known(None, ("", "x")).name == "certificate x"


def test_a_refusal_says_nothing_of_why():
    for error in (Unauthenticated("revoked of token ci", offered=True), Forbidden("no", why="model")):
        assert error.why not in error.message


@pytest.mark.parametrize(("models", "hint"), [(("*",), "did you mean 'alpha'?"), (("a*",), None)])
def test_an_unknown_model_names_its_neighbours_to_whom_may_see_them(models, hint):
    error = hidden(ModelNotFound("alph", ("alpha", "beta")), Caller("x", frozenset(Scope), models))
    assert error.hint == hint
    assert error.message == "unknown model 'alph'" + (f"\nHint: {hint}" if hint else "")


def test_a_flood_of_refusals_is_counted_and_told_once_a_second(capsys):
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    for number in range(10_000):
        now[0] = number / 5000
        refusals.note("http", "expired of token ci", "127.0.0.1")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["count"] for line in lines] == [1, 5000]
    assert lines[0] | {"time": ""} == {
        "time": "",
        "event": "requests refused",
        "level": "warning",
        "protocol": "http",
        "reason": "expired of token ci",
        "count": 1,
        "client": "127.0.0.1",
    }
    assert refusals.counts == {("http", "expired"): 10_000}
    (sample,) = refusals.family().samples
    assert (sample.labels, sample.value) == ({"protocol": "http", "reason": "expired"}, 10_000)
