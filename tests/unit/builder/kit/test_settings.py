"""Settings of a build out of a kit."""

import pytest

from tailorbird.builder.kit.settings import finishing
from tailorbird.domain.budget import parse_budget
from tailorbird.domain.config import BuildConfig, Limits
from tailorbird.domain.errors import UsageError

KIT = BuildConfig(opt_shapes="x:1x3", budget=parse_budget("99.9%"), threads=(4,))


def test_what_the_finishing_machine_says_wins_where_it_may() -> None:
    found = finishing(KIT, BuildConfig(threads=(1,), cache="/here", limits=Limits(seconds=5), time_budget=9.0))
    assert (found.threads, found.cache, found.limits.seconds, found.time_budget) == ((1,), "/here", 5, 9.0)
    assert (found.opt_shapes, found.budget) == (KIT.opt_shapes, KIT.budget)


def test_without_a_word_the_kit_decides() -> None:
    assert finishing(KIT, BuildConfig()) == KIT


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"budget": parse_budget("50%")}, "a build kit has its own budget"),
        ({"opt_shapes": "x:9x9"}, "a build kit has its own opt shapes"),
        ({"data": "calib.npz"}, "a build kit has its own data"),
        ({"target": "onnxruntime:cpu:avx2"}, "a build kit has its own target"),
        ({"qualify": False}, "a build kit has its own qualify"),
    ],
)
def test_what_the_kit_has_decided_cannot_be_said_again(said: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        finishing(KIT, BuildConfig(**said))  # type: ignore[arg-type]
    assert caught.value.what == what
    assert caught.value.hint == "say it when the kit is made"
