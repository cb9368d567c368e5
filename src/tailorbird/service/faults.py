"""Requests that are wrong before any model sees them.

::

    WireError                  the bytes are no valid request (a UsageError)
      BodyTooLarge             the body is larger than the server takes
      UnknownEncoding          a Content-Encoding the server does not read
      UnknownPath              no operation has that path
      MethodNotAllowed         the operation has another method
"""

from __future__ import annotations

from tailorbird.domain.errors import UsageError


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
