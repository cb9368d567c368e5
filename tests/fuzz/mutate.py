"""Mutations that know the grammar of what they change: bytes, JSON, protobuf, HTTP. Seeded: a case comes again."""

import json
import random
from typing import Any

NUMBERS: list[Any] = [
    0, 1, -1, 2, 4, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63),
    -(2**63) - 1, 10**30, 0.5, -0.0, 1e38, 3.5e38, 1e308, float("inf"), float("nan"),
]  # fmt: skip
TEXTS = ["", "a", "é", "\x00", "\ud800", "x" * 1025, "y" * 5000, "../../etc/passwd", "%s%n", "FP32", "BYTES", "INT8",
         "FP16", "BF16", "UINT64", "BOOL", "FP64", "NaN", "1", "-1"]  # fmt: skip
KEYS = ["id", "name", "shape", "datatype", "data", "inputs", "outputs", "parameters", "binary_data_size", "binary_data",
        "binary_data_output", "classification", "shared_memory_region", "shared_memory_offset",
        "shared_memory_byte_size", "timeout", "priority", "sequence_id", "ready", "", "x", "headers"]  # fmt: skip
PIECES = [b"", b"\x00", b"\xff", b"\xff" * 8, b"\x80" * 11, b"[", b"]", b"{", b"}", b'"', b",", b":", b"null", b"true",
          b"-", b"1e999", b"\r\n", b"\r\n\r\n", b" ", b"[" * 3000, b'{"a":' * 2000, b"\xed\xa0\x80", b"\\ud800",
          b"0\r\n\r\n", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"]  # fmt: skip
HEADERS = [
    b"content-length", b"transfer-encoding", b"content-encoding", b"inference-header-content-length", b"connection",
    b"expect", b"host", b"accept-encoding", b"content-type", b"upgrade", b"traceparent", b"authorization", b"te",
    b"trailer", b"x", b"http2-settings",
]  # fmt: skip
VALUES = [
    b"", b"0", b"1", b"-1", b"+5", b"0x10", b"9" * 18, b"9" * 19, b"9" * 4400, b"18446744073709551616", b"chunked",
    b"gzip", b"deflate", b"identity", b"br", b"gzip, deflate", b"close", b"keep-alive", b"upgrade", b"h2c",
    b"100-continue", b"websocket", b"\xff\xfe", b"a" * 5000, b" 5", b"5 ", b"1,1", b"application/json", b"Bearer x",
    b"Bearer ", b"application/octet-stream", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"multipart/form-data; boundary=x",
]  # fmt: skip
METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"PRI", b"get", b"G\xc3\x89T"]
SEGMENTS = [
    b"v2", b"models", b"echo", b"tiny", b"text", b"versions", b"1", b"2", b"999999999999999999", b"infer", b"ready",
    b"config", b"stats", b"health", b"live", b"repository", b"index", b"load", b"unload", b"metrics", b"", b".", b"..",
    b"%2e%2e", b"%2f", b"%00", b"%", b"%zz", b"\xff", b";a=b", b"region", b"systemsharedmemory", b"register",
    b"unregister", b"status", b"cudasharedmemory", b"trace", b"setting", b"logging", b"rollouts", b"a" * 200, b"?x=1",
    b"#f", b"*",
]  # fmt: skip


class Mutator:
    """Changes what it is given.

    Args:
        seed: of every choice.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def often(self, share: float) -> bool:
        """True as often as that."""
        return self.chance.random() < share

    def any_bytes(self, data: bytes, times: int = 0) -> bytes:
        """A few changes that know nothing."""
        changed = bytearray(data)
        for _ in range(times or 1 + int(self.chance.expovariate(0.7))):
            self._once(changed)
        return bytes(changed)

    def _once(self, data: bytearray) -> None:
        chance = self.chance
        place = chance.randrange(len(data) + 1)
        end = min(len(data), place + int(chance.expovariate(0.2)) + 1)
        what = chance.randrange(7)
        if what == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif what == 1 and place < len(data):
            data[place] = chance.randrange(256)
        elif what == 2:
            del data[place:end]
        elif what == 3:
            data[place:place] = chance.choice(PIECES)
        elif what == 4:
            data[place:end] = chance.choice(PIECES)
        elif what == 5:
            data[place:place] = data[place:end] * chance.choice((1, 1, 2, 50))
        else:
            del data[place:]

    # --- JSON ---

    def json(self, text: bytes) -> bytes:
        """A document with a few values, keys or members changed; sometimes its bytes as well."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return self.any_bytes(text)
        for _ in range(self.chance.choice((1, 1, 1, 2, 3, 6))):
            document = self._changed(document, self.chance.randrange(6))
        try:
            out = json.dumps(document, ensure_ascii=self.often(0.7)).encode("utf-8", "surrogatepass")
        except (RecursionError, ValueError):
            return self.any_bytes(text)
        return self.any_bytes(out, 1) if self.often(0.1) else out

    def _changed(self, value: Any, depth: int) -> Any:
        """The value with one change, at most so deep inside."""
        if depth and isinstance(value, dict) and value and self.often(0.9):
            key = self.chance.choice(list(value))
            return {**value, key: self._changed(value[key], depth - 1)}
        if depth and isinstance(value, list) and value and self.often(0.9):
            place = self.chance.randrange(len(value))
            return [*value[:place], self._changed(value[place], depth - 1), *value[place + 1 :]]
        return self._replaced(value)

    def _replaced(self, value: Any) -> Any:
        chance, what = self.chance, self.chance.randrange(8)
        if what == 0 and isinstance(value, dict):
            return {**value, chance.choice(KEYS): self._any_value()}
        if what == 1 and isinstance(value, dict) and value:
            gone = chance.choice(list(value))
            return {key: inner for key, inner in value.items() if key != gone}
        if what <= 2 and isinstance(value, list):
            return chance.choice((value * 2, value[:-1], [value], [*value, self._any_value()], value * 60))
        if what == 3 and isinstance(value, int) and not isinstance(value, bool):
            return value + chance.choice((-1, 1, 7))
        return self._any_value()

    def _any_value(self) -> Any:
        chance, what = self.chance, self.chance.randrange(8)
        if what < 3:
            return chance.choice(NUMBERS)
        if what < 5:
            return chance.choice(TEXTS)
        if what == 5:
            return chance.choice((None, True, False, [], {}))
        if what == 6:
            return {chance.choice(KEYS): chance.choice(NUMBERS)}
        nested: Any = chance.choice(NUMBERS)
        for _ in range(chance.choice((1, 2, 17, 300))):
            nested = [nested]
        return nested

    # --- protobuf ---

    def protobuf(self, message: bytes, depth: int = 3) -> bytes:
        """A message with fields changed, repeated, dropped, in another order, or with lengths that lie."""
        fields = _fields(message)
        if not fields:
            return self.any_bytes(message)
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            self._field(fields, depth)
        out = b"".join(fields)
        return self.any_bytes(out, 1) if self.often(0.1) else out

    def _field(self, fields: list[bytes], depth: int) -> None:
        chance = self.chance
        place, what = chance.randrange(len(fields) or 1), chance.randrange(9)
        if not fields or what == 0:
            fields.insert(place, _tag(chance.randrange(0, 20), chance.randrange(8)) + chance.choice(PIECES))
        elif what == 1:
            fields.insert(place, fields[place])
        elif what == 2:
            del fields[place]
        elif what == 3:
            chance.shuffle(fields)
        elif what == 4:
            fields[place] *= chance.choice((2, 70, 300))
        else:
            fields[place] = self._value(fields[place], depth)

    def _value(self, field: bytes, depth: int) -> bytes:
        """One field, changed inside."""
        chance = self.chance
        try:
            tag, place = _varint(field, 0)
            start = _varint(field, place)[1] if tag & 7 == 2 else place
        except IndexError:  # one of those that are no field
            return self.any_bytes(field)
        if tag & 7 != 2:
            return _encoded(tag) + (
                _encoded(chance.choice(NUMBERS[:18]) & (2**64 - 1)) if tag & 7 == 0 else field[place:]
            )
        inner = field[start:]
        if depth and self.often(0.6):
            inner = self.protobuf(inner, depth - 1)
        elif self.often(0.5):
            inner = chance.choice(TEXTS).encode("utf-8", "surrogatepass")
        else:
            inner = self.any_bytes(inner)
        length = len(inner) if self.often(0.9) else chance.choice((0, len(inner) + 1, 2**31, 2**63))
        return _encoded(tag) + _encoded(length) + inner

    # --- HTTP ---

    def path(self, path: bytes) -> bytes:
        """A path with its segments changed."""
        segments = path.split(b"/")
        for _ in range(self.chance.choice((1, 1, 2))):
            place = self.chance.randrange(len(segments) + 1)
            if self.often(0.5):
                segments.insert(place, self.chance.choice(SEGMENTS))
            elif place < len(segments):
                segments[place] = self.chance.choice(SEGMENTS)
        out = b"/".join(segments)
        return self.any_bytes(out, 1) if self.often(0.15) else out

    def headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Headers added, doubled, changed, dropped."""
        found = list(headers)
        for _ in range(self.chance.choice((1, 1, 2, 4))):
            place, what = self.chance.randrange(len(found) + 1), self.chance.randrange(5)
            if what < 2 or place == len(found):
                found.insert(place, (self.chance.choice(HEADERS), self.chance.choice(VALUES)))
            elif what == 2:
                found[place] = (found[place][0], self.chance.choice(VALUES))
            elif what == 3:
                del found[place]
            else:
                found[place] = (found[place][0], self.any_bytes(found[place][1], 1))
        return found


def _fields(message: bytes) -> list[bytes]:
    """A message's fields as they stand; empty where it is none."""
    place, found = 0, []
    try:
        while place < len(message):
            start = place
            tag, place = _varint(message, place)
            if tag & 7 == 2:
                size, place = _varint(message, place)
                place += size
            elif tag & 7 == 0:
                _, place = _varint(message, place)
            else:
                place += {1: 8, 5: 4}[tag & 7]
            if place > len(message):
                return []
            found.append(message[start:place])
    except (IndexError, KeyError):
        return []
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while data[place] >= 128:
        value |= (data[place] & 127) << shift
        place, shift = place + 1, shift + 7
    return value | data[place] << shift, place + 1


def _encoded(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _tag(number: int, kind: int) -> bytes:
    return _encoded(number << 3 | kind)
