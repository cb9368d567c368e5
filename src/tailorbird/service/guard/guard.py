"""The guard: one place that every request of a door passes, before its body is read and before a model is looked up."""

from __future__ import annotations

from tailorbird.domain.errors import ModelNotFound
from tailorbird.service.faults import Forbidden, NotAtThisDoor, Refused, Unauthenticated
from tailorbird.service.guard.refusals import Refusals
from tailorbird.service.guard.scopes import ALL, HEALTH, OF_ALL_MODELS, OFFERED, SCOPES, Door
from tailorbird.service.guard.tls import ClientNames
from tailorbird.service.guard.tokenfile import TokenFile
from tailorbird.service.guard.tokens import EVERYBODY, Caller
from tailorbird.service.routes import Operation

ANYBODY = Caller("", frozenset())
"""Who asks for what is open to all."""


class Guard:
    """Who may do what at one door.

    Args:
        door: which operations are offered at all.
        tokens: whose tokens are let in; None where none is asked for.
        clients: which client certificates are let in; None where none is asked for.
        open_health: whether health is told to anybody.
        refusals: where refusals are counted.
    """

    def __init__(
        self,
        door: Door,
        tokens: TokenFile | None = None,
        clients: ClientNames | None = None,
        *,
        open_health: bool = False,
        refusals: Refusals | None = None,
    ) -> None:
        self._offered = OFFERED[door]
        self._tokens = tokens
        self._clients = clients
        self._open = HEALTH & self._offered if open_health else frozenset()
        self.refusals = refusals or Refusals()
        """What was refused, counted."""

    @property
    def asks_certificates(self) -> bool:
        """Whether it wants to know the names in a client's certificate."""
        return self._clients is not None

    def is_open(self, operation: Operation | None) -> bool:
        """Whether anybody may ask for that."""
        return operation in self._open

    def known(self, credential: str | None, names: tuple[str, ...] = ()) -> Caller:
        """Who calls.

        Args:
            credential: what the request says in ``Authorization``; None where it says nothing.
            names: those in the client's certificate, the common name first.

        Raises:
            Unauthenticated: no token, or none that is good now.
            Forbidden: the certificate's names are not those that are let in.
        """
        certificate = ""
        if self._clients is not None:
            certificate = self._clients.match(names)
        if self._tokens is None:
            return Caller(f"certificate {certificate}", ALL) if certificate else EVERYBODY
        caller = _token_caller(self._tokens, credential)
        return caller if not certificate else Caller(f"{caller.name}, certificate {certificate}", caller.scopes,
                                                     caller.models)  # fmt: skip

    def allow(self, caller: Caller, operation: Operation, model: str = "") -> None:
        """Let a known caller do something, or refuse.

        Args:
            caller: from :meth:`known`.
            operation: what for; one that no table names is refused.
            model: of which model; empty where the operation is about none, or where the filter comes later.

        Raises:
            Forbidden: the caller's scopes or models do not cover it.
            NotAtThisDoor: it is not offered here.
        """
        wanted = SCOPES.get(operation)
        if wanted is None:
            raise Forbidden(f"the operation '{operation}' is not allowed", why="no scope")
        if not wanted & caller.scopes:
            raise Forbidden(f"the operation '{operation}' is not allowed", why="scope", scopes=tuple(sorted(wanted)))
        if not (caller.sees_all or (caller.sees(model) if model else operation not in OF_ALL_MODELS)):
            about = f"model '{model}'" if model else f"the operation '{operation}'"
            raise Forbidden(f"{about} is not allowed with this token", why="model")
        if operation not in self._offered:
            raise NotAtThisDoor(operation)

    def count(self, refusal: Refused, protocol: str, address: str = "") -> None:
        """Note a refusal for the log and the metrics."""
        self.refusals.note(protocol, refusal.why, address)


def _token_caller(tokens: TokenFile, credential: str | None) -> Caller:
    if credential is None:
        raise Unauthenticated("no token", offered=False)
    scheme, _, token = credential.partition(" ")
    if scheme.lower() != "bearer":  # RFC 9110, section 11.1: schemes are told apart without regard to case
        raise Unauthenticated("no bearer token", offered=True)
    found = tokens.recognise(token.strip(" "))
    if found.why or found.record is None:
        of = f" of token {found.record.name}" if found.record else ""
        raise Unauthenticated(f"{found.why}{of}", offered=True)
    return Caller(f"token {found.record.name}", found.record.scopes, found.record.models)


def hidden(error: Exception, caller: Caller) -> Exception:
    """The error as its caller may see it: an unknown model's neighbours are not named to whom may not see them all."""
    if isinstance(error, ModelNotFound) and not caller.sees_all:
        error.hint = None
    return error
