"""What people are told of the cache."""

import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tailorbird.cli.cache import Asked, clear, explain, gc, list_entries, size, words
from tailorbird.cli.progress import Course
from tailorbird.domain.errors import UsageError


def event(kind: str = "engines", hit: bool = False, *changed: tuple[str, str, str]) -> dict[str, Any]:
    named = [dict(zip(("name", "was", "now"), one, strict=True)) for one in changed]
    return {"event": "cache", "at": 0.1, "kind": kind, "about": "net", "key": "0" * 64, "hit": hit,
            "made": "2026-01-02T03:04:05+00:00" if hit or changed else "", "changed": named}  # fmt: skip


def told(one: dict[str, Any]) -> list[str]:
    return list(Course().lines(one))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (5 << 20, "5 MiB"), (20 << 30, "20 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_a_change_is_named_with_digests_cut_short() -> None:
    assert words({"name": "seed", "was": "0", "now": "1"}) == "seed: 0 -> 1"
    assert (
        words({"name": "data", "was": "", "now": "sha256:" + "ab" * 32}) == "data: nothing -> sha256:abababababababa…"
    )


def test_the_table_is_aligned_and_whole() -> None:
    console = Console(width=120, record=True)
    rows = [event("sources", True), event("engines", False, ("seed", "0", "1"), ("name", "a", "b")), event("other")]
    with console.capture() as shown:
        console.print(explain(rows))
    lines = [line.rstrip() for line in shown.get().splitlines()]
    assert lines == [
        "kind     of   cache  made                       what changed",
        "sources  net  hit    2026-01-02T03:04:05+00:00  -",
        "engines  net  miss   2026-01-02T03:04:05+00:00  seed: 0 -> 1",
        "                                                name: a -> b",
        "other    net  miss   -                          nothing of this kind was made before",
    ]


def test_only_answers_of_the_cache_are_kept() -> None:
    asked = Asked()
    for one in (event(), {"event": "started", "at": 0.0}, {"event": "cache notice", "at": 0.0}):
        asked(one)
    assert [one["kind"] for one in asked.events] == ["engines"]
    assert "at" not in asked.events[0]


def test_progress_says_what_was_found_and_what_changed() -> None:
    assert told(event("engines", True)) == [
        "nothing changed since it was built at 2026-01-02T03:04:05+00:00: the engine is the cache's"
    ]
    few = event("engines", False, ("seed", "0", "1"))
    assert told(few) == ["changed since the build of 2026-01-02T03:04:05+00:00: seed: 0 -> 1"]
    many = event("engines", False, *((f"n{n}", "a", "b") for n in range(6)))
    assert told(many)[0].endswith("n3: a -> b and 2 more")
    assert told(event("normalised", True)) == ["the normalised graph is from the cache"]
    assert told(event("references", True)) == ["inputs and reference outputs are from the cache"]
    assert told(event("engines")) == told(event("sources", True)) == []


@pytest.mark.parametrize(("limit", "got"), [(math.inf, "inf"), (1e308, "1e+308"), (math.nan, "nan"), (-1.0, "-1")])
def test_a_limit_that_is_no_size_is_refused(limit: float, got: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        gc(limit=limit, cache=str(tmp_path))
    assert str(caught.value) == f"the limit is no size: got {got} GiB, expected 0 or more, and finite"


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "builds"
    root.mkdir()
    root.chmod(0o777)
    for verb in (list_entries, gc, clear):
        with pytest.raises(UsageError) as caught:
            verb(cache=str(tmp_path))
        assert caught.value.what == "the cache is not yours alone"
        assert caught.value.got == f"others may write to {root}"
        assert caught.value.expected == "a directory that only you can write to"
        assert caught.value.hint == "give another --cache, or: chmod go-w DIR"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("healed", "an entry of the cache was damaged (engines: 'a' was altered) and is made anew"),
        ("dropped", "an entry of the cache is not this build's (engines: 'a' was altered) and is made anew"),
        ("waiting", "another build makes the same (engines): waiting for it"),
        ("not kept", "the cache cannot keep this (engines): 'a' was altered"),
    ],
)
def test_what_does_not_go_as_usual_is_told(what: str, text: str) -> None:
    (line,) = told({"event": "cache notice", "at": 0.0, "what": what, "kind": "engines", "reason": "'a' was altered"})
    assert line == f"[yellow]{text}[/]"
