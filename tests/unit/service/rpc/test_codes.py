"""Errors and their codes."""

import json

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

import grpc

from tailorbird.domain.errors import (
    BackendError,
    InputError,
    ModelNotFound,
    NotReady,
    Overloaded,
    VersionNotFound,
)
from tailorbird.service.faults import WireError
from tailorbird.service.rpc import codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WireError("wrong", got=1), "INVALID_ARGUMENT"),
        (InputError("wrong", hint="no"), "INVALID_ARGUMENT"),
        (ModelNotFound("m"), "NOT_FOUND"),
        (VersionNotFound("m", 3), "NOT_FOUND"),
        (Overloaded("full"), "UNAVAILABLE"),
        (NotReady("closing"), "UNAVAILABLE"),
        (codes.NotOffered("X"), "UNIMPLEMENTED"),
    ],
)
def test_codes(error, code):
    assert codes.status(error) == (grpc.StatusCode[code], error.message)


@pytest.mark.parametrize("error", [BackendError("/secret/path"), ZeroDivisionError("/secret/path")])
def test_faults_of_the_server_are_opaque(error, capsys):
    code, words = codes.status(error)
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in words
    logged = json.loads(capsys.readouterr().err)
    assert words.startswith(f"the server failed to answer: error {logged['error_id']}\n")
    assert (logged["error"], logged["message"]) == (type(error).__name__, "/secret/path")
    assert ("trace" in logged) == isinstance(error, ZeroDivisionError)


def test_words_fit_into_a_header():
    _, words = codes.status(InputError("č" * 3000))
    assert words == "č" * 1000
    _, words = codes.status(InputError("x" + "č" * 3000))
    assert words == "x" + "č" * 999
