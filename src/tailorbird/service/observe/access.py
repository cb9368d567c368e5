"""The access log: one line for each inference request, of what it was about and how it ended. Never what is in it."""

from __future__ import annotations

import time

from tailorbird.service.observe import journal
from tailorbird.serving.dataplane import InferRequest

GONE = 499
"""The status of a request whose client left before it was answered, as nginx says it."""


class Access:
    """What the log says of one request; what is not known of it by its end is left out.

    Args:
        protocol: ``http`` or ``grpc``.
        model: its name, where the path has it.
        version: the one asked for, where one is.
        caller: who asks, where a guard knows it.
    """

    __slots__ = ("_caller", "_id", "_model", "_protocol", "_rows", "_started", "_version")

    def __init__(self, protocol: str, model: str = "", version: int | None = None, caller: str = "") -> None:
        self._protocol = protocol
        self._model = model
        self._version = version
        self._caller = caller
        self._id = ""
        self._rows: int | None = None
        self._started = time.perf_counter()

    def asks(self, request: InferRequest) -> None:
        """The request could be read."""
        self._model, self._version, self._id = request.model, request.version, request.id
        first = next(iter(request.inputs.values()), None)
        self._rows = None if first is None or not first.ndim else len(first)

    def ends(self, status: int | str) -> None:
        """It is answered, with that status of its protocol."""
        facts = {"caller": self._caller or None, "id": self._id or None, "version": self._version, "rows": self._rows}
        journal.record(
            "request",
            protocol=self._protocol,
            model=self._model,
            status=status,
            ms=round((time.perf_counter() - self._started) * 1e3, 3),
            **{name: fact for name, fact in facts.items() if fact is not None},
        )
