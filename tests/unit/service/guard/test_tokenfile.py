"""The file of tokens: private, whole, followed, and closed when it is broken."""

import os
import stat
import tempfile
import threading
from pathlib import Path

import msgspec
import pytest

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.service.guard import tokenfile
from tailorbird.service.guard.scopes import Scope
from tailorbird.service.guard.tokenfile import TokenFile
from tailorbird.service.guard.tokens import issue

READ = frozenset({Scope.READ})


def add(path, name="ci"):
    with tokenfile.changing(path) as known:
        token, record = issue(name, READ)
        known[record.id] = record
    return token


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config" / "tokens.json"


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self):
        return self.now


def test_it_is_its_owners_alone_whatever_the_mask(path):
    before = os.umask(0)
    try:
        add(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_tokens_made_at_once_are_all_kept(path):
    threads = [threading.Thread(target=add, args=(path, f"n{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.name for one in tokenfile.read(path).tokens) == [f"n{number}" for number in range(8)]


def test_a_change_that_fails_changes_nothing(path):
    add(path)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), tokenfile.changing(path) as known:
        known[known.popitem()[0]] = 1 / 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "got Input data was truncated"),
        (b"{", "got Input data was truncated"),
        (b"[]", "got Expected `object`, got `array`"),
        (b'{"tokens": [{}]}', "got Object missing required field `id` - at `$.tokens[0]`"),
        (b'{"token": []}', "got Object contains unknown field `token`"),
    ],
)
def test_what_is_no_file_of_tokens(path, content, words):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        tokenfile.read(path)
    assert caught.value.message == f"{path} is no file of tokens: {words}"
    with pytest.raises(UsageError), tokenfile.changing(path):
        pass
    assert path.read_bytes() == content


def test_one_of_a_later_version(path):
    path.parent.mkdir()
    path.write_bytes(b'{"schema": 2, "tokens": []}')
    with pytest.raises(UsageError, match=r"is of another version: got schema 2, expected schema 1$"):
        tokenfile.read(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_one_that_others_can_write_lets_nobody_in(path, mode):
    add(path)
    path.chmod(mode)
    with pytest.raises(UsageError) as caught:
        TokenFile(path)
    assert caught.value.message == (
        f"others than its owner can add tokens to {path}: got mode 0{mode:o}, expected mode 0600\n"
        f"Hint: chmod 600 {path}, and see that every token in it is yours"
    )


def test_one_that_others_can_read_is_good_enough(path):
    """Nobody finds a token by its digest, and a mounted secret often has such a mode."""
    token = add(path)
    path.chmod(0o444)
    assert TokenFile(path).recognise(token).why == ""


def test_none(path):
    with pytest.raises(UsageError) as caught:
        TokenFile(path)
    assert caught.value.message == (
        f"there is no file of tokens at {path}\nHint: 'tailorbird token create NAME --file FILE' makes one"
    )


@pytest.mark.parametrize("kind", ["folder", "pipe", "large"])
def test_what_cannot_be_one_is_not_waited_for(path, kind):
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b" " * (tokenfile.MAX_BYTES + 1))
    with pytest.raises(TailorbirdError):
        tokenfile.read(path)


def test_a_server_follows_its_file_once_a_second(path):
    clock = Clock()
    first = add(path)
    followed = TokenFile(path, clock)
    second = add(path, "second")
    assert [followed.recognise(one).why for one in (first, second)] == ["", "unknown token"]
    clock.now = 1.0
    assert [followed.recognise(one).why for one in (first, second)] == ["", ""]


@pytest.mark.parametrize("how", ["removed", "broken", "open to others"])
def test_a_file_that_cannot_be_read_any_more_lets_nobody_in(path, capsys, how):
    clock = Clock()
    token = add(path)
    followed = TokenFile(path, clock)
    kept = path.read_bytes()
    if how == "removed":
        path.unlink()
    elif how == "broken":
        path.write_bytes(kept[:-5])
    else:
        path.chmod(0o666)
    for second in (1, 2, 3):
        clock.now = second
        assert followed.recognise(token).why == "the file of tokens cannot be read"
    assert capsys.readouterr().err.count("tokens cannot be read: nobody is let in") == 1  # once, not every second
    path.write_bytes(kept)
    path.chmod(0o600)
    clock.now = 4
    assert followed.recognise(token).why == ""
    assert "tokens read again" in capsys.readouterr().err


def test_a_secret_that_kubernetes_swaps_is_followed(path, tmp_path):
    """A mounted secret is a link to a link; what changes is where the second one leads."""
    clock = Clock()
    tokens = []
    for name in ("one", "two"):
        tokens.append(add(tmp_path / name / "tokens.json"))
    path.parent.mkdir()
    (path.parent / "..data").symlink_to(tmp_path / "one")
    path.symlink_to("..data/tokens.json")
    followed = TokenFile(path, clock)
    (path.parent / "..new").symlink_to(tmp_path / "two")
    (path.parent / "..new").rename(path.parent / "..data")
    clock.now = 1
    assert [followed.recognise(one).why for one in tokens] == ["unknown token", ""]


def test_a_change_through_a_link_changes_the_file_that_a_server_follows(path, tmp_path):
    clock = Clock()
    token = add(path)
    followed = TokenFile(path, clock)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with tokenfile.changing(link) as known:
        known.clear()
    clock.now = 1
    assert followed.recognise(token).why == "unknown token"
    assert link.is_symlink()
    assert not list(tmp_path.glob(".link*"))  # two locks would let two change it at once


def test_a_link_that_leads_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TailorbirdError, match=r"^the link .*/loop leads to itself$"):
        add(tmp_path / "loop")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_file_keeps_its_mode(path, mode):
    """It was made so that the server's user can read it."""
    add(path)
    path.chmod(mode)
    add(path, "second")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(path):
    add(path)
    os.chown(path, 65534, 65533)
    path.chmod(0o640)
    add(path, "second")
    state = path.stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (65534, 65533, 0o640)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_file_whose_owner_cannot_be_kept_stays_as_it_is():
    """Somebody may write the folder, but is not the file's owner."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's are root's alone
        path = Path(folder) / "tokens.json"
        add(path)
        path.chmod(0o644)
        Path(folder).chmod(0o777)
        (path.parent / ".tokens.json.lock").chmod(0o666)
        before = path.read_bytes(), path.stat().st_ino
        os.seteuid(65534)
        try:
            with pytest.raises(TailorbirdError, match=r"cannot write the tokens in .*: got Operation not permitted"):
                add(path, "second")
        finally:
            os.seteuid(0)
        assert (path.read_bytes(), path.stat().st_ino) == before
        assert not list(path.parent.glob("*.tmp"))


def test_no_reader_sees_half_a_file(path):
    add(path)
    stop = threading.Event()
    broken = []

    def read():
        while not stop.is_set():
            try:
                tokenfile.read(path)
            except TailorbirdError as error:
                broken.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        add(path, f"n{number}")
    stop.set()
    reader.join()
    assert not broken


def test_the_file_says_who_may_do_what_and_nothing_more(path):
    token = add(path)
    found = msgspec.json.decode(path.read_bytes())
    (one,) = found["tokens"]
    assert (found["schema"], one["name"], one["scopes"], one["models"]) == (1, "ci", ["read"], ["*"])
    assert token[-43:] not in path.read_text()
