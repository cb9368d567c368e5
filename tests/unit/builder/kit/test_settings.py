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


def test_what_is_said_counts_though_it_is_what_holds_without() -> None:
    kit = BuildConfig(time_budget=60.0, threads=(4,), seed=7)
    assert finishing(kit, BuildConfig()).time_budget == 60
    found = finishing(kit, BuildConfig(), {"time_budget", "threads"})
    assert (found.time_budget, found.threads) == (300, ())
    with pytest.raises(UsageError, match="a build kit has its own seed: got 0, expected the kit's"):
        finishing(kit, BuildConfig(), {"seed"})


def test_limits_are_said_one_by_one() -> None:
    kit = BuildConfig(limits=Limits(seconds=60, memory_bytes=1 << 20))
    assert finishing(kit, BuildConfig(limits=Limits(seconds=5))).limits == Limits(5, 1 << 20)
    assert finishing(kit, BuildConfig(), {"limits", "limits.seconds"}).limits == Limits(600, 1 << 20)


def test_what_the_kit_says_itself_may_be_said_again() -> None:
    """As the file of settings does that the kit was made by."""
    said = BuildConfig(opt_shapes=KIT.opt_shapes, budget=parse_budget("99.9%"), threads=(1,))
    assert finishing(KIT, said).threads == (1,)


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
