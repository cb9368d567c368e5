"""Narrowing: shapes, precision and types of what is compiled; numbers against the program itself."""

from pathlib import Path
from typing import Any

import pytest

from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target

torch = pytest.importorskip("torch")

from tailorbird.backends.inductor.layers import layers_of  # noqa: E402
from tailorbird.backends.inductor.memory import shared_outputs  # noqa: E402
from tailorbird.backends.inductor.narrow import narrowed  # noqa: E402 - needs torch
from tailorbird.backends.program import Names  # noqa: E402

NAMES = Names(("x",), ("y",))
RANGE = Profile({"x": (1, 64)}, {"x": (3, 64)}, {"x": (8, 64)})


class Masked(torch.nn.Module):  # type: ignore[misc]
    """A layer, a mask of the least FP32, and a conversion: what transformers do."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(64, width)

    def forward(self, x: Any) -> Any:
        hidden = self.layer(x)
        away = torch.full((hidden.shape[1],), torch.finfo(torch.float32).min, dtype=torch.float32)
        return (torch.softmax(hidden + torch.where(x.sum() > 1e9, away, 0.0), -1),)


def exported(module: Any, rows: int = 2, **dims: Any) -> Any:
    shapes = {"x": {0: torch.export.Dim.AUTO}} if rows > 1 else None
    return torch.export.export(module.eval(), (torch.zeros(rows, 64),), dynamic_shapes=shapes)


def candidate(precision: Precision = Precision.FP32, mode: ShapeMode = ShapeMode.DYNAMIC, **changes: Any) -> Candidate:
    profile = RANGE if mode is ShapeMode.DYNAMIC else Profile.static(RANGE.opt)
    target = Target("inductor", "cpu", "avx2")
    return Candidate(target, precision, changes.pop("profile", profile), mode, 1, form=Form.PROGRAM, **changes)


def snr(got: Any, expected: Any) -> float:
    with torch.no_grad():
        return float(20 * torch.log10(expected.norm() / (got - expected).norm()))


@pytest.mark.parametrize("mode", list(ShapeMode))
def test_the_profile_decides_which_dims_are_open(mode: ShapeMode) -> None:
    program = narrowed(exported(Masked()), NAMES, candidate(mode=mode))
    (size, width) = next(node for node in program.graph.nodes if node.name.startswith("inputs")).meta["val"].shape
    assert width == 64
    assert isinstance(size, int) == (mode is ShapeMode.STATIC)
    if mode is ShapeMode.DYNAMIC:
        (bounds,) = program.range_constraints.values()
        assert (bounds.lower, bounds.upper) == (1, 8)


# FP32 is exact to the order of sums; half precisions to their unit round-off, less what one layer adds to it.
@pytest.mark.parametrize(
    ("precision", "restructure", "least"),
    [
        (Precision.FP32, False, 120),
        (Precision.FP16, False, 50),
        (Precision.FP16, True, 50),
        (Precision.BF16, False, 35),
        (Precision.INT8, True, 35),
    ],
)
def test_every_precision_answers_as_the_program(precision: Precision, least: float, restructure: bool) -> None:
    x, module = torch.randn(5, 64), Masked()
    expected = module(x)[0]
    options: Any = {"restructure": True} if restructure else {}
    program = narrowed(exported(module), NAMES, candidate(precision, options=options))
    (got,) = program.module()(x)
    assert got.dtype is torch.float32
    assert snr(got, expected) > least
    assert precision.value in layers_of(program).values()


def test_a_masked_row_is_no_nan_in_fp16() -> None:
    """The least FP32 is -inf in FP16, and a softmax over nothing but that is NaN."""

    class Away(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return (torch.softmax(torch.full_like(x, torch.finfo(torch.float32).min) + 0 * x, -1),)

    program = narrowed(exported(Away()), NAMES, candidate(Precision.FP16))
    (got,) = program.module()(torch.randn(2, 64))
    torch.testing.assert_close(got, torch.full((2, 64), 1 / 64))


def test_a_dim_that_the_program_fixes_is_refused() -> None:
    class Three(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return (x + torch.ones(3, 1),)

    with pytest.raises(BackendError) as refused:
        narrowed(torch.export.export(Three(), (torch.zeros(3, 64),)), NAMES, candidate())
    assert refused.value.message == (
        "the program works for one size of input 'x' only: got dim 0 is 3, expected 1 to 8\n"
        "Hint: export it with that dim dynamic, or build for one shape"
    )


def test_int8_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(BackendError) as refused:
        narrowed(exported(Masked(width=24)), NAMES, candidate(Precision.INT8))
    assert refused.value.message == (
        "the program has no linear layer large enough to compute in int8\nHint: leave this precision out"
    )


def test_int8_rows_do_not_depend_on_their_neighbours() -> None:
    program = narrowed(exported(Masked()), NAMES, candidate(Precision.INT8))
    x = torch.randn(4, 64)
    x[3] *= 1000
    (whole,), (alone,) = program.module()(x), program.module()(x[:1])
    torch.testing.assert_close(whole[:1], alone, rtol=0, atol=1e-6)


def test_outputs_that_share_memory_are_known() -> None:
    class Sharing(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("fixed", torch.ones(3))

        def forward(self, x: Any) -> Any:
            made = x + 1
            return x, made, made.reshape(-1), self.fixed * 2, x * 2

    names = Names(("x",), ("same", "made", "view", "fixed", "other"))
    program = narrowed(exported(Sharing()), names, candidate())
    assert shared_outputs(program) == (0, 2, 3)


def test_a_program_with_state_is_refused() -> None:
    class Counting(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Any) -> Any:
            self.count.add_(1)
            return (x + self.count,)

    with pytest.raises(BackendError, match="keeps state or writes into its inputs"):
        narrowed(exported(Counting()), NAMES, candidate())


def test_the_program_is_written_without_a_pickle(tmp_path: Path) -> None:
    from tailorbird.backends.program import load_program, save_program

    program = narrowed(exported(Masked()), NAMES, candidate(Precision.INT8))
    save_program(program, NAMES, tmp_path / "p.pt2")
    back, _ = load_program(tmp_path / "p.pt2")
    x = torch.randn(3, 64)
    torch.testing.assert_close(back.module()(x), program.module()(x))


def test_own_kernels_are_an_engine_too(tmp_path: Path) -> None:
    """On the CPU every operator of theirs runs as plain PyTorch: the way there is the same."""
    from tailorbird.backends.inductor.compile import compile_program
    from tailorbird.backends.inductor.record import read_record
    from tailorbird.backends.inductor.session import open_call
    from tailorbird.backends.program import save_program

    module, x = Masked(), torch.randn(3, 64)
    save_program(exported(module), NAMES, tmp_path / "p.pt2")
    (tmp_path / "engine").mkdir()
    chosen = candidate(Precision.FP16, ShapeMode.STATIC, options={"compiler": "kernels"})
    compile_program(tmp_path / "p.pt2", chosen, tmp_path / "engine")
    (got,) = open_call(tmp_path / "engine", chosen)([x])
    assert snr(got, module(x)[0]) > 50
    assert set(read_record(tmp_path / "engine").layers.values()) == {"fp16"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"precision": Precision.FP32},
            "own kernels do not compute in this precision: got fp32, expected fp16, bf16, fp8",
        ),
        (
            {"mode": ShapeMode.DYNAMIC},
            "own kernels are compiled for one shape: got a dynamic profile, expected a static",
        ),
    ],
)
def test_what_own_kernels_cannot_do_is_said(tmp_path: Path, changes: Any, message: str) -> None:
    from tailorbird.backends.inductor.compile import compile_program
    from tailorbird.backends.program import save_program

    save_program(exported(Masked()), NAMES, tmp_path / "p.pt2")
    asked = {"precision": Precision.FP16, "mode": ShapeMode.STATIC, **changes}
    with pytest.raises(BackendError, match=message):
        compile_program(tmp_path / "p.pt2", candidate(**asked, options={"compiler": "kernels"}), tmp_path)


class Counting(torch.nn.Module):  # type: ignore[misc]
    """A mean that every run moves: what one request says leaks into the answer to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x: Any) -> Any:
        self.mean.mul_(0.9).add_(x.mean(0))
        return (x - self.mean,)


def test_own_kernels_take_no_program_that_keeps_state(tmp_path: Path) -> None:
    from tailorbird.backends.inductor.compile import compile_program
    from tailorbird.backends.program import save_program

    save_program(exported(Counting()), NAMES, tmp_path / "p.pt2")
    chosen = candidate(Precision.FP16, ShapeMode.STATIC, options={"compiler": "kernels"})
    with pytest.raises(BackendError, match="the program keeps state or writes into its inputs: got aten::"):
        compile_program(tmp_path / "p.pt2", chosen, tmp_path)
