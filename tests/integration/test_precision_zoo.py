"""Every zoo model in FP16 and BF16, every low value really rounded: as near as measured, as much of it low."""

from pathlib import Path

import pytest

from bench.precision import measure
from tailorbird.domain.precision import Precision

pytestmark = pytest.mark.heavy

LEAST_DB = {
    "bert-base": (50, 32),
    "magika": (60, 40),
    "minilm": (50, 33),
    "mobilenetv2": (45, 28),
    "ppocr-cls": (60, 45),
    "ppocr-det": (46, 23),
    "resnet50": (52, 35),
    "vit-base": (50, 32),
}
"""In FP16 and in BF16: what was measured, less a few dB for other versions."""

MOST_KEPT = {"magika": 40, "ppocr-det": 8, "minilm": 2, "vit-base": 2}
"""Nodes in FP32; none elsewhere."""


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@pytest.mark.parametrize("name", sorted(LEAST_DB))
def test_it_answers_nearly_the_same(name: str, precision: Precision, tmp_path: Path) -> None:
    found = measure(name, precision, tmp_path)
    assert len(found.kept) <= MOST_KEPT.get(name, 0)
    least = LEAST_DB[name][precision is Precision.BF16]
    assert found.seen_db is not None
    assert min(found.seen_db, found.fresh_db) > least
