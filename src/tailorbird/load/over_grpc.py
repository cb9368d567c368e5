"""Load over gRPC: raw contents, several connections, and no deadline that the server could see."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.files import reason
from tailorbird.domain.signature import Tensors
from tailorbird.load.client import ANSWER_SECONDS, OTHER_SERVER, Answer
from tailorbird.load.payloads import ModelInput, blob_of

PORT = 8001
CHANNELS = 8
"""Connections at most: one carries many calls, and its bytes pass through one flow control."""
OK = "OK"


class GrpcClient:
    """A client over gRPC, to be made and used in a running event loop.

    Args:
        url: ``host:port``, as gRPC has it; with ``https://`` before it over TLS.
        most: calls at once; whoever needs another waits.
        metadata: sent with every call, as authorisation.
        seconds: for one answer, from when its request is sent.
        ca: a file of certificates that the server's has to be signed by; by default those that gRPC trusts.

    Raises:
        UsageError: the address is none, or the extra ``grpc`` is not installed.
    """

    def __init__(
        self,
        url: str,
        most: int,
        metadata: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
        ca: str = "",
    ) -> None:
        grpc = _installed()
        target, is_encrypted = _target(url)
        options = [
            ("grpc.use_local_subchannel_pool", 1),  # else equal channels share one connection
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        self._grpc = grpc
        self._target = target
        self._metadata = tuple((name.lower(), value) for name, value in (metadata or {}).items())
        self._seconds = seconds
        self._room = asyncio.Semaphore(most)
        self._channels = [self._channel(options, ca, is_encrypted) for _ in range(min(most, CHANNELS))]
        self._infers = itertools.cycle([(one, one.unary_unary(_path("ModelInfer"))) for one in self._channels])

    def _channel(self, options: list[tuple[str, int]], ca: str, is_encrypted: bool) -> Any:
        if not is_encrypted:
            return self._grpc.aio.insecure_channel(self._target, options=options)
        try:
            trusted = Path(ca).read_bytes() if ca else None
        except OSError as error:
            raise UsageError(f"no certificates in {ca}", got=reason(error)) from None
        return self._grpc.aio.secure_channel(self._target, self._grpc.ssl_channel_credentials(trusted), options=options)

    async def ask(self, request: bytes) -> Answer:
        """Send one request.

        Raises:
            TailorbirdError: the server cannot be reached.
            TimeoutError: it did not answer in time.
        """
        async with self._room:
            return await self._call(*next(self._infers), request)

    async def inputs(self, model: str) -> tuple[ModelInput, ...]:
        """What a model takes; raises :class:`TailorbirdError` where the server does not say it."""
        from google.protobuf.message import DecodeError

        from tailorbird.service.rpc import schema

        channel = self._channels[0]
        call = channel.unary_unary(_path("ModelMetadata"))
        try:
            answer = await self._call(channel, call, schema.ModelMetadataRequest(name=model).SerializeToString())
        except (ConnectionError, TimeoutError) as error:
            raise TailorbirdError(f"the server does not say what '{model}' takes", got=error,
                                  expected="its metadata", hint=OTHER_SERVER) from error  # fmt: skip
        if answer.status != OK:
            raise TailorbirdError(f"the server has no model '{model}' to bench", got=f"status {answer.status}",
                                  hint=answer.body[:200].decode("utf-8", "replace"))  # fmt: skip
        try:
            found = schema.ModelMetadataResponse.FromString(answer.body).inputs
        except DecodeError as error:
            raise TailorbirdError(f"the metadata of '{model}' cannot be read", got=error,
                                  expected="an Open Inference message", hint=OTHER_SERVER) from error  # fmt: skip
        return tuple(ModelInput(one.name, one.datatype, tuple(one.shape)) for one in found)

    def request(self, model: str, tensors: Tensors, dtypes: Mapping[str, str]) -> bytes:
        """A whole request for inference, its tensors in ``raw_input_contents``."""
        from tailorbird.service.rpc import schema

        message = schema.ModelInferRequest(model_name=model)
        for name, array in tensors.items():
            message.inputs.add(name=name, datatype=dtypes[name], shape=array.shape)
            message.raw_input_contents.append(blob_of(array))
        made: bytes = message.SerializeToString()
        return made

    async def close(self) -> None:
        """Hang up all connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def _call(self, channel: Any, call: Any, request: bytes) -> Answer:
        """One call. Its time limit is kept here: a deadline of the call's own would be the request's for the server."""
        try:
            async with asyncio.timeout(self._seconds):
                return Answer(OK, await call(request, metadata=self._metadata))
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._seconds:g} s") from None
        except self._grpc.aio.AioRpcError as error:
            return self._refusal(channel, error)

    def _refusal(self, channel: Any, error: Any) -> Answer:
        """A server that refuses is UNAVAILABLE, and so is one that is not there; then the connection is not ready."""
        code, words = error.code().name, error.details() or ""
        if code == "UNAVAILABLE" and channel.get_state() is not self._grpc.ChannelConnectivity.READY:
            raise TailorbirdError(f"cannot reach {self._target}", got=words[:200],
                                  hint="start one: tailorbird serve")  # fmt: skip
        return Answer(code, words.encode("utf-8", "replace"))


def _path(method: str) -> str:
    from tailorbird.service.rpc import schema

    return f"/{schema.INFERENCE}/{method}"


def _target(url: str) -> tuple[str, bool]:
    """The address, and whether it is spoken to over TLS."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host = None
    if parts.scheme not in ("http", "https", "grpc") or not host:
        raise UsageError("not a server's address", got=url, expected="host:port")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", parts.scheme == "https"


def _installed() -> Any:
    try:
        import grpc
        import grpc.aio

        import tailorbird.service.rpc.schema  # noqa: F401 - which needs protobuf
    except ImportError as error:
        raise UsageError("gRPC is not installed here", got="--protocol grpc",
                         hint="pip install 'tailorbird[grpc]'") from error  # fmt: skip
    return grpc
