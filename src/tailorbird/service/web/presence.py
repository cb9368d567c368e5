"""Presence: whether the client of a running request is still there, found out without a task that watches."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

KEY = "tailorbird.presence"
"""Where it lies in a request's scope."""


class Presence:
    """The client at the other end of one connection, of whose requests one is answered at a time.

    uvicorn says that a client has gone to whoever calls ``receive``. That costs each request a task and an event;
    this costs two assignments, and nothing else until a connection is lost.
    """

    __slots__ = ("_task", "gone")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self.gone = False
        """The connection is lost."""

    def __enter__(self) -> None:
        """From here on the task that runs is cancelled when the client leaves."""
        if self.gone:
            raise asyncio.CancelledError
        self._task = asyncio.current_task()

    def __exit__(self, *_: object) -> None:
        self._task = None

    def leave(self) -> None:
        """The connection is lost: nobody waits for the answer."""
        self.gone = True
        if self._task is not None:
            self._task.cancel()


def presence_of(scope: MutableMapping[str, Any]) -> Presence:
    """The presence that a request's scope carries; where it has none, a client that never leaves."""
    found = scope.get(KEY)
    return found if isinstance(found, Presence) else Presence()
