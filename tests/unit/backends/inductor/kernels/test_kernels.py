# ruff: noqa: E402 - without a way to run them nothing here can be imported
"""The kernels against the operators they stand for: on a GPU where there is one, or in Triton's interpreter."""

import os

import pytest

torch = pytest.importorskip("torch")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("`make kernels` runs them in Triton's interpreter, a GPU for real", allow_module_level=True)
pytest.importorskip("triton")

from tailorbird.backends.inductor.kernels.launching import LIBRARY, Options
from tailorbird.backends.inductor.kernels.operators import OPERATORS, rows8
from tailorbird.backends.inductor.kernels.table import KERNELS

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")  # Triton's own

COARSE = 0.1  # the interpreter cuts E4M3 off where the hardware rounds
OPTIONS = Options(overlap=2 if DEVICE == "cuda" else 0, fast_gelu=False)  # the interpreter knows no overlap


def drawn(*shape, scale=1.0, dtype=torch.float16):
    return (torch.randn(*shape) * scale).to(dtype)


def last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def error(found, expected):
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def check(operator, config, *args, limit=2e-3):
    expected = OPERATORS[operator](*[arg.float() if is_half(arg) else arg for arg in args])
    found = KERNELS[operator](config, OPTIONS)(*args)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for got, wanted in pairs:
        assert got.shape == wanted.shape
        assert error(got, wanted) < limit


def is_half(arg):
    return isinstance(arg, torch.Tensor) and arg.dtype in {torch.float16, torch.bfloat16}


@pytest.fixture(autouse=True)
def device():
    torch.manual_seed(0)
    exact = torch.backends.cudnn.flags(allow_tf32=False)  # FP32 is what the kernels are held against
    with torch.device(DEVICE), exact:
        yield


@pytest.mark.parametrize("activation", ["", "gelu", "gelu_tanh", "relu", "tanh"])
def test_linear_by_tiles(activation):
    args = drawn(2, 40, 96), drawn(48, 96, scale=0.1), drawn(48), activation
    check("linear", ("tile", 64, 32, 64, 3, 4, 1), *args)


@pytest.mark.parametrize("halves", [0, 1])
def test_linear_by_persistent_programs(halves):
    args = drawn(200, 64), drawn(136, 64, scale=0.1), drawn(136), "relu"
    check("linear", ("persistent", 64, 64, 64, halves, 3, 4), *args)


def test_linear_whose_programs_share_k():
    rows = drawn(3, 5, 256)[:, 0]  # not contiguous
    check("linear", ("shared", 16, 32, 64, 2, 3, 4), rows, drawn(40, 256, scale=0.1), drawn(40), "tanh")


@pytest.mark.parametrize("config", [("tile", 64, 64, 64, 3, 4, 1), ("tile", 64, 32, 64, 3, 4, 2), ("cublas",)])
@pytest.mark.parametrize("operator", ["linear_norm", "linear_sum_norm"])
def test_linear_and_norm(operator, config):
    args = drawn(2, 33, 128), drawn(96, 128, scale=0.1), drawn(96), drawn(2, 33, 96), drawn(96), drawn(96), 1e-5
    check(operator, config, *args)


def test_embed_and_norm():
    ids = torch.randint(0, 50, (3, 7))
    check("embed_norm", ("rows", 4), ids, drawn(50, 96), drawn(1, 7, 96), drawn(96), drawn(96), 1e-12)


@pytest.mark.parametrize("mask", ["none", "whole", "truth", "added"])
@pytest.mark.parametrize("length", [16, 21])
def test_attention(mask, length):
    ends = torch.tensor([length, 5])
    keys = torch.arange(length) < ends[:, None]
    masks = {"none": None, "whole": keys.long(), "truth": keys, "added": torch.where(keys, 0.0, -1e4)}
    args = drawn(2, length, 3 * 32), masks[mask], 2, 16, 0, 32, 64, 0.25
    check("attention", ("rows", 16, 4), *args)


def test_a_row_without_keys_gives_zeros():
    keys = torch.zeros(1, 16, dtype=torch.int64)
    found = KERNELS["attention"](("rows", 16, 4), OPTIONS)(drawn(1, 16, 96), keys, 2, 16, 0, 32, 64, 0.25)
    assert not found.any()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("size", "channels", "out", "kernel", "stride", "padding", "config"),
    [
        (8, 64, 64, 3, 1, 1, ("tile", 32, 32, 32, 3, 2, 4)),
        (7, 64, 64, 3, 2, 1, ("tile", 32, 32, 64, 1, 2, 4)),
        (8, 64, 128, 1, 2, 0, ("tile", 32, 64, 32, 2, 2, 4)),
        (8, 128, 96, 1, 1, 0, ("tile", 32, 64, 64, 1, 2, 4)),
        (8, 128, 96, 1, 1, 0, ("product", 64, 64, 64, 3, 4, 1)),
    ],
)
def test_convolution(residual, size, channels, out, kernel, stride, padding, config):
    x, weight = last(drawn(2, channels, size, size)), drawn(out, kernel, kernel, channels, scale=0.05)
    made = (size + 2 * padding - kernel) // stride + 1
    added = last(drawn(2, out, made, made)) if residual else None
    check("conv", config, x, weight, drawn(out), added, stride, padding, "relu")


def test_programs_that_share_a_convolution_leave_their_counters_at_zero():
    x, weight, bias = last(drawn(1, 64, 8, 8)), drawn(64, 3, 3, 64, scale=0.05), drawn(64)
    kernel = KERNELS["conv"](("tile", 32, 32, 64, 3, 2, 4), OPTIONS)
    first, second = (kernel(x, weight, bias, None, 1, 1, "relu") for _ in range(2))
    assert torch.equal(first, second)


def test_a_block_and_its_shortcut():
    y, x = last(drawn(2, 64, 4, 4)), last(drawn(2, 128, 8, 8))
    args = y, drawn(64, 64, scale=0.1), x, drawn(64, 128, scale=0.1), drawn(64), 2, "relu"
    check("conv_pair", ("tile", 32, 32, 64, 2, 4), *args)


def test_pictures():
    weight = torch.zeros(32, 7, 8, 4, dtype=torch.float16)
    weight[:, :, :7, :3] = drawn(32, 7, 7, 3, scale=0.1)
    args = torch.randn(2, 3, 20, 24), weight, drawn(32), 7, 2, 3, "relu"
    check("conv_first", ("rows", 64, 2, 4), *args)


def test_pooling():
    x = last(drawn(2, 32, 9, 8))
    check("max_pool", ("rows", 8, 4), x, 3, 2, 1)
    check("mean_pool", ("rows", 32, 2), x)


def test_pooling_passes_nan_on():
    x = last(drawn(1, 32, 4, 4))
    x[0, 3, 1, 1] = float("nan")
    found = KERNELS["max_pool"](("rows", 8, 4), OPTIONS)(x, 3, 2, 1)
    assert found[0, 3].isnan().any()
    assert not found[0, 4].isnan().any()


def test_products_in_eight_bits():
    x, scales = rows8(drawn(64, 128))
    weight, columns = rows8(drawn(96, 128, scale=0.1))
    bias, residual, gamma, beta = drawn(96), drawn(64, 96), drawn(96), drawn(96)
    config = ("tile", 64, 32, 64, 3, 4)
    check("linear8", config, x, scales, weight, columns, bias, "gelu", False)
    check("linear8", config, x, None, weight, columns * 0.01, bias, "", True, limit=COARSE)
    check("linear_norm8", config, x, scales, weight, columns, bias, residual, gamma, beta, 1e-5, limit=COARSE)
    packed = drawn(2, 16, 96)
    check("attention8", ("rows", 16, 4), packed, None, 2, 16, 0, 32, 64, 0.25, limit=COARSE)


def test_every_kernel_offers_the_library_and_more():
    x, weight, bias = drawn(300, 256), drawn(128, 256), drawn(128)
    found = KERNELS["linear"].configs(x, weight, bias, "")
    assert found[0] == LIBRARY
    assert {config[0] for config in found[1:]} == {"tile"}
    assert KERNELS["linear"].configs(x.float(), weight.float(), bias.float(), "") == [LIBRARY]


@pytest.mark.parametrize("operator", ["linear_wide", "linear_norm_wide"])
def test_results_in_fp32(operator):
    args = (drawn(2, 33, 128), drawn(96, 128, scale=0.1), drawn(96))
    if operator == "linear_wide":
        check(operator, ("tile", 64, 32, 64, 3, 4, 1), *args, "tanh")
        assert KERNELS[operator](("tile", 64, 32, 64, 3, 4, 1), OPTIONS)(*args, "").dtype == torch.float32
    else:
        check(operator, ("tile", 64, 32, 64, 3, 4, 2), *args, drawn(2, 33, 96), drawn(96), drawn(96), 1e-5)


def test_a_first_round_draws_and_a_second_looks_around():
    x, weight = last(drawn(1, 128, 8, 8)), drawn(128, 3, 3, 128)
    args = x, weight, drawn(128), None, 1, 1, "relu"
    conv = KERNELS["conv"]
    first, every = conv.configs(*args), conv._all(args)
    assert first == conv.configs(*args)
    assert len(first) == 1 + conv.tried < len(every)
    near = conv.around(first[1], *args)
    assert near
    assert set(near) <= set(every) - {first[1]}
    assert all(sum(a != b for a, b in zip(one, first[1], strict=True)) == 1 for one in near)
    assert conv.around(LIBRARY, *args) == []
