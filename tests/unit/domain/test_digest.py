"""Tests of ``domain.digest``."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.digest import digest_bytes, digest_file


@given(st.binary())
def test_the_text_says_how_it_was_computed(data: bytes) -> None:
    assert digest_bytes(data) == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert digest_file(path) == digest_bytes(b"x" * size)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        digest_file(tmp_path / "none")
