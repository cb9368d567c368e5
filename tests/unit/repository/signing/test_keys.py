"""Keys: made private, chosen, trusted; and every wrong key named."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.repository.signing import keyfiles, keys, pem
from tests.project import tree


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of keys of the test's own, not yet made."""
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(function, *arguments) -> str:
    with pytest.raises(UsageError) as caught:
        function(*arguments)
    return caught.value.message


def public_file(path: Path) -> Path:
    """Somebody else's public key."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    path.write_text(pem.PublicKey(key.public_bytes_raw()).pem)
    return path


def test_a_new_key_is_private_and_trusted(folder: Path) -> None:
    before = os.umask(0)  # the modes must not hang on it
    try:
        own = keys.new()
    finally:
        os.umask(before)
    assert (mode(folder), mode(folder / "trusted"), mode(folder / "default.pem")) == (0o700, 0o700, 0o600)
    assert [(key.name, key.id) for key in keys.trusted()] == [("default", own.id)]
    assert sorted(path.name for path in folder.rglob("*.pem")) == ["default.pem", "default.pem", "default.pub.pem"]
    assert not list(folder.rglob("*.tmp"))


def test_the_private_key_is_never_readable_by_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int]] = []
    real = os.open

    def watch(path, flags, mode=0o777, **more):
        opened.append((Path(path).name, mode))
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", watch)
    monkeypatch.setattr(os, "chmod", lambda *_, **__: pytest.fail("a mode was changed afterwards"))
    keys.new("mine")
    assert [mode for name, mode in opened if name.startswith(".mine.pem.")] == [0o600]


def test_the_id_is_the_digest_of_the_raw_public_key() -> None:
    own = keys.new()
    raw = form.load_pem_public_key(keys.public("default").public.pem.encode()).public_bytes_raw()
    digest = subprocess.run(["sha256sum"], input=raw, capture_output=True, check=True).stdout.split()[0].decode()
    assert own.id == f"ed25519:{digest}"


def test_a_key_reads_back_and_its_repr_is_silent(folder: Path) -> None:
    own = keys.new("mine")
    again = keys.load("mine")
    assert again.id == own.id
    assert again.private.public.verifies(own.private.sign(b"x"), b"x")
    assert not again.private.public.verifies(own.private.sign(b"x"), b"y")
    assert repr(again).endswith(f"private=PrivateKey(public={own.private.public!r}))")
    assert (folder / "mine.pem").read_text().splitlines()[1] not in repr(again)


def test_nothing_is_overwritten(folder: Path) -> None:
    keys.new("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*.pem")}
    assert refusal(keys.new, "mine") == (
        f"there is a key 'mine' already: got {folder}/mine.pem\nHint: keys are never overwritten: choose another name"
    )
    assert {path: path.read_bytes() for path in folder.rglob("*.pem")} == before


@pytest.mark.parametrize("name", ["", "..", "../up", "/etc/key", "a\0b", "x" * 300, "kеy", "-x", "a.pub", "a.p256"])
def test_a_name_that_is_none(name: str, folder: Path, tmp_path: Path) -> None:
    assert refusal(keys.new, name).startswith("not a key's name: got ")
    assert refusal(keys.trust, public_file(tmp_path / "x.pem"), name).startswith("not a key's name: got ")
    assert not folder.exists()


@pytest.mark.parametrize("given", [0o640, 0o604, 0o660, 0o601])
def test_a_private_key_that_others_can_use_is_refused(folder: Path, given: int) -> None:
    keys.new()
    (folder / "default.pem").chmod(given)
    assert refusal(keys.load, "default") == (
        f"others than its owner can use the private key {folder}/default.pem: got mode {given:04o}, "
        f"expected mode 0600\nHint: chmod 600 {folder}/default.pem, and make a new key if others could read it"
    )


def test_a_key_is_never_unbounded(folder: Path) -> None:
    keys.new()
    (folder / "trusted" / "large.pem").write_bytes(bytes(keyfiles.MAX_KEY_BYTES + 1))
    assert refusal(keys.trusted) == (f"{folder}/trusted/large.pem is no key: expected a file of at most 65536 bytes")
    (folder / "trusted" / "large.pem").unlink()
    os.mkfifo(folder / "trusted" / "pipe.pem")  # to open it must not wait for a writer
    assert refusal(keys.trusted).startswith(f"{folder}/trusted/pipe.pem is no key")


class TestPlaces:
    def test_xdg(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("TAILORBIRD_KEYS")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        assert keyfiles.folder() == tmp_path / "config" / "tailorbird" / "keys"

    @pytest.mark.parametrize("config", ["", "relative"])
    def test_home(self, config: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("TAILORBIRD_KEYS")
        monkeypatch.setenv("XDG_CONFIG_HOME", config)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert keyfiles.folder() == tmp_path / ".config" / "tailorbird" / "keys"

    def test_a_place_that_cannot_be(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "file" / "keys"))
        with pytest.raises(TailorbirdError) as caught:
            keys.new()
        assert caught.value.message == (
            f"cannot write the keys in {tmp_path}/file/keys: got File exists\n"
            "Hint: $TAILORBIRD_KEYS names another folder for keys"
        )


class TestChoosing:
    def test_none(self) -> None:
        assert refusal(keys.chosen) == "this machine has no key to sign with\nHint: make one: tailorbird key new"

    def test_the_only_one(self) -> None:
        own = keys.new("mine")
        assert keys.chosen().id == own.id

    def test_default_among_several(self) -> None:
        own = keys.new()
        keys.new("another")
        assert keys.chosen().id == own.id
        assert keys.chosen("another").name == "another"

    def test_several_and_none_is_meant(self) -> None:
        keys.new("a")
        keys.new("b")
        assert refusal(keys.chosen) == (
            "several keys could sign: got a, b, expected one of them, or 'default'\n"
            "Hint: choose one: --key NAME, or its file in $TAILORBIRD_KEY"
        )

    def test_an_unknown_name_names_the_nearest(self) -> None:
        keys.new("mine")
        assert refusal(keys.chosen, "mime") == "this machine has no key 'mime'\nHint: did you mean 'mine'?"

    def test_the_environment_s_file_signs_and_is_trusted(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs = keys.new("ci")
        (folder / "ci.pem").rename(tmp_path / "ci.pem")
        keys.untrust("ci")
        keys.new()
        assert keys.find_trusted(theirs.id) is None
        monkeypatch.setenv("TAILORBIRD_KEY", str(tmp_path / "ci.pem"))
        assert keys.chosen().id == theirs.id
        assert keys.find_trusted(theirs.id) == keys.KnownKey("ci", theirs.private.public)
        assert keys.ensured()[0].id == theirs.id

    def test_the_environment_s_file_is_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("TAILORBIRD_KEY", str(tmp_path / "none.pem"))
        with pytest.raises(TailorbirdError, match=r"cannot read .*none.pem: got No such file or directory"):
            keys.chosen()


class TestEnsured:
    def test_the_first_makes_it(self) -> None:
        own, made = keys.ensured()
        assert (own.name, made) == ("default", True)
        assert keys.ensured()[0].id == own.id
        assert keys.ensured()[1] is False

    def test_processes_at_once_make_one(self, folder: Path) -> None:
        code = "from tailorbird.repository.signing import keys; own, made = keys.ensured(); print(own.id, made)"
        command = [sys.executable, "-c", code]
        environment = {**os.environ, "PYTHONPATH": str(tree.ROOT / "src")}
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(4)]
        said = [process.communicate()[0].split() for process in running]
        assert len({key for key, _ in said}) == 1
        assert sorted(made for _, made in said) == ["False", "False", "False", "True"]
        assert keys.own_names() == ("default",)

    def test_threads_at_once_make_one(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: keys.ensured(), range(8)))
        assert len({own.id for own, _ in found}) == 1
        assert [made for _, made in found].count(True) == 1

    @pytest.mark.parametrize("left", ["private only", "private and trusted"])
    def test_a_half_made_key_is_finished(self, folder: Path, left: str) -> None:
        """Its maker was killed in the middle."""
        own = keys.new()
        (folder / "default.pub.pem").unlink()
        if left == "private only":
            keys.untrust("default")
        again, made = keys.ensured()
        assert (again.id, made) == (own.id, False)
        assert keys.public("default").id == own.id
        assert keys.find_trusted(own.id)

    def test_a_key_that_was_untrusted_stays_so(self, folder: Path) -> None:
        own = keys.new()
        keys.untrust("default")
        assert refusal(keys.ensured) == (
            f"the key 'default' that signs here is not trusted here: got {own.id}\n"
            f"Hint: trust it again: tailorbird key trust {folder}/default.pub.pem"
        )
        keys.trust(folder / "default.pub.pem")
        assert keys.ensured()[0].id == own.id

    def test_another_s_key_of_that_name_is_in_the_way(self, folder: Path, tmp_path: Path) -> None:
        keys.trust(public_file(tmp_path / "default.pem"))
        assert refusal(keys.ensured).startswith("another key is trusted as 'default': got ed25519:")
        assert keys.own_names() == ()


class TestTrusting:
    def test_a_file_and_its_name(self, tmp_path: Path) -> None:
        keys.trust(public_file(tmp_path / "alice.pub.pem"))
        keys.trust(public_file(tmp_path / "b.pem"), "bob")
        keys.trust(tmp_path / "alice.pub.pem")  # once more does no harm
        assert [key.name for key in keys.trusted()] == ["alice", "bob"]
        keys.untrust("alice")
        assert [key.name for key in keys.trusted()] == ["bob"]
        assert refusal(keys.untrust, "alice") == "no key is trusted as 'alice'\nHint: known: bob"

    def test_one_name_for_one_key(self, tmp_path: Path) -> None:
        key = keys.trust(public_file(tmp_path / "alice.pem"))
        assert refusal(keys.trust, tmp_path / "alice.pem", "bob") == (
            f"the key is trusted already, as 'alice': got {key.id}"
        )
        assert refusal(keys.trust, public_file(tmp_path / "other.pem"), "alice").endswith(
            "Hint: choose another name, or first: tailorbird key untrust alice"
        )
        assert keys.trusted() == (key,)

    def test_a_private_key_is_refused(self, folder: Path) -> None:
        keys.new()
        assert refusal(keys.trust, folder / "default.pem", "x") == (
            f"{folder}/default.pem holds a private key: expected the public half alone\n"
            "Hint: never give a private key away; 'tailorbird key show NAME' prints the public half"
        )

    def test_another_algorithm_is_refused(self, tmp_path: Path) -> None:
        for key, kind in (
            (ec.generate_private_key(ec.SECP256R1()), "EC"),
            (rsa.generate_private_key(65537, 2048), "RSA"),
        ):
            public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
            (tmp_path / "x.pem").write_bytes(public)
            found = refusal(keys.trust, tmp_path / "x.pem")
            assert found.startswith(f"{tmp_path}/x.pem is a key of another kind: got ")
            assert kind in found
            assert "expected an Ed25519 public key" in found

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\x00", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
    )
    def test_no_key_at_all(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pem").write_bytes(content)
        assert refusal(keys.trust, tmp_path / "x.pem") == (
            f"{tmp_path}/x.pem is no public key: expected PEM, as 'tailorbird key show' prints it"
        )

    def test_a_broken_file_among_the_trusted_is_named(self, folder: Path) -> None:
        keys.new()
        (folder / "trusted" / "broken.pem").write_text("x")
        assert refusal(keys.trusted).startswith(f"{folder}/trusted/broken.pem is no public key")


class TestPassphrase:
    @pytest.fixture
    def locked(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
        monkeypatch.setenv("TAILORBIRD_KEY_PASSPHRASE", "open sesame")
        keys.new()
        return folder / "default.pem"

    def test_it_locks_and_opens(self, locked: Path) -> None:
        assert b"ENCRYPTED" in locked.read_bytes()
        own = keys.load("default")
        assert b"ENCRYPTED" in keys.companion(own).private_pem

    def test_missing(self, locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TAILORBIRD_KEY_PASSPHRASE")
        assert refusal(keys.load, "default") == (
            f"{locked} is encrypted: expected its passphrase in $TAILORBIRD_KEY_PASSPHRASE"
        )
        assert keys.public("default").name == "default"  # the public half needs none

    def test_wrong(self, locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TAILORBIRD_KEY_PASSPHRASE", "close sesame")
        assert refusal(keys.load, "default") == (
            f"{locked} cannot be decrypted: expected its own passphrase in $TAILORBIRD_KEY_PASSPHRASE"
        )

    def test_an_open_key_needs_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = keys.new()
        monkeypatch.setenv("TAILORBIRD_KEY_PASSPHRASE", "open sesame")
        assert keys.load("default").id == own.id


def test_a_private_key_of_another_algorithm(folder: Path) -> None:
    keys.new()
    (folder / "default.pem").write_bytes(pem.new_p256())
    assert refusal(keys.load, "default") == (
        f"{folder}/default.pem is a key of another kind: got EC, expected an Ed25519 private key\n"
        "Hint: make one with 'tailorbird key new'"
    )
    (folder / "default.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    assert refusal(keys.load, "default") == (
        f"{folder}/default.pem is no private key: expected PEM, PKCS #8\nHint: make one with 'tailorbird key new'"
    )


def test_a_companion_is_made_once(folder: Path) -> None:
    own = keys.new()
    first = keys.companion(own)
    assert mode(folder / "default.p256.pem") == 0o600
    assert keys.companion(own) == first
    assert keys.own_names() == ("default",)
    key = form.load_pem_public_key(first.public_pem.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert "PRIVATE" not in repr(first)


def test_a_companion_of_another_kind_is_refused(folder: Path) -> None:
    own = keys.new()
    keys.companion(own)
    (folder / "default.p256.pem").write_bytes(pem.new_private())
    assert refusal(keys.companion, own).startswith(f"{folder}/default.p256.pem is a key of another kind: got Ed25519")


@pytest.mark.parametrize("name", [".", "trusted"])
def test_folders_of_keys_that_others_can_write_are_refused(folder: Path, name: str) -> None:
    keys.new()
    place = folder / name
    place.chmod(0o770)
    assert refusal(keys.trusted) == (
        f"others than this user can add keys to {place}: got mode 0770, owner {os.getuid()}, "
        f"expected mode 0700, owner {os.getuid()} or root\n"
        f"Hint: chmod 700 {place}, and see that every key in it is yours"
    )
    place.chmod(0o755)
    assert len(keys.trusted()) == 1


def test_a_read_only_mount_of_roots_keeps_its_mode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.new()
    state = [0] * 10
    state[8] = os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(state))
    folder.chmod(0o1777)
    if os.getuid() == 0:
        assert len(keys.trusted()) == 1
    else:
        assert "others than this user" in refusal(keys.trusted)
