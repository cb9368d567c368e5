"""Tests of ``domain.quantisation``."""

import msgspec
import pytest

from tailorbird.domain.precision import Precision
from tailorbird.domain.quantisation import Quantisation, Ranges


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Quantisation("dynamic"), ("dynamic",)),
        (Quantisation("nncf", ranges=Ranges.MINMAX), ("nncf",)),
        (Quantisation("nncf", Precision.BF16, Ranges.ENTROPY, ("a", "b")), ("nncf", "entropy", "bf16-rest", "kept2")),
    ],
)
def test_what_enters_a_name(one: Quantisation, words: tuple[str, ...]) -> None:
    assert one.words == words


def test_the_graph_does_not_depend_on_the_rest() -> None:
    one = Quantisation("nncf", Precision.BF16, Ranges.MINMAX, ("a",))
    assert one.graph == Quantisation("nncf", Precision.FP32, Ranges.MINMAX, ("a",))
    assert one.base == Quantisation("nncf", Precision.BF16, Ranges.MINMAX)


def test_round_trip() -> None:
    one = Quantisation("qdq", Precision.FP32, Ranges.PERCENTILE, ("x/MatMul",))
    assert msgspec.json.decode(msgspec.json.encode(one), type=Quantisation) == one
