"""What the vendor's library says: every message kept, and an error made of the bad ones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.errors import BackendError

_MOST = 400
"""Messages kept before those that are only for information are dropped: a build log is read by people."""

_LONGEST = 2000
"""Characters of one message that are kept."""

_MEMORY = ("out of memory", "outofmemory", "cudaerrormemoryallocation", "insufficient memory", "requested amount of")
_OUT_OF_MEMORY = "serve smaller shapes, allow a smaller workspace, or free the device's memory"
_BANNER = ("Input filename:", "Domain:", "Doc string:", "Model version:")
"""Begins what the parser says of every file; a path of this machine has no place in a bundle's log."""

_UNFIT = ("Thread context has not been set",)
"""Said at the highest severity by a build that does well (TensorRT-RTX 1.7)."""


class Message(msgspec.Struct, frozen=True):
    """One line of the library."""

    severity: str
    """``internal_error``, ``error``, ``warning`` or ``info``."""
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


class Heard:
    """Collects what is said; its :meth:`logger` is what the library wants.

    The library calls from threads of its own, and whatever a callback raises would end the process.

    Args:
        file: receives every message at once, as a line, so that a library that crashes leaves its last words.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.messages: list[Message] = []
        self.layers = ""
        """The builder's list of an engine's layers, which only its chatter has."""
        self._file = file
        self._room = _MOST

    def logger(self, trt: Any) -> Any:
        """An ``ILogger`` of the vendor's module, which must live as long as what is made with it."""
        verbose, heard = trt.ILogger.Severity.VERBOSE, self

        class Logger(trt.ILogger):  # the base is known only here
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                if severity != verbose:
                    heard.add(str(severity).rpartition(".")[2].lower(), text)
                elif text.startswith("Layers:"):
                    heard.layers = text

        return Logger()

    def add(self, severity: str, text: str) -> None:
        """Keep one message; where there were too many, no more of what is only for information."""
        message = Message(severity, " ".join(text.split())[:_LONGEST])
        if not message.text.strip("-") or message.text.startswith(_BANNER) or (severity == "info" and self._room <= 0):
            return
        self._room -= 1
        self.messages.append(message)
        del self.messages[: -2 * _MOST]
        if self._file is not None:
            with contextlib.suppress(OSError), self._file.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{message}\n")

    @property
    def errors(self) -> tuple[str, ...]:
        """Texts of what went wrong, each once, in order."""
        bad = (one.text for one in self.messages if one.severity in {"error", "internal_error"})
        return tuple(dict.fromkeys(text for text in bad if not text.startswith(_UNFIT)))

    def failure(self, what: str, *, otherwise: str, hint: str | None = None) -> BackendError:
        """The error that ends a step of which the library gave back nothing, in its own words.

        They are then forgotten: a session lives on, and its next failure has words of its own.
        """
        said = "; ".join(self.errors[-4:]) or otherwise
        self.messages.clear()
        short = any(word in said.lower() for word in _MEMORY)
        return BackendError(what, got=said, hint=_OUT_OF_MEMORY if short else hint)
