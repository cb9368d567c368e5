"""Options asked for: read, checked against what backends have, and given to their candidates."""

import msgspec
import pytest

from tailorbird.backends.base import Capabilities
from tailorbird.builder.search.asked import with_options
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.errors import UsageError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target

PLAIN, RICH = Target.parse("onnxruntime:cpu:avx2"), Target.parse("tensorrt:cuda:sm86")
FORMAT = EngineFormat("a", "b", "c")
HAS = {"level": (), "tf32": (False, True), "where": ("here", "there")}
ABLE = (
    Capabilities(PLAIN, (Precision.FP32,), FORMAT),
    Capabilities(
        RICH, (Precision.FP32,), FORMAT, options={"level": (), "tf32": (False, True), "where": ("here", "there")}
    ),
)


def candidate(target: Target, **options: str | int | bool) -> Candidate:
    shapes = Profile.static({"x": (1, 2)})
    return Candidate(target, Precision.FP32, shapes, ShapeMode.STATIC, 1, dict(options))


def test_whoever_has_an_option_gets_it_in_its_own_type() -> None:
    found = with_options([candidate(PLAIN), candidate(RICH)], ABLE, ("level=5", "tf32=true", "where=here"))
    assert [one.options for one in found] == [{}, {"level": 5, "tf32": True, "where": "here"}]


def test_what_was_to_be_tried_both_ways_is_tried_once() -> None:
    found = with_options([candidate(RICH), candidate(RICH, tf32=True)], ABLE, ("tf32=false",))
    assert [one.options for one in found] == [{"tf32": False}]


def test_what_would_be_tried_just_so_stays_alone() -> None:
    """Others of its precision go: with the option they would be what nobody meant, or the same engine again."""
    given = [candidate(PLAIN), candidate(RICH, where="here"), candidate(RICH, tf32=True), candidate(RICH)]
    found = with_options(given, ABLE, ("where=here", "level=2"))
    assert [one.options for one in found] == [{}, {"where": "here", "level": 2}]
    half = msgspec.structs.replace(candidate(RICH), precision=Precision.FP16)
    found = with_options([*given, half], ABLE, ("where=here",))
    assert [one.options for one in found] == [{}, {"where": "here"}, {}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tf32=False", "option 'tf32' cannot be that: got False, expected false or true"),
        ("tf32=1", "option 'tf32' cannot be that: got 1, expected false or true"),
        ("where=heer", "option 'where' cannot be that: got heer, expected here or there\nHint: did you mean 'here'?"),
    ],
)
def test_a_value_that_an_option_cannot_be_is_refused_at_once(text: str, message: str) -> None:
    """Not when an engine is compiled, which a build kit does on another machine."""
    with pytest.raises(UsageError) as refused:
        with_options([candidate(RICH)], ABLE, (text,))
    assert refused.value.message.startswith(message)


def test_nothing_asked_changes_nothing() -> None:
    given = [candidate(PLAIN), candidate(RICH, level=3)]
    assert with_options(given, ABLE, ()) == given


@pytest.mark.parametrize("text", ["tf32", "tf32=", "=true", ""])
def test_what_is_no_option_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        with_options([], ABLE, (text,))
    assert refused.value.message == f"cannot read an option: got {text!r}, expected name=value"


def test_what_nobody_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as refused:
        with_options([], ABLE, ("levle=5",))
    assert refused.value.message == (
        "no backend to try has an option 'levle': expected level, tf32, where\nHint: did you mean 'level'?"
    )
    with pytest.raises(UsageError, match="'tf32': expected none"):
        with_options([], ABLE[:1], ("tf32=true",))
