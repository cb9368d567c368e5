"""Places of a test module's own: what it builds is neither found by others nor found for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def own_place(folder: Path) -> Iterator[Path]:
    """Work in a folder, with a cache and keys below it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILORBIRD_CACHE", str(folder / "cache"))
        patch.setenv("TAILORBIRD_KEYS", str(folder / "keys"))
        patch.chdir(folder)
        yield folder
