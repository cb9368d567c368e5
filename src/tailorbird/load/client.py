"""Clients: how a load speaks to a server, over HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tailorbird.domain.signature import Tensors
from tailorbird.load.payloads import ModelInput

ANSWER_SECONDS = 30.0
OTHER_SERVER = "see that the address is an inference server's: --url http://host:port"


class Answer:
    """A response: a status of its protocol, and its body; of an error over gRPC, its words."""

    __slots__ = ("body", "status")

    def __init__(self, status: int | str, body: bytes) -> None:
        self.status = status
        self.body = body


class Asker(Protocol):
    """What sends requests that were made before."""

    async def ask(self, request: bytes) -> Answer:
        """Send one.

        Raises:
            TailorbirdError: the server cannot be reached.
            ConnectionError: it hung up before it answered.
            TimeoutError: it did not answer in time.
        """


class Client(Asker, Protocol):
    """The whole of what one run needs."""

    async def inputs(self, model: str) -> tuple[ModelInput, ...]:
        """What a model takes; raises :class:`TailorbirdError` where the server does not say it."""

    def request(self, model: str, tensors: Tensors, dtypes: Mapping[str, str]) -> bytes:
        """A whole request for inference, to be made once and sent often."""

    async def close(self) -> None:
        """Hang up."""
