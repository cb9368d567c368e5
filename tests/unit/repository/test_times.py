"""Times and ages as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from tailorbird.domain.errors import UsageError
from tailorbird.repository.times import parse_age, parse_time, parse_until, text_of

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2026-03-01T12:00:00", "2026-03-01T12:00:00Z", "2026-03-01 13:00:00+01:00", "2026-03-01T12"]
)
def test_one_moment_in_many_spellings(text: str) -> None:
    assert parse_time(text) == NOON
    assert text_of(parse_time(text)) == "2026-03-01T12:00:00Z"


def test_a_date_is_its_first_moment() -> None:
    assert parse_time("2026-03-01") == NOON - timedelta(hours=12)


def test_whole_seconds_last_to_their_end() -> None:
    assert parse_until("2026-03-01T12:00:00Z") == NOON + timedelta(microseconds=999999)
    assert parse_until("2026-03-01T12:00:00.25Z") == NOON + timedelta(microseconds=250000)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "12:00", "0001-01-01T00:00:00+14:00", "\0"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="not a time: got '"):
        parse_time(text)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800)])
def test_ages(text: str, seconds: int) -> None:
    assert parse_age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "1w", "٣d", "9999999999d", "999999999d", "36501d"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(UsageError, match="not an age: got"):
        parse_age(text)
