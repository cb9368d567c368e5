"""Requests that are wrong before any model sees them.

::

    WireError                  the bytes are no valid request (a UsageError)
      BodyTooLarge             the body is larger than the server takes
      UnknownEncoding          a Content-Encoding the server does not read
      UnknownPath              no operation has that path
      MethodNotAllowed         the operation has another method
      NotOffered               the protocol has that operation, this server has not
    Refused                    the caller may not do that (a TailorbirdError)
      Unauthenticated          nobody knows who calls
      Forbidden                the caller's token or certificate is not for that
      NotAtThisDoor            another port or socket offers the operation
"""

from __future__ import annotations

from tailorbird.domain.errors import TailorbirdError, UsageError


class WireError(UsageError):
    """The bytes are no valid request."""


class BodyTooLarge(WireError):
    """The body is larger than the server takes."""

    def __init__(self, limit: int, got: int | None = None) -> None:
        size = None if got is None else f"{got} bytes"
        super().__init__("the request's body is too large", got=size, expected=f"at most {limit} bytes",
                         hint="send fewer rows at once, or raise the server's limit")  # fmt: skip


class UnknownEncoding(WireError):
    """A Content-Encoding the server does not read."""

    def __init__(self, encoding: str) -> None:
        super().__init__("unknown Content-Encoding", got=repr(encoding), expected="gzip, deflate or identity")


class UnknownPath(WireError):
    """No operation has that path."""

    def __init__(self, path: str) -> None:
        shown = path if len(path) <= 200 else path[:200] + "…"
        super().__init__(f"unknown path '{shown}'", hint="the server's operations begin with /v2")


class MethodNotAllowed(WireError):
    """The operation has another method."""

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"method {method[:20]} does not apply here", expected=allowed)
        self.allowed = allowed


class NotOffered(WireError):
    """The protocol has that operation, this server has not."""

    def __init__(self, operation: str, hint: str | None = None) -> None:
        super().__init__(f"the operation {operation} is not offered by this server", hint=hint)


class Refused(TailorbirdError):
    """The caller may not do that. ``why`` is for the log and for counting, never for the caller."""

    def __init__(self, what: str, *, why: str, expected: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, expected=expected, hint=hint)
        self.why = why
        self.ends_connection = False
        """Whether there is more of the request than is worth reading."""
        self.asks_browser = False
        """Whether a browser may ask its user for the token."""


class Unauthenticated(Refused):
    """Nobody knows who calls. A token that is unknown, expired, revoked or broken: the caller cannot tell which."""

    def __init__(self, why: str, *, offered: bool) -> None:
        if offered:
            super().__init__("the token is not valid", why=why)
        else:
            super().__init__("a token is needed", why=why, hint="send it as 'Authorization: Bearer TOKEN'")
        self.offered = offered
        """Whether the request brought a token."""


class Forbidden(Refused):
    """The caller's token or certificate is not for that; the same words whether the model exists or not."""

    def __init__(self, what: str, *, why: str, scopes: tuple[str, ...] = ()) -> None:
        expected = f"a token with the scope {' or '.join(scopes)}" if scopes else None
        super().__init__(what, why=why, expected=expected)
        self.scopes = scopes
        """Any of which would do."""


class NotAtThisDoor(Refused):
    """Another port or socket offers the operation, if any does."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"the operation '{operation}' is not offered here", why="door",
                         hint="'tailorbird serve --admin' opens a door for administration")  # fmt: skip
