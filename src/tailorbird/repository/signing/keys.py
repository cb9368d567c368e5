"""Keys: this machine's own, which sign, and those of others that it trusts.

::

    <keys>/NAME.pem            private: PEM, PKCS #8, mode 0600
    <keys>/NAME.pub.pem        its public half, to give to others; written last, so a key without one is half made
    <keys>/NAME.p256.pem       its companion for other tools' signatures, made on the first export
    <keys>/trusted/NAME.pem    public keys whose bundles are loaded here
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tailorbird.domain.bundle import is_plain_name
from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.files import sync
from tailorbird.repository.signing import keyfiles, pem
from tailorbird.repository.signing.keyfiles import disk, folder, making, names_in

KEY_FILE = "TAILORBIRD_KEY"
"""Names a private key's file in the environment: it signs, whatever keys this machine has, and is trusted."""
DEFAULT = "default"

_NAME = "1 to 128 of ASCII letters, digits, '.', '_' and '-', starting with a letter or digit"
_TAKEN_ENDS = (".pub", ".p256")


@dataclass(frozen=True)
class OwnKey:
    """A private key of this machine, read."""

    name: str
    path: Path
    private: pem.PrivateKey

    @property
    def id(self) -> str:
        """The key's id."""
        return self.private.public.id


class KnownKey(msgspec.Struct, frozen=True):
    """A public key by the name it has here."""

    name: str
    public: pem.PublicKey

    @property
    def id(self) -> str:
        """The key's id."""
        return self.public.id


def new(name: str = DEFAULT) -> OwnKey:
    """Make a key, and trust it here.

    Raises:
        UsageError: the name is not one, or taken.
        TailorbirdError: the folder of keys cannot be written.
    """
    _check_name(name)
    with making():
        path = _private_path(name)
        if path.exists():
            hint = "keys are never overwritten: choose another name"
            raise UsageError(f"there is a key '{name}' already", got=path, hint=hint)
        return _made(name)


def ensured() -> tuple[OwnKey, bool]:
    """The key that signs here, and whether it was made for that just now.

    Of several processes that come to a machine without keys, one makes the key and all use it.

    Raises:
        UsageError: as :func:`chosen`; or the key is not trusted here, so that what it signs would be refused.
        TailorbirdError: the folder of keys cannot be written.
    """
    if os.environ.get(KEY_FILE):
        return chosen(), False
    if not own_names() or not all(_public_path(name).exists() for name in own_names()):
        with making():
            if not own_names():
                return _made(DEFAULT), True
            _mend()
    own = chosen()
    if find_trusted(own.id) is None:
        raise UsageError(f"the key '{own.name}' that signs here is not trusted here", got=own.id,
                         hint=f"trust it again: tailorbird key trust {_public_path(own.name)}")  # fmt: skip
    return own, False


def chosen(name: str | None = None) -> OwnKey:
    """The key to sign with: the named one, else ``$TAILORBIRD_KEY``, else ``default``, else the only one.

    Raises:
        UsageError: there is no such key, there are several and none is meant, or its file is refused.
        TailorbirdError: its file cannot be read.
    """
    if name is not None:
        return load(name)
    if file := os.environ.get(KEY_FILE):
        return _read(Path(file).name.removesuffix(".pem"), Path(file))
    if signing := signing_name():
        return load(signing)
    if names := own_names():
        raise UsageError("several keys could sign", got=", ".join(names), expected=f"one of them, or '{DEFAULT}'",
                         hint=f"choose one: --key NAME, or its file in ${KEY_FILE}")  # fmt: skip
    raise UsageError("this machine has no key to sign with", hint="make one: tailorbird key new")


def signing_name() -> str | None:
    """The name of the key in the folder that signs when nothing else is said: ``default``, or the only one."""
    names = own_names()
    if DEFAULT in names:
        return DEFAULT
    return names[0] if len(names) == 1 else None


def own_names() -> tuple[str, ...]:
    """Names of this machine's own keys, in alphabetical order."""
    return tuple(name for name in names_in(folder()) if not name.endswith(_TAKEN_ENDS))


def load(name: str) -> OwnKey:
    """Read one of this machine's own keys.

    Raises:
        UsageError: there is no such key, others can read its file, or it cannot be decrypted.
        TailorbirdError: its file cannot be read.
    """
    if name not in own_names():
        raise _unknown(f"this machine has no key {name!a}", name, own_names())
    return _read(name, _private_path(name))


def public(name: str) -> KnownKey:
    """The public half of one of this machine's own keys, or a trusted key; raises :class:`UsageError` for neither."""
    own, others = own_names(), names_in(_trusted_folder())
    if name not in own and name not in others:
        raise _unknown(f"there is no key {name!a}", name, (*own, *others))
    if name not in own:
        return _known(name, _trusted_path(name))
    if not _public_path(name).exists():
        return KnownKey(name, load(name).private.public)
    return _known(name, _public_path(name))


def trusted() -> tuple[KnownKey, ...]:
    """The keys trusted here; raises :class:`UsageError` naming a file that holds none."""
    return tuple(_known(name, _trusted_path(name)) for name in names_in(_trusted_folder()))


def find_trusted(key_id: str) -> KnownKey | None:
    """The trusted key of that id, if there is one; the key in ``$TAILORBIRD_KEY`` counts as trusted."""
    found = next((key for key in trusted() if key.id == key_id), None)
    if found is None and os.environ.get(KEY_FILE):
        own = chosen()
        return KnownKey(own.name, own.private.public) if own.id == key_id else None
    return found


def trust(file: Path, name: str | None = None) -> KnownKey:
    """Trust a public key from now on.

    Args:
        file: its PEM.
        name: what to call it here; by default made of the file's name.

    Raises:
        UsageError: the file holds no Ed25519 public key; or the name is not one, or another key's.
        TailorbirdError: the file cannot be read, or the folder of keys cannot be written.
    """
    name = file.name.removesuffix(".pem").removesuffix(".pub") if name is None else name
    _check_name(name)
    key = _known(name, file)
    with making():
        _write_trusted(key)
    return key


def untrust(name: str) -> None:
    """Trust a key no longer.

    Raises:
        UsageError: no trusted key has that name.
        TailorbirdError: the folder of keys cannot be written.
    """
    known = names_in(_trusted_folder())
    if name not in known:
        raise _unknown(f"no key is trusted as {name!a}", name, known)
    with disk("write"):
        _trusted_path(name).unlink(missing_ok=True)
        sync(_trusted_folder())


def companion(own: OwnKey) -> pem.Companion:
    """The P-256 key that stands beside an own key, made when there is none.

    Raises:
        UsageError: others can read its file, or it cannot be decrypted.
        TailorbirdError: the folder cannot be read or written.
    """
    path = own.path.with_name(f"{own.path.name.removesuffix('.pem')}.p256.pem")
    with making(), disk("write", path.parent):
        if not path.exists():
            keyfiles.write_private(path, pem.new_p256())
    return pem.read_p256(keyfiles.read(path, private=True), str(path))


def _read(name: str, path: Path) -> OwnKey:
    return OwnKey(name, path, pem.read_private(keyfiles.read(path, private=True), str(path)))


def _known(name: str, path: Path) -> KnownKey:
    return KnownKey(name, pem.read_public(keyfiles.read(path), str(path)))


def _made(name: str) -> OwnKey:
    """A new key on the disk, while the folder is locked."""
    content = pem.new_private()
    own = OwnKey(name, _private_path(name), pem.read_private(content, name))
    _check_free(KnownKey(name, own.private.public))
    with disk("write"):
        keyfiles.write_private(own.path, content)
    _finish(own)
    return own


def _mend() -> None:
    """Finish keys whose maker was killed in the middle, while the folder is locked."""
    for name in own_names():
        if not _public_path(name).exists():
            _finish(load(name))


def _finish(own: OwnKey) -> None:
    _write_trusted(KnownKey(own.name, own.private.public))
    with disk("write"):
        keyfiles.write_public(_public_path(own.name), own.private.public.pem)


def _write_trusted(key: KnownKey) -> None:
    _check_free(key)
    with disk("write"):
        _trusted_folder().mkdir(mode=0o700, exist_ok=True)
        keyfiles.write_public(_trusted_path(key.name), key.public.pem)


def _check_free(key: KnownKey) -> None:
    """One name for each trusted key, and one key for each name."""
    for other in trusted():
        if other.name == key.name and other.id != key.id:
            raise UsageError(f"another key is trusted as '{key.name}'", got=key.id, expected=other.id,
                             hint=f"choose another name, or first: tailorbird key untrust {key.name}")  # fmt: skip
        if other.id == key.id and other.name != key.name:
            raise UsageError(f"the key is trusted already, as '{other.name}'", got=key.id)


def _private_path(name: str) -> Path:
    return folder() / f"{name}.pem"


def _public_path(name: str) -> Path:
    return folder() / f"{name}.pub.pem"


def _trusted_folder() -> Path:
    return folder() / "trusted"


def _trusted_path(name: str) -> Path:
    return _trusted_folder() / f"{name}.pem"


def _unknown(what: str, name: str, known: tuple[str, ...]) -> UsageError:
    close = nearest(name, known)
    hint = f"did you mean '{close}'?" if close else f"known: {', '.join(known) or 'none'}"
    return UsageError(what, hint=hint)


def _check_name(name: str) -> None:
    if not is_plain_name(name) or name.endswith(_TAKEN_ENDS):
        shown = ascii(name) if len(name) <= 200 else f"{len(name)} characters"
        expected = f"{_NAME}, and not ending with {' or '.join(_TAKEN_ENDS)}"
        raise UsageError("not a key's name", got=shown, expected=expected, hint="give it another name")
