"""The client of a door: what it is opened with, and what cannot open it."""

import pytest

from tailorbird.cli.adminclient import AdminClient, own_certificate, token_of
from tailorbird.domain.errors import UsageError

HTTPS = "https://localhost:1"


@pytest.mark.parametrize("content", ["one\ntwo\n", "one two", "one\x00", "one\ttwo"])
def test_a_file_with_more_than_a_token(tmp_path, content):
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        token_of(file)
    assert caught.value.message == f"there is no token in {file}: expected one token, and nothing else"


def test_a_file_that_is_no_text(tmp_path):
    file = tmp_path / "token"
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError) as caught:
        token_of(file)
    assert caught.value.message == f"cannot read the token in {file}: got no token"


@pytest.mark.parametrize("value", ["one\ntwo", "tök"])
def test_an_environment_with_more_than_a_token(monkeypatch, value):
    monkeypatch.setenv("TAILORBIRD_TOKEN", value)
    with pytest.raises(UsageError, match=r"^there is no token in \$TAILORBIRD_TOKEN: "):
        token_of(None)


def test_a_token_with_blanks_around_it(tmp_path, monkeypatch):
    (tmp_path / "token").write_text(" one\n\n")
    assert token_of(tmp_path / "token") == "one"
    monkeypatch.delenv("TAILORBIRD_TOKEN", raising=False)
    assert token_of(None) == ""


def test_a_key_without_its_certificate(tmp_path):
    with pytest.raises(UsageError) as caught:
        own_certificate(None, tmp_path / "key")
    assert caught.value.message == ("--key is that of no certificate\nHint: name the certificate with --cert")


def test_a_certificate_that_is_none(tmp_path):
    (tmp_path / "c").write_text("no PEM")
    for own in (own_certificate(tmp_path / "c", None), own_certificate(tmp_path / "c", tmp_path / "missing")):
        with pytest.raises(UsageError, match=rf"^no certificate to show in {tmp_path}/c and "):
            AdminClient(HTTPS, own=own)
