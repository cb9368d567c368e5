"""Tokens: made, written down as digests, recognised again.

A token is ``tailorbird_ID_SECRET``: eight hexadecimal digits that say which one it is, and 32 bytes of
:func:`secrets.token_urlsafe`. The file holds the SHA-256 of the whole text. A salt and a slow hash make guessing dear,
and nobody guesses 256 random bits at any price; NIST SP 800-63B-4, section 3.1.2.2, asks for them below 112 bits only.
What a slow hash would add is work that strangers can cause.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import msgspec

from tailorbird.service.guard.scopes import Scope

PREFIX = "tailorbird_"
SCHEMA = 1
_FORM = re.compile(r"tailorbird_([0-9a-f]{8})_[A-Za-z0-9_-]{43}", re.ASCII)
EVERY_MODEL = ("*",)


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a token."""

    id: str
    name: str
    """Who it was made for; stands in the log."""
    digest: str
    """``sha256:`` and 64 hexadecimal digits."""
    scopes: frozenset[Scope]
    models: tuple[str, ...] = EVERY_MODEL
    """Patterns of the shell; a model's name must match one of them."""
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def state(self, now: datetime) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "valid"


class TokenSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All tokens of a server, as its file has them."""

    schema: int = SCHEMA
    tokens: tuple[TokenRecord, ...] = ()


class Caller(msgspec.Struct, frozen=True):
    """Who calls, and what for."""

    name: str
    """For the log: ``token NAME``, ``certificate NAME``."""
    scopes: frozenset[Scope]
    models: tuple[str, ...] = EVERY_MODEL

    @property
    def sees_all(self) -> bool:
        """Whether no model is kept from it."""
        return "*" in self.models

    def sees(self, model: str) -> bool:
        """Whether it may know of a model of that name."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


EVERYBODY = Caller("", frozenset(Scope))
"""Who comes through a door without a lock: the owner's socket, this machine's loopback, a server without a guard."""


def issue(
    name: str, scopes: frozenset[Scope], models: tuple[str, ...] = EVERY_MODEL, expires: datetime | None = None
) -> tuple[str, TokenRecord]:
    """A new token, and what is to be kept of it. The token itself is nowhere but in the answer."""
    token_id = secrets.token_hex(4)
    token = f"{PREFIX}{token_id}_{secrets.token_urlsafe(32)}"
    record = TokenRecord(id=token_id, name=name, digest=_digest(token), scopes=scopes, models=models,
                         created=datetime.now(UTC).replace(microsecond=0), expires=expires)  # fmt: skip
    return token, record


class Recognised(msgspec.Struct, frozen=True):
    """What became of a token that was shown."""

    record: TokenRecord | None
    """Of whom it is, if its secret is right."""
    why: str
    """Empty where it is good; otherwise for the log."""


_NOBODY = TokenRecord(id="", name="", digest="sha256:" + "0" * 64, scopes=frozenset(), created=datetime.now(UTC))


def recognise(token: str, known: dict[str, TokenRecord], now: datetime) -> Recognised:
    """Find a token by its id, and compare digests in a time that tells nothing of them.

    Args:
        token: as it was shown; anything.
        known: the kept records by id.
        now: with a time zone.
    """
    form = _FORM.fullmatch(token)
    if form is None:
        return Recognised(None, "no token of this kind")
    record = known.get(form[1], _NOBODY)
    if not hmac.compare_digest(_digest(token), record.digest):
        return Recognised(None, "unknown token")
    state = record.state(now)
    return Recognised(record, "" if state == "valid" else state)


def _digest(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
