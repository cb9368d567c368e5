"""NNCF as a package: silent towards its makers, and held to its promise."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nncf")

from tailorbird.builder.quantise.nncf_package import Promise, nncf_border
from tailorbird.domain.errors import BackendError, StepError
from tests.unit.builder.graphs import linear, save

SILENT = """
import sys
{before}
from tailorbird.builder.quantise.nncf_package import load_nncf
nncf = load_nncf()
import openvino
from nncf.telemetry.wrapper import telemetry
from openvino.tools.ovc import convert_impl
assert "pytest" not in sys.modules  # where NNCF is silent anyway
openvino.convert_model(sys.argv[1])
print(type(telemetry).__name__, convert_impl.tm.Telemetry.__module__, nncf.common.logging.logger.nncf_logger.level)
"""


def told(before: str, home: Path) -> list[str]:
    """What stands for telemetry in NNCF and in OpenVINO, and NNCF's log level, in a process of its own."""
    model = save(linear(), home / "model.onnx")
    script = [sys.executable, "-c", SILENT.format(before=before), str(model)]
    done = subprocess.run(script, capture_output=True, text=True, check=True, env={"HOME": str(home)})
    model.unlink()
    return done.stdout.split()


def test_nothing_is_sent_and_no_client_id_written(tmp_path: Path) -> None:
    """Left alone, OpenVINO writes an id into the user's home and sends an event when it is imported."""
    assert told("", tmp_path) == ["MagicMock", "openvino.tools.ovc.telemetry_stub", "40"]
    assert list(tmp_path.iterdir()) == []


def test_an_openvino_that_was_there_before_is_silenced(tmp_path: Path) -> None:
    assert told("import openvino", tmp_path) == ["MagicMock", "openvino.tools.ovc.telemetry_stub", "40"]


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
    with pytest.raises(StepError, match=r"a constant of 'scale' NaN or infinite: got 1 such operations, expected fin"):
        promise.check(Promise((), frozenset({"mask", "scale"})))


def test_what_the_vendor_raises_becomes_ours() -> None:
    with (
        pytest.raises(BackendError, match="nncf could not compress the weights: got no luck"),
        nncf_border(0, "compress the weights"),
    ):
        raise RuntimeError("no luck")
