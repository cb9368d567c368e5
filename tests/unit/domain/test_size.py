"""Sizes as people write them."""

import pytest

from tailorbird.domain.errors import UsageError
from tailorbird.domain.size import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("512B", 512), ("256MiB", 256 << 20), ("4 gib", 4 << 30), ("1.5KiB", 1536),
     ("2GB", 2 * 10**9)],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1e9", "4 XiB", "4Gi", "0x10", "٤GiB", "1" * 99])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"that is no size: got .* expected a number and a unit, as 256MiB or 4GiB"):
        parse_size(text)


def test_sizes_are_written() -> None:
    assert [format_size(size) for size in (0, 999, 256 << 20, 3 << 30, 5 << 40)] == [
        *("0 B", "999 B", "256 MiB", "3 GiB", "5 TiB"),
    ]
