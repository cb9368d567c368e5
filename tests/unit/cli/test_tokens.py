"""The commands about tokens."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tailorbird.cli import render
from tailorbird.cli.main import run
from tailorbird.service.guard import tokenfile


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAILORBIRD_TOKENS", str(tmp_path / "tokens.json"))
    return tmp_path / "tokens.json"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command line; gives its exit code and what it said on stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        for name in ("out", "err"):  # which capsys replaces for each test
            monkeypatch.setattr(render, name, render._console(getattr(sys, f"std{name}")))
        code = run(list(words))
        return code, *capsys.readouterr()

    return call


def test_a_tokens_life(said, file):
    code, token, words = said("token", "create", "ci", "--models", "team-*")
    assert code == 0
    assert re.fullmatch(r"tailorbird_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\n", token)  # alone, for $(...)
    (record,) = tokenfile.read(file).tokens
    assert words == (
        f"token ci ({record.id}): infer; models team-*; expires never; written to {file}; it cannot be shown again\n"
    )
    code, listed, _ = said("token", "list")
    assert listed.split() == ["name", "id", "scopes", "models", "expires", "state",
                              "ci", record.id, "infer", "team-*", "never", "valid"]  # fmt: skip
    assert said("token", "revoke", record.id) == (0, f"revoked ci ({record.id})\n", "")
    (row,) = json.loads(said("token", "list", "--json")[1])
    assert (row["state"], row["scopes"], row["models"]) == ("revoked", ["infer"], ["team-*"])
    assert token.strip()[-43:] not in file.read_text()


@pytest.mark.parametrize(
    ("text", "lasts"),
    [("1s", timedelta(seconds=1)), ("15m", timedelta(minutes=15)), ("12h", timedelta(hours=12)),
     ("90d", timedelta(days=90)), ("4w", timedelta(weeks=4))],
)  # fmt: skip
def test_it_expires(said, file, text, lasts):
    before = datetime.now(UTC)
    assert said("token", "create", "ci", "--expires", text)[0] == 0
    (record,) = tokenfile.read(file).tokens
    assert timedelta(seconds=-1) <= record.expires - before - lasts <= timedelta(seconds=2)


@pytest.mark.parametrize("text", ["90", "d", "0d", "1.5h", "1y", "9999999d", "1d1h", " 1d"])
def test_what_is_no_time(said, file, text):
    code, out, err = said("token", "create", "ci", "--expires", text)
    assert (code, out) == (2, "")
    assert err == f"error: --expires is no time: got {text!r}, expected a number and s, m, h, d or w, as 90d\n"
    assert not file.exists()


def test_an_end_that_no_calendar_has(said, file):
    code, out, err = said("token", "create", "ci", "--expires", "999999w")
    assert (code, out) == (2, "")
    assert err == "error: --expires is too long: got '999999w', expected an end before the year 10000\n"
    assert not file.exists()


def test_scopes(said, file):
    assert said("token", "create", "ops", "--scope", "read", "--scope", "admin")[0] == 0
    (record,) = tokenfile.read(file).tokens
    assert record.scopes == {"read", "admin"}
    assert said("token", "create", "x", "--scope", "root")[0] == 2


def test_a_name_is_taken_until_its_token_is_revoked(said):
    assert said("token", "create", "ci")[0] == 0
    assert said("token", "create", "ci") == (
        *(2, "", "error: there is a token 'ci'\nHint: another name, or: tailorbird token revoke ci\n"),
    )
    assert said("token", "revoke", "ci")[0] == 0
    assert said("token", "create", "ci")[0] == 0


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 65, "\x1b[31m", "-x"])
def test_what_is_no_name(said, file, name):
    assert said("token", "create", "--name", name)[0] == 2
    assert not file.exists()


def test_nobody_to_revoke(said, file):
    code, _, err = said("token", "revoke", "ci")
    assert code == 2
    assert err.startswith(f"error: there is no file of tokens at {file}\n")
    assert not file.exists()
    said("token", "create", "robot")
    assert said("token", "revoke", "robto") == (2, "", "error: no token 'robto'\nHint: did you mean 'robot'?\n")


def test_without_a_file_it_lies_beside_the_keys(said, tmp_path, monkeypatch):
    monkeypatch.delenv("TAILORBIRD_TOKENS")
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "config" / "keys"))
    assert said("token", "create", "ci")[0] == 0
    assert (tmp_path / "config" / "tokens.json").exists()


def test_no_tokens(said, file):
    said("token", "create", "ci")
    file.write_text('{"tokens": []}')
    assert said("token", "list") == (0, "no tokens; make one: tailorbird token create NAME\n", "")


def test_a_folder_that_cannot_be_written(said, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = said("token", "create", "ci", "--file", str(tmp_path / "file" / "tokens.json"))
    assert code == 1
    assert err == f"error: cannot write the tokens in {tmp_path}/file/tokens.json: got File exists\n"
