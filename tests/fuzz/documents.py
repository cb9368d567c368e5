"""HTTP requests as fuzzers hold them: text that a case can be read from whatever its bytes are.

``METHOD path``, a line for each header, an empty line, the body.
"""

from typing import NamedTuple

from tests.fuzz.mutate import METHODS, Mutator


class Document(NamedTuple):
    """One request."""

    method: bytes
    path: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def text(self) -> bytes:
        """As a case."""
        lines = [b"%b %b" % (self.method, self.path), *(b"%b: %b" % pair for pair in self.headers)]
        return b"\n".join(lines) + b"\n\n" + self.body

    def wire(self, *, chunked: bool = False) -> bytes:
        """As HTTP/1.1, with the length that it has unless a header says otherwise."""
        lines = [b"%b %b HTTP/1.1" % (self.method, self.path), *(b"%b: %b" % pair for pair in self.headers)]
        if chunked:
            half = len(self.body) // 2
            parts = [part for part in (self.body[:half], self.body[half:]) if part]
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            return b"\r\n".join([*lines, b"transfer-encoding: chunked"]) + b"\r\n\r\n" + body
        if self.body and not any(name == b"content-length" for name, _ in self.headers):
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def parsed(case: bytes) -> Document:
    """The request that a case is; any bytes are some request."""
    head, _, body = case.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, path = first.partition(b" ")
    headers = [(name.lower().strip(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return Document(method, path, headers, body)


def mutated(case: bytes, mutator: Mutator) -> bytes:
    """Another request like it; mostly its body is what changes, in JSON or in the bytes behind it."""
    found = parsed(case)
    what = mutator.chance.random()
    if what < 0.15:
        found = found._replace(path=mutator.path(found.path))
    elif what < 0.35:
        found = found._replace(headers=mutator.headers(found.headers))
    elif what < 0.4:
        found = found._replace(method=mutator.chance.choice(METHODS))
    elif what < 0.95:
        found = _with_body(found, mutator)
    else:
        return mutator.any_bytes(case)
    return found.text()


def _with_body(found: Document, mutator: Mutator) -> Document:
    """The body changed; the header that says how much of it is JSON mostly follows."""
    sizes = [value for name, value in found.headers if name == b"inference-header-content-length"]
    size = int(sizes[0]) if sizes and sizes[0].isdigit() and len(sizes[0]) < 10 else None
    if size is None:
        return found._replace(body=mutator.json(found.body))
    text, blobs = found.body[:size], found.body[size:]
    if mutator.often(0.6):
        text = mutator.json(text)
    else:
        blobs = mutator.any_bytes(blobs)
    headers = found.headers
    if mutator.often(0.9):
        headers = [(name, b"%d" % len(text) if value is sizes[0] else value) for name, value in headers]
    return found._replace(body=text + blobs, headers=headers)
