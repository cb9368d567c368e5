"""Both stores, for tests that hold for either."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tailorbird.domain.cache import Cache
from tailorbird.repository.base import Repository
from tailorbird.repository.remote import RemoteRepository
from tailorbird.repository.store import LocalRepository
from tests import bundles, object_storage


@pytest.fixture(scope="session")
def storage() -> Iterator[Any]:
    """The environment that leads to a running S3 server."""
    with object_storage.object_storage() as settings:
        yield settings


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bundles of one model that differ."""
    folder = tmp_path_factory.mktemp("versions")
    return [bundles.version(folder / str(n), candidate=bundles.candidate(threads=n)) for n in (1, 2, 3)]


@pytest.fixture
def remote(storage: Any, tmp_path: Path) -> Iterator[RemoteRepository]:
    with Cache(tmp_path / "cache") as cache:
        yield RemoteRepository(f"s3://{object_storage.new_bucket()}/some/where", cache)


@pytest.fixture(params=["local", "remote"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """A repository of each kind in turn, with nothing in it."""
    if request.param == "remote":
        return request.getfixturevalue("remote")
    return LocalRepository(tmp_path / "repository")
