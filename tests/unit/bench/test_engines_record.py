"""The file of figures: pieces of a long run come together in it."""

from pathlib import Path

import pytest

from bench.figures import Peer
from bench.record import load, merged, save
from tailorbird.domain.errors import UsageError
from tests.unit.bench.test_engines_figures import row


def test_a_fresh_row_replaces_the_one_of_its_model_and_no_other() -> None:
    known = [row("resnet50"), row("magika", median_ms=1.0)]
    found = merged(known, [row("magika", median_ms=2.0), row("minilm")], ("magika", "minilm", "resnet50"))
    assert [(one.model, one.median_ms) for one in found] == [("magika", 2.0), ("minilm", 1.0), ("resnet50", 1.0)]


def test_models_that_are_not_in_the_order_come_last() -> None:
    found = merged([row("resnet50@32"), row("magika")], [], ("magika",))
    assert [one.model for one in found] == ["magika", "resnet50@32"]


def test_what_is_saved_comes_back_whole(tmp_path: Path) -> None:
    peers = row().peers | {"accuracy-control": Peer(verdict="took too long", made_seconds=180.0)}
    rows = (row(peers=peers, device={"cpu": "other"}), row("magika"))
    save(rows, tmp_path / "new" / "engines.json")
    assert load(tmp_path / "new" / "engines.json") == rows
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["engines.json"]


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert load(tmp_path / "engines.json") == ()


@pytest.mark.parametrize("content", [b'{"device": {}, "rows": []}', b'{"rows": [{"model": "x"}]}', b"{"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "engines.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read .*engines\.json.*\nHint: measure anew without --append"):
        load(path)
