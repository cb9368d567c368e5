"""Places and profiles: which shapes an engine is proven at."""

import pytest

from tailorbird.builder.cases.places import Place, places_of, plan_profile, with_rows
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Dim, Shape, Signature, TensorSpec

NOTHING: dict[str, dict[str, Shape]] = {"min": {}, "opt": {}, "max": {}}


def signature(**inputs: tuple[Dim, ...]) -> Signature:
    specs = tuple(TensorSpec(name, DType.FP32, dims) for name, dims in inputs.items())
    return Signature(specs, (TensorSpec("y", DType.FP32, ("N",)),))


def planned(
    given: dict[str, dict[str, Shape]], sample: dict[str, Shape] | None = None, **dims: tuple[Dim, ...]
) -> Profile:
    return plan_profile(signature(**dims), NOTHING | given, sample)


def test_a_static_profile_is_one_place() -> None:
    assert places_of(Profile.static({"x": (8, 3)}), signature(x=("N", 3))) == (Place("opt", {"x": (8, 3)}, 8),)


def test_places_are_the_edges_and_the_powers_of_two_between() -> None:
    profile = Profile(min={"x": (1, 2)}, opt={"x": (4, 5)}, max={"x": (9, 9)})
    found = places_of(profile, signature(x=("N", "W")))
    assert [(place.edge, place.shapes["x"], place.rows) for place in found] == [
        ("opt", (4, 5), 4),
        ("min", (1, 2), 1),
        ("max", (9, 9), 9),
        ("batch2", (2, 5), 2),
        ("batch8", (8, 5), 8),
    ]


def test_without_a_batch_dim_a_place_is_one_row() -> None:
    profile = Profile(min={"x": (2, 2)}, opt={"x": (2, 4)}, max={"x": (2, 8)})
    assert [place.rows for place in places_of(profile, signature(x=(2, "W")))] == [1, 1, 1]


def test_rows_change_the_leading_dim_of_every_input() -> None:
    assert with_rows({"x": (1, 3), "m": (1,)}, 5) == {"x": (5, 3), "m": (5,)}


def test_with_nothing_said_a_batch_dim_is_one() -> None:
    assert planned({}, x=("N", 3)) == Profile.static({"x": (1, 3)})


def test_a_scalar_input_needs_no_size() -> None:
    assert planned({}, x=(3,), s=()) == Profile.static({"x": (3,), "s": ()})


def test_opt_alone_fixes_the_shape() -> None:
    assert planned({"opt": {"x": (4, 7)}}, x=("N", "W")) == Profile.static({"x": (4, 7)})


def test_without_opt_the_largest_shape_is_the_usual_one() -> None:
    found = planned({"min": {"x": (1, 3)}, "max": {"x": (8, 3)}}, x=("N", 3))
    assert (found.min["x"], found.opt["x"], found.max["x"]) == ((1, 3), (8, 3), (8, 3))


def test_min_alone_is_opt_and_max_too() -> None:
    assert planned({"min": {"x": (2, 3)}}, x=("N", 3)) == Profile.static({"x": (2, 3)})


def test_data_says_what_nothing_else_does() -> None:
    assert planned({}, {"x": (5, 9)}, x=("N", "W")) == Profile.static({"x": (5, 9)})
    assert planned({"opt": {"x": (2, 4)}}, {"x": (5, 9), "z": (2, 8)}, x=("N", 4), z=("N", "W")).opt == {
        "x": (2, 4),
        "z": (2, 8),
    }


def test_a_dynamic_dim_without_a_size_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        planned({}, x=("N", 3, "H", "W"))
    assert str(caught.value) == (
        "input 'x' has dynamic dims without a size: got x FP32[N,3,H,W], expected a size for H, W\n"
        "Hint: give --opt-shapes x:1x3xNxN (and --min-shapes, --max-shapes for a range), or --data"
    )


def test_a_shape_for_an_unknown_input_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"unknown input 'pixel': expected pixels, mask\nHint: did you mean 'pixels'\?"
    ):
        planned({"min": {"pixel": (1, 3)}}, pixels=("N", 3), mask=("N",))


def test_a_shape_that_contradicts_the_signature_is_refused() -> None:
    with pytest.raises(InputError, match=r"input 'x' has the wrong shape: got \[1, 4\], expected \[N,3\]"):
        planned({"opt": {"x": (1, 4)}}, x=("N", 3))
    with pytest.raises(InputError, match=r"input 'x' has rank 3: got \[1, 3, 3\], expected \[N,3\]"):
        planned({"opt": {"x": (1, 3, 3)}}, x=("N", 3))
    with pytest.raises(InputError, match=r"input 'm' has the wrong shape: got \[3\], expected \[N\] \(N = 2\)"):
        planned({"opt": {"x": (2, 3), "m": (3,)}}, x=("N", 3), m=("N",))


@pytest.mark.parametrize("edges", [{"min": 3, "opt": 2, "max": 4}, {"min": 1, "opt": 5, "max": 4}, {"opt": 0}])
def test_edges_out_of_order_are_refused(edges: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"shapes of 'x' are out of order: got .* expected 1 <= min <= opt <= max"):
        planned({edge: {"x": (size, 3)} for edge, size in edges.items()}, x=("N", 3))
