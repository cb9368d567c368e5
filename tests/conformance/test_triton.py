"""The suite against the real Triton: what it does otherwise is known, with the reason. ``make conformance``."""

import pytest

from tests.conformance import running, servers
from tests.conformance.differences import expected_of_triton
from tests.conformance.suite import CHECKS


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_triton_differs_where_it_is_known_to():
    found = running.run(servers.triton).seen
    assert found == {one.key: expected_of_triton(one) for one in CHECKS}
