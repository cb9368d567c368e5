"""Clients: each asks one request after another, its own way, and holds every answer against what it asked."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import grpc

from tailorbird.service.rpc import schema
from tests.stress import marks
from tests.stress.marks import Asked, Marks, Mixed

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
PIPELINE = 8
LEAVES = 0.03
"""Share of requests whose client leaves before the answer is there."""
PATIENCE_S = 90.0
"""For one answer. A request that gets none is lost, which is as bad as a mixed one."""


class Tally:
    """What became of all requests."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.mixed: list[str] = []
        self.lost: list[str] = []
        self.versions: Counter[str] = Counter()

    @property
    def asked(self) -> int:
        """Requests sent."""
        return sum(self.kinds.values())

    def __str__(self) -> str:
        rows = "\n".join(f"  {count:9,}  {kind}" for kind, count in sorted(self.kinds.items(), key=lambda one: -one[1]))
        return f"{self.asked:,} requests, mixed rows: {len(self.mixed)}, lost: {len(self.lost)}\n{rows}"


class Client:
    """One client. Subclasses know a protocol.

    Args:
        place: ``host:port``.
        deal: its requests.
        tally: what became of them.
        pause_s: between an answer and the next request, on average; a request a client at a time.
    """

    def __init__(self, place: str, deal: Marks, tally: Tally, pause_s: float = 0.0) -> None:
        self.place, self.deal, self.tally, self.pause_s = place, deal, tally, pause_s
        self.chance = random.Random(id(deal) & 0xFFFF)
        self.leaves = LEAVES

    async def work(self, until: float) -> None:
        """Ask until the monotonic clock says so; a connection that breaks is made again."""
        while time.monotonic() < until:
            try:
                await self.session(until)
            except (ConnectionError, asyncio.IncompleteReadError, OSError) as error:
                self.tally.kinds[f"{self.words} connection: {type(error).__name__}"] += 1
                await asyncio.sleep(0.05)

    words = ""

    async def session(self, until: float) -> None:
        """Ask over one connection."""
        raise NotImplementedError

    def answered(self, by: str) -> str:
        """Note which version answered."""
        self.tally.versions[by] += 1
        return "answered"

    async def outcome(self, asked: Asked, asking: Awaitable[str]) -> None:
        """Note what became of one request."""
        try:
            kind = await asyncio.wait_for(asking, PATIENCE_S)
        except Mixed as error:
            kind = "MIXED"
            self.tally.mixed.append(str(error))
        except TimeoutError:
            kind = "LOST"
            self.tally.lost.append(f"{self.words} request {asked.serial} to {asked.model}")
        self.tally.kinds[f"{self.words} {kind}"] += 1
        if self.pause_s:
            await asyncio.sleep(self.chance.expovariate(1 / self.pause_s))


class Http(Client):
    """HTTP/1.1, kept alive; JSON and binary data in turn."""

    words = "http"

    async def session(self, until: float) -> None:
        url = urlsplit(f"//{self.place}")
        reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1 << 22)
        try:
            while time.monotonic() < until:
                asked = self.deal.deal()
                request = self.chance.choice((marks.http_json, marks.http_binary))(asked)
                writer.write(request)
                if self.chance.random() < self.leaves:
                    await asyncio.sleep(self.chance.uniform(0, 0.01))
                    self.tally.kinds["http left"] += 1
                    return
                closing = [False]
                await self.outcome(asked, self._answer(asked, reader, closing))
                if closing[0]:
                    return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, closing: list[bool]) -> str:
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers = _head(head)
        closing[0] = headers.get(b"connection") == b"close"
        body = await reader.readexactly(int(headers[b"content-length"]))
        if status != 200:
            return f"{status}: {_first_words(body.decode())}"
        text = headers.get(b"inference-header-content-length")
        return self.answered(marks.check_http(asked, body, None if text is None else int(text)))


class Unary(Client):
    """gRPC, a call at a time."""

    words = "grpc"

    async def session(self, until: float) -> None:
        async with grpc.aio.insecure_channel(self.place) as channel:
            call = channel.unary_unary(INFER)
            while time.monotonic() < until:
                asked = self.deal.deal()
                running = call(marks.rpc(asked, raw=self.chance.random() < 0.5))
                if self.chance.random() < self.leaves:
                    await asyncio.sleep(self.chance.uniform(0, 0.01))
                    running.cancel()
                    self.tally.kinds["grpc left"] += 1
                    continue
                await self.outcome(asked, self._answer(asked, running))

    async def _answer(self, asked: Asked, running: Awaitable[bytes]) -> str:
        try:
            return self.answered(marks.check_rpc(asked, await running))
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {_first_words(error.details() or '')}"


class Stream(Client):
    """gRPC, several requests at a time on one stream, answered in order."""

    words = "stream"

    async def session(self, until: float) -> None:
        async with grpc.aio.insecure_channel(self.place) as channel:
            stream = channel.stream_stream(STREAM)()
            while time.monotonic() < until:
                batch = [self.deal.deal() for _ in range(self.chance.randrange(1, PIPELINE + 1))]
                if not await self._rounds(stream, batch):
                    return
                if self.chance.random() < self.leaves:
                    return  # with the channel goes the stream
            await stream.done_writing()

    async def _rounds(self, stream: grpc.aio.StreamStreamCall, batch: list[Asked]) -> bool:
        """Several requests and their answers; False where the stream has ended."""
        try:
            for asked in batch:
                await stream.write(marks.rpc(asked, raw=True))
            for asked in batch:
                await self.outcome(asked, self._answer(asked, stream))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else "ended"
            self.tally.kinds[f"stream broken: {code}"] += 1
            return False
        return True

    async def _answer(self, asked: Asked, stream: grpc.aio.StreamStreamCall) -> str:
        message = await stream.read()
        if message is grpc.aio.EOF:
            raise ConnectionResetError
        found = schema.ModelStreamInferResponse.FromString(message)
        if not found.error_message:
            return self.answered(marks.check_answer(asked, found.infer_response))
        if found.infer_response.id != str(asked.serial):
            raise Mixed(f"request {asked.serial} got the error of {found.infer_response.id}")
        return f"error: {_first_words(found.error_message)}"


Kind = Callable[[str, Marks, Tally, float], Client]


def _head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head[:-4].lower().split(b"\r\n")
    return int(first.split()[1]), dict(line.split(b": ", 1) for line in lines)


def _first_words(text: str) -> str:
    """What went wrong without its numbers and names, so that it can be counted."""
    line = text.removeprefix('{"error":"').split("\\n")[0].splitlines()[0] if text else ""
    plain = line.split(": got", 1)[0].split(": expected", 1)[0]
    return " ".join("N" if any(char.isdigit() for char in word) else word for word in plain.split())[:80]
