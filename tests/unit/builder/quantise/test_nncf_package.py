"""NNCF as a package: silent towards its makers, and held to its promise."""

import subprocess
import sys

import pytest

pytest.importorskip("nncf")

from tailorbird.builder.quantise.nncf_package import Promise, nncf_border
from tailorbird.domain.errors import BackendError, StepError

SILENT = """
import sys
from tailorbird.builder.quantise.nncf_package import load_nncf
import openvino  # a backend may have loaded it before
nncf = load_nncf()
from nncf.telemetry import wrapper
assert "pytest" not in sys.modules  # where NNCF is silent anyway
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules), "telemetry was loaded"
print(type(wrapper.telemetry).__name__, nncf.common.logging.logger.nncf_logger.level)
"""


def test_telemetry_is_never_loaded(tmp_path: object) -> None:
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True,
                          env={"HOME": str(tmp_path)})  # fmt: skip
    assert done.stdout.split() == ["MagicMock", "40"]


def test_telemetry_that_openvino_has_loaded_is_not_used() -> None:
    loaded = SILENT.replace("assert not any", "0 and any").replace(
        "import sys\n", "import sys, openvino_telemetry\n", 1
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "MagicMock"


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (("x f32 [?,3]",), r"quantising changed the signature: got nothing, expected y f32 \[\?\]"),
        (("x f32 [?,3]", "y f16 [?]"), r"quantising changed the signature: got y f16 \[\?\], expected y f32 \[\?\]"),
        (("x f32 [?,3]", "y f32 [?]", "z f32 []"), r"changed the signature: got z f32 \[\], expected nothing"),
    ],
)
def test_a_changed_signature_is_named(got: tuple[str, ...], message: str) -> None:
    with pytest.raises(StepError, match=message):
        Promise(("x f32 [?,3]", "y f32 [?]"), frozenset()).check(Promise(got, frozenset()))


def test_constants_that_were_infinite_before_may_stay_so() -> None:
    promise = Promise((), frozenset({"mask"}))
    promise.check(Promise((), frozenset({"mask"})))
    with pytest.raises(StepError, match=r"quantising made 'scale' NaN or infinite: got 1 such constants, expected fin"):
        promise.check(Promise((), frozenset({"mask", "scale"})))


def test_what_the_vendor_raises_becomes_ours() -> None:
    with (
        pytest.raises(BackendError, match="nncf could not compress the weights: got no luck"),
        nncf_border(0, "compress the weights"),
    ):
        raise RuntimeError("no luck")
