"""The suite against our own server, over both protocols."""

import pytest

from tests.conformance import running, servers
from tests.conformance.differences import DIFFERENCES
from tests.conformance.suite import CHECKS, seen

assert running  # it brings the checks


@pytest.fixture(scope="module")
def doors():
    with servers.ours() as server:
        doors = server.doors()
        yield doors
        for door in doors.values():
            door.close()


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.key)
def test_check(doors, one):
    assert seen(doors, one) == one.expected


def test_checks_have_names_of_their_own():
    assert len({one.key for one in CHECKS}) == len(CHECKS)


def test_differences_are_about_checks_and_are_differences():
    by_name = {(one.name, one.protocol): one for one in CHECKS}
    names = {name for name, _ in by_name}
    stated = [name for difference in DIFFERENCES for name in difference.seen]
    assert len(stated) == len(set(stated))
    assert set(stated) <= names
    for difference in DIFFERENCES:
        for name, found in difference.seen.items():
            protocols = [protocol for known, protocol in by_name if known == name]
            told = dict.fromkeys(protocols, found) if isinstance(found, str) else found
            assert set(told) <= set(protocols)
            assert all(by_name[name, protocol].expected != words for protocol, words in told.items())
