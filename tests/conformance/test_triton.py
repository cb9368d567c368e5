"""The suite against the real Triton: what it does otherwise is known, with the reason. ``make conformance``."""

import pytest

from bench.servers.triton import prepare
from tailorbird.domain.errors import TailorbirdError
from tests.conformance import running, servers
from tests.conformance.differences import expected_of_triton
from tests.conformance.suite import CHECKS


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_triton_differs_where_it_is_known_to():
    try:
        prepare()
    except TailorbirdError as error:
        pytest.skip(error.message)
    found = running.run(servers.triton).seen
    assert found == {one.key: expected_of_triton(one) for one in CHECKS}
