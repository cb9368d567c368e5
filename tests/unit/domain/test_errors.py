"""Tests of ``domain.errors``."""

from typing import Any

import pytest

from tailorbird.domain import errors
from tailorbird.domain.errors import TailorbirdError, error_from_dict, nearest

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TailorbirdError)]
SPECIAL: dict[str, tuple[Any, ...]] = {"ModelNotFound": ("bret", ("bert",)), "VersionNotFound": ("bert", 3, (1, 2))}


def made(kind: type[TailorbirdError]) -> TailorbirdError:
    if kind.__name__ in SPECIAL:
        return kind(*SPECIAL[kind.__name__])
    return kind("it failed", got=0, expected=["a"], hint="try again")


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_a_border(kind: type[TailorbirdError]) -> None:
    error = made(kind)
    back = error_from_dict(error.to_dict())
    assert type(back) is kind
    assert back.to_dict() == error.to_dict()
    assert str(back) == str(error) == error.message


@pytest.mark.parametrize("kind", KINDS)
def test_exit_codes(kind: type[TailorbirdError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, errors.UsageError) else 1)


def test_the_module_draws_its_whole_tree() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[2]
    drawn = [line.split()[0] for line in tree.splitlines() if line.strip()]
    assert drawn == [kind.__name__ for kind in KINDS]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "it failed"),
        ({"got": 0}, "it failed: got 0"),
        ({"expected": "one"}, "it failed: expected one"),
        ({"got": "", "expected": "one"}, "it failed: expected one"),
        ({"got": 2, "expected": 1, "hint": "use 1"}, "it failed: got 2, expected 1\nHint: use 1"),
        ({"hint": "use 1"}, "it failed\nHint: use 1"),
    ],
)
def test_the_message_says_what_got_expected_hint(arguments: dict[str, Any], message: str) -> None:
    assert TailorbirdError("it failed", **arguments).message == message


def test_names_not_found_list_what_there_is() -> None:
    assert str(errors.ModelNotFound("bret", ("bert", "resnet"))) == "unknown model 'bret'\nHint: did you mean 'bert'?"
    assert str(errors.ModelNotFound("zzz", ("bert", "resnet"))) == "unknown model 'zzz'\nHint: known: bert, resnet"
    assert str(errors.ModelNotFound("zzz")) == "unknown model 'zzz'"
    assert str(errors.VersionNotFound("bert", 3, (1, 2))) == "model 'bert' has no version 3\nHint: versions: 1, 2"
    assert str(errors.VersionNotFound("bert", 3)) == "model 'bert' has no version 3\nHint: versions: none"


def test_an_unknown_kind_is_still_an_error() -> None:
    back = error_from_dict({"error": "FromTheFuture", "what": "it failed"})
    assert type(back) is TailorbirdError
    assert back.message == "it failed"


def test_the_nearest_name() -> None:
    assert nearest("openvno", ("onnxruntime", "openvino")) == "openvino"
    assert nearest("x", ("onnxruntime", "openvino")) is None
    assert nearest("x", ()) is None
