"""Tests of ``domain.profile``."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.profile import Profile, format_shapes, parse_shapes
from tailorbird.domain.signature import Signature, TensorSpec

NAMES = st.text(st.characters(exclude_characters=",", exclude_categories=("Z", "C")), min_size=1).filter(
    lambda name: name == name.strip()
)
SHAPES = st.dictionaries(NAMES, st.lists(st.integers(0, 9999), max_size=5).map(tuple), max_size=4)
SIGNATURE = Signature((TensorSpec("x", DType.FP32, ("n", 3)), TensorSpec("s", DType.FP32, ())), ())


def profile(low: int = 1, opt: int = 4, high: int = 8) -> Profile:
    return Profile(*({"x": (rows, 3), "s": ()} for rows in (low, opt, high)))


@given(SHAPES)
def test_shapes_parse_back(shapes: dict[str, tuple[int, ...]]) -> None:
    assert parse_shapes(format_shapes(shapes)) == shapes


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("", {}),
        ("x:1x3x224x224", {"x": (1, 3, 224, 224)}),
        (" a:1 , b:2x3 ,", {"a": (1,), "b": (2, 3)}),
        ("scalar:", {"scalar": ()}),
        ("input:0:8x2", {"input:0": (8, 2)}),
        ("serving/x:1", {"serving/x": (1,)}),
    ],
)
def test_the_grammar_of_trtexec(text: str, shapes: dict[str, Any]) -> None:
    assert parse_shapes(text) == shapes


@pytest.mark.parametrize("part", ["x", "x:1x", "x:x1", "x:-1", "x:1X2", "x:1.5", ":1x2", "x:1 x2"])
def test_other_text_is_refused(part: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_shapes(f"ok:1,{part}")
    assert refused.value.message == f"cannot read shapes: got {part!r}, expected name:1x3x224x224[,name:...]"


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^shapes name the input 'x' twice: got 'x:1,x:2'$"):
        parse_shapes("x:1,x:2")


def test_edges_are_each_distinct_shape_once() -> None:
    assert list(profile().edges()) == ["opt", "min", "max"]
    assert list(profile(low=4).edges()) == ["opt", "max"]
    assert list(profile(high=4).edges()) == ["opt", "min"]
    assert list(profile(4, 4, 4).edges()) == ["opt"]
    assert profile().edges()["max"] == {"x": (8, 3), "s": ()}


def test_text_and_static() -> None:
    assert str(profile()) == "x:1x3,s: / x:4x3,s: / x:8x3,s:"
    static = Profile.static({"x": (2, 3)})
    assert (static.is_static, str(static)) == (True, "x:2x3")
    assert not profile().is_static


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_shapes_inside_pass(rows: int) -> None:
    profile().check({"x": (rows, 3), "s": ()})


@pytest.mark.parametrize("rows", [0, 9])
def test_shapes_outside_are_refused(rows: int) -> None:
    with pytest.raises(InputError) as refused:
        profile().check({"x": (rows, 3), "s": ()})
    assert refused.value.message == (
        f"input 'x' lies outside the engine's profile: got {rows}x3, expected 1x3 to 8x3\n"
        "Hint: build with --min-shapes, --opt-shapes and --max-shapes that cover it"
    )


def test_a_static_profile_expects_one_shape() -> None:
    with pytest.raises(InputError, match="got 2x3, expected 1x3\n"):
        Profile.static({"x": (1, 3)}).check({"x": (2, 3)})


def test_a_profile_is_checked_against_the_signature() -> None:
    assert profile().checked_against(SIGNATURE) == profile()
    with pytest.raises(InputError, match=r"^shapes of 'x' are out of order: got 5x3 / 4x3 / 8x3, expected 1 <= min"):
        profile(low=5).checked_against(SIGNATURE)
    with pytest.raises(InputError, match=r"got 0x3 / 4x3 / 8x3, expected 1 <= min <= opt <= max$"):
        profile(low=0).checked_against(SIGNATURE)
    with pytest.raises(InputError, match=r"^input 'x' has the wrong shape: got \[1, 2\], expected \[n,3\]$"):
        Profile({"x": (1, 2), "s": ()}, *2 * [{"x": (1, 3), "s": ()}]).checked_against(SIGNATURE)
    with pytest.raises(InputError, match=r"^missing input 's'"):
        Profile.static({"x": (1, 3)}).checked_against(SIGNATURE)
