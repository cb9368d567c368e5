"""The contract, held to the reference backend."""

import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Backend
from tests.contract.backend_contract import BackendContract


class TestReference(BackendContract):
    times_layers = False
    fuses = False

    @pytest.fixture
    def backend(self) -> Backend:
        return registry.backend("reference")
