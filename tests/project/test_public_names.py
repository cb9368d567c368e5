"""The facade: its names are a promise, so a change to them is a change to this file."""

import inspect
import re

import pytest

import tailorbird

PUBLIC = [
    *["BuildConfig", "Result", "TailorbirdError", "Tensors"],
    *["bill_of_materials", "build", "compare", "doctor", "inspect", "make_kit", "open", "publish", "qualify"],
    *["rebuild", "serve"],
]


def test_the_public_names_are_these() -> None:
    assert sorted(tailorbird.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_resolves_and_is_listed(name: str) -> None:
    value = getattr(tailorbird, name)
    assert name in dir(tailorbird)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        tailorbird.no_such_name  # noqa: B018


def test_the_version_is_a_release() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", tailorbird.__version__)
