"""``tailorbird repo``: every command as a user types it, its table and its JSON."""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailorbird.cli import main, render
from tailorbird.repository.times import parse_time, text_of
from tests import bundles

Command = Callable[..., Any]


@pytest.fixture
def repo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``tailorbird repo COMMAND REPOSITORY ...``; returns what it printed, as data where ``--json`` is given."""
    root = str(tmp_path / "repository")

    def run(command: str, *words: str, code: int = 0) -> Any:
        monkeypatch.setattr(render, "out", render._console(sys.stdout))
        assert main.run(["repo", command, root, *words]) == code
        said = capsys.readouterr()
        run.errors = said.err  # type: ignore[attr-defined]
        return json.loads(said.out) if "--json" in words else said.out

    return run


@pytest.fixture
def full(repo: Command, tmp_path: Path) -> Command:
    for threads in (1, 2, 3):
        repo("publish", str(bundles.version(tmp_path / str(threads), candidate=bundles.candidate(threads=threads))))
    return repo


def test_publish_says_where(repo: Command, tmp_path: Path) -> None:
    source = str(bundles.version(tmp_path / "made"))
    place = str(tmp_path / "repository" / "tiny" / "1")
    assert repo("publish", source) == f"published {place}\n"
    assert repo("publish", source, "--json") == {"model": "tiny", "version": 1, "version_dir": place}
    assert repo("publish", source, "--again", "--json")["version"] == 2


def test_list(full: Command) -> None:
    full("promote", "tiny", "--version", "1")
    full("retire", "tiny", "2")
    assert full("list", "--json") == {
        "tiny": {"versions": [1, 2, 3], "retired": [2], "channels": {"production": 1}},
    }
    head, row = full("list").splitlines()
    assert head.split("  ")[0] == "model"
    assert row.split() == ["tiny", "1,", "2,", "3", "2", "production", "1"]
    assert row.index("production") == head.index("channels")


def test_promote_rollback_and_log(full: Command) -> None:
    assert full("promote", "tiny", "--version", "1", "--reason", "first [bold]") == (
        "production of tiny points at version 1\n"
    )
    assert full("promote", "tiny", "--channel", "production") == "production of tiny points at version 3\n"
    assert full("rollback", "tiny", "--reason", "slow") == "production of tiny points at version 1\n"
    assert full("rollback", "tiny", code=1) == ""
    assert "has nothing to go back to" in full.errors  # type: ignore[attr-defined]
    entries = full("log", "tiny", "--json")
    assert [(e["what"], e["version"], e["reason"]) for e in entries] == [
        ("promote", 1, "first [bold]"),
        ("promote", 3, ""),
        ("rollback", 1, "slow"),
    ]
    lines = full("log").splitlines()
    assert lines[0].split() == ["number", "time", "(UTC)", "who", "what", "model", "version", "channel", "reason"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert "first [bold]" in lines[1]


def test_what_was_live_at_a_time(full: Command) -> None:
    entry = full("promote", "tiny", "--version", "2", "--json")
    assert full("log", "tiny", "--at", entry["time"], "--json")[0]["version"] == 2
    second = entry["time"][:19]  # as the table shows it
    assert full("log", "tiny", "--at", second, "--json")[0]["version"] == 2
    before = text_of(parse_time(second) - timedelta(seconds=1))
    assert full("log", "tiny", "--at", before, "--json") == []
    assert full("log", "--at", "2020-01-01", "--json") == []
    assert full("log", "--at", "soon", code=2) == ""
    assert "not a time: got 'soon'" in full.errors  # type: ignore[attr-defined]


def test_channels(full: Command) -> None:
    full("promote", "tiny", "--channel", "canary", "--reason", "to see")
    head, row = full("channels").splitlines()
    assert head.split() == ["model", "channel", "version", "since", "reason"]
    assert row.split()[:3] == ["tiny", "canary", "3"]
    assert row.endswith("to see")
    assert full("channels", "other", "--json") == []


def test_retire_restore_and_gc(full: Command) -> None:
    assert full("retire", "tiny", "2") == "retired version 2 of tiny\n"
    assert full("restore", "tiny", "2") == "restored version 2 of tiny\n"
    assert full("retire", "tiny", "2", "--json")["what"] == "retire"
    assert full("gc").splitlines()[-1] == "removed 0 things, 0 bytes"
    shown = full("gc", "--older-than", "0", "--dry-run", "--json")
    assert [(one["kind"], one["version"]) for one in shown] == [("retired version", 2)]
    last = full("gc", "--older-than", "0", "--keep", "0").splitlines()[-1]
    assert last == f"removed 1 thing, {shown[0]['bytes']:,} bytes"
    assert full("list", "--json")["tiny"]["versions"] == [1, 3]
    assert full("gc", "--older-than", "soon", code=2) == ""
    assert full("gc", "--keep=-1", code=2) == ""


def test_show_and_verify(full: Command, tmp_path: Path) -> None:
    full("promote", "tiny", "--version", "1")
    assert full("show", "tiny", "--json")["candidate"]["threads"] == 3
    assert full("show", "tiny", "--version", "1", "--json")["candidate"]["threads"] == 1
    assert all(not check["problem"] for check in full("verify", "--json"))
    engine = tmp_path / "repository" / "tiny" / "2" / "model.onnx"
    engine.chmod(0o644)
    engine.write_bytes(b"x")
    assert "altered" in full("verify", "tiny", code=1)
    assert [check["version"] for check in full("verify", "--json", code=1) if check["problem"]] == [2]
    assert full.errors == (  # type: ignore[attr-defined]
        "error: 1 of 3 versions are not what their manifests say, or not signed by a trusted key\n"
        "Hint: restore each from its source, or retire it: tailorbird repo retire\n"
    )
    assert full("verify", "tiny", "--version", "1").split()[-3:] == ["1", "intact", "-"]
