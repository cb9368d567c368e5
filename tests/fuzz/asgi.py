"""The whole HTTP service behind its server: one request in, one answer out, and never one that says "my fault"."""

import json
from typing import Any

from tests.fuzz.documents import Document, parsed
from tests.fuzz.world import Finding, journal, world

STATUSES = {200, 400, 401, 403, 404, 405, 408, 411, 413, 415, 431, 501, 503}


def one(case: bytes) -> None:
    """A document as a request to the ASGI callable."""
    asked = parsed(case)
    with journal() as said:
        sent = world().do(answered(asked))
    head, body = checked(sent)
    check(head["status"], body, said.getvalue())
    sizes = [value for name, value in head["headers"] if name == b"content-length"]
    if sizes != [b"%d" % len(body)]:
        raise Finding(f"lengths {sizes} for {len(body)} bytes")


async def answered(asked: Document) -> list[Any]:
    """What the service sends, its server's part done: header names in small letters, a length that is a number."""
    sent: list[Any] = []
    half = len(asked.body) // 2
    parts = [{"type": "http.request", "body": asked.body[:half], "more_body": True},
             {"type": "http.request", "body": asked.body[half:], "more_body": False}]  # fmt: skip

    async def receive() -> Any:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name, value) for name, value in asked.headers if name != b"content-length"]
    path, _, query = asked.path.partition(b"?")
    scope = {"type": "http", "method": asked.method.decode("latin-1"), "raw_path": path, "query_string": query,
             "path": path.decode("latin-1"), "headers": headers, "http_version": "1.1", "scheme": "http",
             "client": ("192.0.2.1", 1), "server": ("192.0.2.2", 2), "state": {}, "extensions": {}}  # fmt: skip
    await world().app(scope, receive, send)
    return sent


def checked(sent: list[Any]) -> tuple[Any, bytes]:
    """The head and the body of one whole response."""
    kinds = [message["type"] for message in sent]
    if kinds != ["http.response.start", "http.response.body"]:
        raise Finding(f"a response of {kinds}")
    return sent[0], bytes(sent[1]["body"])


def check(status: int, body: bytes, said: str) -> None:
    """Raise a finding unless the answer is one that a client may get for whatever it sent."""
    if status not in STATUSES:
        raise Finding(f"status {status}: {body[:300]!r}\n{said}")
    if status != 200 and body:
        words = json.loads(body)
        if set(words) - {"error", "live", "ready", "name"} or words.get("error") == "":
            raise Finding(f"status {status} with {body[:300]!r}")
