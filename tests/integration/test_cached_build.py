"""Builds again: found when nothing changed, made anew with the changed ingredient named, healed when damaged."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tailorbird
from tailorbird.builder import fingerprint
from tailorbird.builder.cases.data import save_set
from tailorbird.domain.bundle import verify
from tailorbird.domain.bundlefile import manifest_of, unpack
from tailorbird.domain.cache import Cache
from tailorbird.domain.errors import ModelError, UsageError
from tailorbird.repository.signing import keyfiles, keys
from tailorbird.repository.signing.trust import signer_of
from tests.integration.test_int8 import layered
from tests.unit.builder.graphs import externalise, linear, save

pytest.importorskip("onnxruntime")

QUICK: dict[str, Any] = {"threads": [1], "backends": ["onnxruntime"], "precisions": ["fp32"]}
FLAGS = ("--threads", "1", "--backend", "onnxruntime", "--precision", "fp32")
KINDS = {"sources", "engines", "normalised", "references"}
Event = dict[str, Any]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))


class Asked(list[Event]):
    """The cache's events of one build."""

    def __call__(self, event: Event) -> None:
        if event["event"].startswith("cache"):
            self.append(event)

    def of(self, kind: str) -> Event:
        return [one for one in self if one["event"] == "cache" and one["kind"] == kind][-1]

    @property
    def hits(self) -> set[str]:
        return {one["kind"] for one in self if one["event"] == "cache" and one["hit"]}

    @property
    def changed(self) -> list[str]:
        return [change["name"] for change in self.of("engines")["changed"]]


class Enough(BaseException):
    """Ends a build of which no more is asked."""


def built(source: Any, **settings: Any) -> tuple[tailorbird.Result, Asked]:
    asked = Asked()
    return tailorbird.build(source, observers=[asked], **QUICK | settings), asked


def begun(source: Any, **settings: Any) -> Asked:
    """What the cache was asked by a build that is not found and ends where the race would begin."""

    def enough(event: Event) -> None:
        if event["event"] == "candidates":
            raise Enough

    asked = Asked()
    with pytest.raises(Enough):
        tailorbird.build(source, observers=[asked, enough], **QUICK | settings)
    return asked


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A model that no build has seen."""
    return save(linear(rows=1), tmp_path / "net.onnx")


@pytest.fixture(scope="module")
def cache_of_one_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache after one build of that model with the quick settings."""
    folder = tmp_path_factory.mktemp("once")
    tailorbird.build(save(linear(rows=1), folder / "net.onnx"), **QUICK, cache=str(folder / "cache"))
    return folder / "cache"


@pytest.fixture
def net(fresh: Path, cache_of_one_build: Path, tmp_path: Path) -> Path:
    """The model after that build."""
    shutil.copytree(cache_of_one_build, tmp_path / "cache")
    return fresh


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


# --- found, or not, and why ----------------------------------------------------------------------


def test_the_same_build_again_is_found_and_returns_at_once(fresh: Path, tmp_path: Path) -> None:
    first, asked = built(fresh, output="a.engine")
    assert asked.hits == set()
    start = time.monotonic()
    second, asked = built(fresh, output="b.engine")
    assert time.monotonic() - start < 3
    assert asked.hits == {"sources", "engines"}
    assert second.manifest == first.manifest == manifest_of(tmp_path / "b.engine")
    assert (second.table, second.speedup) == (first.table, first.speedup)
    assert Path("a.engine").read_bytes() == Path("b.engine").read_bytes()
    assert not Path("a.engine").samefile("b.engine")
    assert {path.name for path in tmp_path.iterdir()} >= {"a.engine", "b.engine"}
    assert not list(tmp_path.glob(".*.tmp"))
    with tailorbird.open("b.engine") as engine:
        assert engine.run({"x": np.ones((1, 4), np.float32)})["y"].shape == (1, 3)


def test_a_bundle_holds_the_graph_s_outline_and_all_else_that_is_sealed(net: Path, tmp_path: Path) -> None:
    built(net, output="a.engine")
    manifest = verify(unpack(tmp_path / "a.engine", tmp_path / "unpacked"))
    assert {"tailorbird/graph.json", "tailorbird/build.jsonl", "tailorbird/report.html"} <= set(manifest.files)


def test_a_file_that_is_delivered_again_onto_itself_stays(net: Path, tmp_path: Path) -> None:
    built(net, output="a.engine")
    built(net, output="a.engine")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.engine", "net.onnx"]


def test_a_found_build_is_published_as_any_other(net: Path, tmp_path: Path) -> None:
    built(net)
    result, asked = built(net, repository=tmp_path / "repository")
    assert "engines" in asked.hits
    assert result.version_dir
    assert verify(result.version_dir) == result.manifest


CHANGES: dict[str, tuple[Event, list[str]]] = {
    "budget": ({"budget": "snr >= 40"}, ["budget.snr_db", "budget.fidelity"]),
    "name": ({"name": "other"}, ["name"]),
    "time budget": ({"time_budget": 100.0}, ["time_budget"]),
    "memory limit": ({"limits": {"memory_bytes": 8 << 30}}, ["limits.memory_bytes"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_is_named_and_what_it_does_not_touch_is_found(net: Path, change: str) -> None:
    settings, expected = CHANGES[change]
    built(net)
    asked = begun(net, **settings)
    assert asked.changed == expected
    assert asked.hits >= {"sources", "normalised"}
    assert ("references" in asked.hits) == (change != "memory limit")


def test_what_was_built_with_other_settings_is_found_again(net: Path) -> None:
    assert built(net, budget="snr >= 40")[1].hits == {"sources", "normalised", "references"}
    assert built(net, budget="snr >= 40")[1].hits == {"sources", "engines"}
    assert built(net)[1].hits == {"sources", "engines"}


@pytest.mark.parametrize(("setting", "given"), [("seed", 1), ("opt_shapes", "x:2x4")])
def test_other_inputs_are_laid_out_and_answered_anew(tmp_path: Path, setting: str, given: Any) -> None:
    net = save(linear(), tmp_path / "net.onnx")
    begun(net)
    asked = begun(net, **{setting: given})
    assert asked.hits == {"sources", "normalised"}
    assert [change["name"] for change in asked.of("references")["changed"]] == [setting]


def test_one_bit_of_a_weight_is_another_model(net: Path) -> None:
    built(net)
    made = linear(rows=1)
    raw = bytearray(made.graph.initializer[0].raw_data)
    raw[5] ^= 1
    made.graph.initializer[0].raw_data = bytes(raw)
    save(made, net)
    asked = begun(net)
    assert asked.changed == ["source"]
    assert asked.hits == set()


def test_one_bit_of_an_external_weight_is_another_model(tmp_path: Path) -> None:
    made = linear(rows=1)
    externalise(made.graph.initializer[0], tmp_path, "w/w.bin")
    net = save(made, tmp_path / "net.onnx")
    first, _ = built(net)
    _, asked = built(net)
    assert asked.hits == {"sources", "engines"}
    flip(tmp_path / "w" / "w.bin", 5)
    changed, asked = built(net)
    assert asked.changed == ["external data w/w.bin"]
    assert asked.hits == {"sources"}
    assert changed.manifest.provenance.source_digest != first.manifest.provenance.source_digest


@pytest.mark.parametrize("how", ["missing", "link"])
def test_external_data_is_held_to_the_same_rules_when_it_is_known(tmp_path: Path, how: str) -> None:
    made = linear(rows=1)
    externalise(made.graph.initializer[0], tmp_path, "w.bin")
    net = save(made, tmp_path / "net.onnx")
    built(net)
    (tmp_path / "w.bin").rename(tmp_path / "outside")
    if how == "link":
        (tmp_path / "w.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match="which is missing" if how == "missing" else "through a symbolic link"):
        built(net)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_one_bit_of_the_data_is_other_data(net: Path, tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(4):
        save_set(data / f"{number}.npz", {"x": np.full((1, 4), number, np.float32)})
    given = data if kind == "directory" else data / "2.npz"
    begun(net, data=str(given))
    assert begun(net, data=str(given)).hits == {"sources", "normalised", "references"}
    save_set(data / "2.npz", {"x": np.full((1, 4), 2.5, np.float32)})
    asked = begun(net, data=str(given))
    assert [change["name"] for change in asked.of("references")["changed"]] == ["data"]
    assert asked.hits == {"sources", "normalised"}


@pytest.mark.heavy
def test_data_of_a_callable_counts_by_what_it_yields(net: Path, tmp_path: Path) -> None:
    module = tmp_path / "samples_of_mine.py"
    text = (
        "import numpy\ndef rows():\n    for n in range(4):\n        yield {'x': numpy.full((1, 4), n + START, 'f4')}\n"
    )
    module.write_text("START = 1\n" + text, "utf-8")
    begun(net, data="samples_of_mine:rows")
    module.write_text("# a remark\nSTART = 1\n" + text, "utf-8")
    assert "references" in begun(net, data="samples_of_mine:rows").hits
    module.write_text("START = 2\n" + text, "utf-8")
    asked = begun(net, data="samples_of_mine:rows")
    assert [change["name"] for change in asked.of("references")["changed"]] == ["data"]


def test_data_that_is_not_there_is_refused_as_ever(net: Path) -> None:
    with pytest.raises(UsageError, match="cannot read data: got nowhere"):
        built(net, data="nowhere")


def test_another_machine_builds_its_own(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(net)
    facts = fingerprint.device_facts() | {"cpu": "another"}
    monkeypatch.setattr(fingerprint, "device_facts", lambda: facts)
    asked = begun(net)
    assert asked.changed == ["device cpu"]
    assert asked.hits == {"sources", "normalised", "references"}


def test_a_refused_build_leaves_graph_and_references_for_the_next(fresh: Path) -> None:
    with pytest.raises(tailorbird.TailorbirdError):
        built(fresh, budget="snr >= 10000")
    assert built(fresh)[1].hits == {"sources", "normalised", "references"}


# --- PyTorch -------------------------------------------------------------------------------------

PROGRAM = """
import torch
def make():
    torch.manual_seed({seed})
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), (torch.ones(1, 4),)
"""


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_a_program_counts_by_what_it_exports_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "program_of_mine.py").write_text(PROGRAM.format(seed=seed), "utf-8")
    asked = []
    for name in ("one", "two", "three"):
        monkeypatch.chdir(tmp_path / name)
        asked.append(begun("program_of_mine:make"))
    assert asked[1].hits == {"sources", "normalised", "references"}
    assert [change["name"] for change in asked[2].of("normalised")["changed"]] == ["source"]
    assert asked[2].hits == set()


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_the_example_of_a_program_is_an_ingredient(tmp_path: Path) -> None:
    """Its rows are in no byte of the exported graph, whose batch is open, and still they decide the profile."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    seen = []
    for rows in (2, 16):
        program = PROGRAM.format(seed=1).replace("torch.ones(1, 4)", f"torch.ones({rows}, 4)")
        (tmp_path / "program_of_mine.py").write_text(program, "utf-8")
        seen.append(begun("program_of_mine:make"))
    assert "normalised" not in seen[1].hits
    (changed,) = [change for change in seen[1].of("normalised")["changed"] if change["name"] == "source example"]
    assert "2x4" in changed["was"]
    assert "16x4" in changed["now"]


@pytest.mark.heavy
def test_an_export_holds_nothing_but_the_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    (tmp_path / "program_of_mine.py").write_text(PROGRAM.format(seed=1), "utf-8")
    code = ("from tailorbird.builder.sources.export_torch import export; "
            "from tailorbird.builder.sources.source import ExportArgs; "
            "import sys; export(ExportArgs('program_of_mine:make', sys.argv[1]))")  # fmt: skip
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.onnx")], check=True, timeout=100, capture_output=True)
    data = (tmp_path / "m.onnx").read_bytes()
    assert str(tmp_path).encode() not in data
    assert b"stack_trace" not in data
    made = onnx.load(tmp_path / "m.onnx")
    assert not any(node.doc_string or node.metadata_props for node in made.graph.node)


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_a_saved_program_counts_by_its_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    file = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(4, 3), (torch.ones(1, 4),)), file)
    built(str(file))
    start = time.monotonic()
    assert built(str(file))[1].hits == {"engines"}
    assert time.monotonic() - start < 3  # nothing was exported
    assert begun(str(file), budget="snr >= 30").hits == {"normalised", "references"}


# --- damage --------------------------------------------------------------------------------------


def test_one_bit_of_any_cached_file_is_seen(net: Path, tmp_path: Path) -> None:
    built(net)
    seen = set()
    for entry in (tmp_path / "cache" / "builds").glob("*/*"):
        key, kind = json.loads((entry / "entry.json").read_bytes())["key"], entry.parent.name
        for name in [path.name for path in entry.iterdir()]:
            notices: list[tuple[str, ...]] = []
            shutil.copytree(entry, tmp_path / "other" / kind / entry.name)
            path = tmp_path / "other" / kind / entry.name / name
            flip(path, path.stat().st_size // 2)
            with Cache(tmp_path / "other", notice=lambda *words, notices=notices: notices.append(words)) as cache:
                assert cache.get(kind, key) is None
            assert notices[0][:2] == ("healed", kind)
            assert name in notices[0][2]
            seen.add(kind)
    assert seen == KINDS


def test_a_damaged_cache_is_healed_by_the_next_build(net: Path, tmp_path: Path) -> None:
    result, _ = built(net)
    for entry in (tmp_path / "cache" / "builds").glob("*/*"):
        path = min(path for path in entry.iterdir() if path.name != "entry.json")
        flip(path, path.stat().st_size // 2)
    again, asked = built(net)
    assert {(one["what"], one["kind"]) for one in asked if one["event"] == "cache notice"} == {
        ("healed", kind) for kind in KINDS
    }
    assert again.manifest.provenance.normalised_digest == result.manifest.provenance.normalised_digest
    assert built(net)[1].hits == {"sources", "engines"}


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_one_bit_of_a_cached_quantised_graph_is_seen_and_healed(tmp_path: Path) -> None:
    net, settings = save(layered(guilty=False), tmp_path / "net.onnx"), {"precisions": ["int8"], "time_budget": 60.0}
    built(net, **settings)
    _, asked = built(net, **settings | {"time_budget": 61.0})
    assert asked.hits == {"sources", "normalised", "references", "quantised"}
    (entry,) = (tmp_path / "cache" / "builds" / "quantised").iterdir()
    for number, path in enumerate(sorted(entry.iterdir())):
        flip(path, path.stat().st_size // 2)
        _, asked = built(net, **settings | {"time_budget": 62.0 + number})
        (notice,) = [one for one in asked if one["event"] == "cache notice"]
        assert (notice["what"], notice["kind"]) == ("healed", "quantised")
        assert path.name in notice["reason"]


def test_an_altered_output_alters_neither_the_cache_nor_the_next(net: Path, tmp_path: Path) -> None:
    built(net, output="a.engine")
    flip(tmp_path / "a.engine", 200)
    result, asked = built(net, output="b.engine")
    assert asked.hits == {"sources", "engines"}
    assert [one["what"] for one in asked if one["event"] == "cache notice"] == []
    assert manifest_of(tmp_path / "b.engine") == result.manifest
    verify(unpack(tmp_path / "b.engine", tmp_path / "unpacked"))


# --- where the cache cannot be written -----------------------------------------------------------


def test_a_build_does_without_a_cache_that_cannot_be_written(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a directory", "utf-8")
    result, asked = built(fresh, output="a.engine")
    notices = {(one["what"], one["kind"]) for one in asked if one["event"] == "cache notice"}
    assert notices == {("not kept", kind) for kind in KINDS}
    assert manifest_of(tmp_path / "a.engine") == result.manifest


# --- signatures ----------------------------------------------------------------------------------


def test_a_cached_engine_of_a_key_that_is_not_trusted_is_built_anew_and_never_signed_again(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to a cache, a restored one of CI's say, must not get a signature by that."""
    built(net)
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "other keys"))
    second, asked = built(net, output="a.engine")
    assert "engines" not in asked.hits
    (notice,) = [one for one in asked if one["event"] == "cache notice"]
    assert (notice["what"], notice["kind"]) == ("dropped", "engines")
    assert "is by a key that is not trusted here" in notice["reason"]
    with tailorbird.open("a.engine") as engine:
        assert engine.manifest == second.manifest
    assert "engines" in built(net)[1].hits


def test_an_engine_of_another_key_of_one_s_own_is_built_anew_by_the_one_that_signs(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(keyfiles.folder(), tmp_path / "keys")
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    second = keys.new("second")
    monkeypatch.setenv("TAILORBIRD_KEY", str(second.path))
    _, asked = built(net, output="a.engine")
    (notice,) = [one for one in asked if one["event"] == "cache notice"]
    assert (notice["what"], notice["kind"]) == ("dropped", "engines")
    assert notice["reason"] == "signed by another key than the one that signs here"
    signer = signer_of(tmp_path / "a.engine")
    assert signer
    assert signer.key == second.id


def forge(cache: Path, kind: str, change: Callable[[Path], None]) -> None:
    """Alter an entry as one who may write to the cache can: its record fits."""
    with Cache(cache / "builds") as opened:
        (entry,) = opened.entries(kind)
        files = {name: (entry.place / name).read_bytes() for name in entry.record.files}
        assert opened.forget(kind, entry.record.key)

        def fill(folder: Path) -> None:
            for name, data in files.items():
                (folder / name).write_bytes(data)
            change(folder)

        opened.make(kind, entry.record.key, fill, about=entry.record.about)


@pytest.mark.parametrize("other", [{"seed": 3}, pytest.param({"name": "other"}, marks=pytest.mark.heavy)])
def test_a_signed_engine_of_another_build_in_the_place_of_this_one_s_is_dropped(
    net: Path, tmp_path: Path, other: Event
) -> None:
    elsewhere = tmp_path / "elsewhere"
    built(net, output="other.engine", cache=str(elsewhere), **other)
    forge(tmp_path / "cache", "engines", lambda folder: (folder / "model.engine").write_bytes(
        Path("other.engine").read_bytes()))  # fmt: skip
    result, asked = built(net)
    (notice,) = [one for one in asked if one["event"] == "cache notice"]
    assert (notice["what"], notice["kind"], notice["reason"]) == ("dropped", "engines", "of another build")
    assert (result.manifest.model, result.manifest.provenance.ingredients["seed"]) == ("net", "0")
    assert "engines" in built(net)[1].hits


def test_a_normalised_graph_of_another_model_is_dropped(net: Path, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        ground = json.loads((folder / "prepared.json").read_bytes())
        ground["prepared"]["source_digest"] = "sha256:" + "0" * 64
        (folder / "prepared.json").write_text(json.dumps(ground), "utf-8")

    forge(tmp_path / "cache", "normalised", change)
    asked = begun(net, budget="snr >= 30")
    (notice,) = [one for one in asked if one["event"] == "cache notice"]
    assert (notice["what"], notice["kind"], notice["reason"]) == ("dropped", "normalised", "of another model")
    assert asked.hits == {"sources", "references"}


def test_the_code_that_lists_external_data_is_in_the_key_of_the_list(net: Path, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache" / "builds") as cache:
        (entry,) = cache.entries("sources")
    assert set(entry.record.key) == {"source", "tailorbird code"}
    assert entry.record.key["tailorbird code"] == fingerprint.code_digest(("builder/sources", "domain"))


def test_a_cache_that_others_may_write_to_is_built_without(net: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache" / "builds"
    root.chmod(0o777)
    asked = begun(net)
    assert asked.hits == set()
    notices = {(one["what"], one["reason"]) for one in asked if one["event"] == "cache notice"}
    assert notices == {("not kept", f"others may write to {root}")}


# --- together ------------------------------------------------------------------------------------


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tailorbird", "build", *words, *FLAGS, "--json", "--explain-cache"]


def test_of_two_builds_of_one_key_one_builds_and_the_other_waits(fresh: Path) -> None:
    children = [subprocess.Popen(command("net.onnx", "-o", f"{n}.engine"), stdout=subprocess.PIPE) for n in range(2)]
    answers = [json.loads(child.communicate(timeout=110)[0]) for child in children]
    finals = [[one["hit"] for one in answer["cache"] if one["kind"] == "engines"] for answer in answers]
    assert sorted(finals) == [[False], [False, True]]
    assert Path("0.engine").read_bytes() == Path("1.engine").read_bytes()
    assert answers[0]["table"] == answers[1]["table"]


@pytest.mark.heavy
def test_after_ctrl_c_what_was_made_is_found(fresh: Path) -> None:
    def interrupting(event: Event) -> None:
        if event["event"] == "candidates":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tailorbird.build(fresh, observers=[interrupting], **QUICK)
    assert built(fresh)[1].hits == {"sources", "normalised", "references"}


def test_the_command_line_explains(net: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "tailorbird", *words], capture_output=True, text=True, timeout=110,
                              check=True)  # fmt: skip
        return done.stdout

    said("build", "net.onnx", *FLAGS)
    explained = said("build", "net.onnx", *FLAGS, "--seed", "3", "--explain-cache")
    assert "seed: 0 -> 3" in explained
    rows = {line.split()[0]: line.split()[2] for line in explained.splitlines() if line.split()[:1] and
            line.split()[0] in KINDS}  # fmt: skip
    assert rows == {"sources": "hit", "engines": "miss", "normalised": "hit", "references": "miss"}
    listed = json.loads(said("cache", "list", "--json"))
    assert {one["kind"] for one in listed} == KINDS
    assert {one["about"] for one in listed} == {"net"}
    assert "6 entries, " in said("cache", "list")
    assert said("cache", "gc", "--limit", "0").startswith("removed 0 entries, 0 B; 6 in use stayed")
    assert said("cache", "clear", "engines").startswith("removed 2 entries, ")
    assert json.loads(said("cache", "clear", "--json"))["entries"] == 4
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
