"""Load over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.signature import Tensors
from tailorbird.load import payloads
from tailorbird.load.client import OTHER_SERVER, Answer
from tailorbird.load.connection import Pool


class _Metadata(msgspec.Struct):
    inputs: tuple[payloads.ModelInput, ...]


class HttpClient:
    """A client over HTTP.

    Args:
        pool: its connections; closed with it.
        json: send tensors as JSON instead of binary.
    """

    def __init__(self, pool: Pool, *, json: bool = False) -> None:
        self._pool = pool
        self._encode = payloads.plain if json else payloads.binary

    async def ask(self, request: bytes) -> Answer:
        """Send one request; raises as :meth:`Pool.ask`."""
        return await self._pool.ask(request)

    async def inputs(self, model: str) -> tuple[payloads.ModelInput, ...]:
        """What a model takes; raises :class:`TailorbirdError` where the server does not say it."""
        answer = await self._metadata(model)
        if answer.status != 200:
            raise TailorbirdError(f"the server has no model '{model}' to bench", got=f"status {answer.status}",
                                  hint=answer.body[:200].decode("utf-8", "replace"))  # fmt: skip
        try:
            return msgspec.json.decode(answer.body, type=_Metadata).inputs
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TailorbirdError(f"the metadata of '{model}' cannot be read", got=error,
                                  expected="Open Inference Protocol JSON", hint=OTHER_SERVER) from error  # fmt: skip

    def request(self, model: str, tensors: Tensors, dtypes: Mapping[str, str]) -> bytes:
        """A whole request for inference."""
        payload = self._encode(tensors, dtypes)
        return self._pool.request("POST", f"/v2/models/{quote(model, safe='')}/infer", payload.headers, payload.body)

    async def close(self) -> None:
        """Hang up all connections."""
        self._pool.close()
        await asyncio.sleep(0)  # connections are closed in the loop's next turn

    async def _metadata(self, model: str) -> Answer:
        try:
            return await self._pool.ask(self._pool.request("GET", f"/v2/models/{quote(model, safe='')}"))
        except (ConnectionError, TimeoutError) as error:
            raise TailorbirdError(f"the server does not say what '{model}' takes", got=error,
                                  expected="its metadata", hint=OTHER_SERVER) from error  # fmt: skip
