"""Compressed bodies open to their limit and no further."""

import gzip
import os
import tracemalloc
import zlib

import pytest

from tailorbird.service.faults import BodyTooLarge, UnknownEncoding, WireError
from tailorbird.service.web.compression import decompress, pieces

DATA = b"tailorbird " * 1000


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", DATA),
        ("identity", DATA),
        ("gzip", gzip.compress(DATA, mtime=0)),
        (" GZIP ", gzip.compress(DATA, mtime=0)),
        ("x-gzip", gzip.compress(DATA, mtime=0)),
        ("deflate", zlib.compress(DATA)),
        ("deflate", raw_deflate(DATA)),
    ],
)
def test_it_opens(encoding, body):
    assert decompress(encoding, body, len(DATA)) == DATA


def test_a_bomb_is_refused_before_it_is_large():
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(
        BodyTooLarge, match=r"^the request's body is too large: expected at most 1000 bytes\nHint: send fewer"
    ):
        decompress("gzip", bomb, 1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoding", "body", "text"),
    [
        ("gzip", b"plain", "the body is not valid gzip: got Error -3 while decompressing data: incorrect header check"),
        ("gzip", gzip.compress(DATA, mtime=0)[:-9], "the body is not valid gzip: got data cut short"),
        ("gzip", b"", "the body is not valid gzip: got data cut short"),
        ("gzip", gzip.compress(DATA, mtime=0) + b"xyz", "the body is not valid gzip: got 3 bytes behind its end"),
        ("deflate", b"", "the body is not valid deflate: got data cut short"),
    ],
)
def test_damaged_bodies(encoding, body, text):
    with pytest.raises(WireError) as caught:
        decompress(encoding, body, 1 << 20)
    assert caught.value.message == text


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, deflate"])
def test_unknown_encodings(encoding):
    with pytest.raises(
        UnknownEncoding, match=rf"^unknown Content-Encoding: got '{encoding}', expected gzip, deflate or id"
    ):
        decompress(encoding, b"", 10)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
@pytest.mark.parametrize("noise", [False, True])
def test_long_bodies_come_in_pieces(size, noise):
    data = os.urandom(size) if noise else bytes(size)
    body = gzip.compress(data, 1)
    found = list(pieces("gzip", body, 3 << 20))
    assert b"".join(found) == data
    assert all(0 < len(piece) <= 1 << 20 for piece in found)
    for wrong, words in ((body + b"1", "1 bytes behind its end"), (body + bytes(1 << 17), "131072 bytes behind"),
                         (body[:-1], "data cut short")):  # fmt: skip
        with pytest.raises(WireError, match=words):
            list(pieces("gzip", wrong, 3 << 20))
