"""The fingerprint: every ingredient that shapes a build is in it, and each change is named."""

import importlib.metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tailorbird.backends import host
from tailorbird.builder import fingerprint as subject
from tailorbird.builder.fingerprint import (
    code_digest,
    code_of,
    fingerprint,
    normalised_key,
    references_key,
    settings,
    versions,
)
from tailorbird.domain.budget import parse_budget
from tailorbird.domain.config import BuildConfig, Limits
from tailorbird.domain.entry import changes
from tailorbird.domain.objective import Objective
from tailorbird.domain.quantisation import Ranges

FILES = {"source": "sha256:1", "external data w.bin": "2", "data": "sha256:3"}
PLAIN = BuildConfig()


def whole(config: BuildConfig = PLAIN, name: str = "net", file: str = "net.onnx", **files: str) -> dict[str, str]:
    return fingerprint(FILES | files, config, name, file)


def names(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [change.name for change in changes(old, new)]


OTHER: dict[str, Any] = {
    "min_shapes": "x:1x4", "opt_shapes": "x:2x4", "max_shapes": "x:4x4", "labels": "y", "metric": "top5",
    "ranges": (Ranges.PERCENTILE,), "objective": Objective.THROUGHPUT, "slo_ms": 3.0, "time_budget": 1.0,
    "backends": ("openvino",), "precisions": ("fp32",), "seed": 7, "threads": (host.usable_cores(),),
    "target": "onnxruntime:cpu:avx2", "qualify": False, "keep_kit": True,
    "options": ("tf32=true",),
}  # fmt: skip


@pytest.mark.parametrize("field", OTHER)
def test_every_setting_is_an_ingredient(field: str) -> None:
    changed = whole(msgspec.structs.replace(PLAIN, **{field: OTHER[field]}))
    assert names(whole(), changed) == [field]


def test_no_setting_was_forgotten() -> None:
    inside = {"budget": [f"budget.{part}" for part in type(PLAIN.budget).__struct_fields__],
              "limits": [f"limits.{part}" for part in Limits.__struct_fields__]}  # fmt: skip
    expected = [name for field in BuildConfig.__struct_fields__ for name in inside.get(field, [field])]
    assert list(settings(PLAIN)) == [name for name in expected if name not in ("cache", "data")]
    assert set(OTHER) | {"budget", "limits", "cache", "data"} == set(BuildConfig.__struct_fields__)


def test_where_the_cache_and_the_data_are_means_nothing() -> None:
    assert names(whole(), whole(BuildConfig(cache="/elsewhere", data="/moved"))) == []


def test_the_budget_and_the_limits_are_named_by_their_part() -> None:
    budget = BuildConfig(budget=parse_budget("snr >= 40"))
    assert names(whole(), whole(budget)) == ["budget.snr_db", "budget.fidelity"]
    assert names(whole(), whole(BuildConfig(limits=Limits(seconds=9.0)))) == ["limits.seconds"]
    assert changes(whole(), whole(BuildConfig(seed=2)))[0].was == "0"


@pytest.mark.parametrize("ingredient", FILES)
def test_every_digest_is_an_ingredient(ingredient: str) -> None:
    assert names(whole(), whole(**{ingredient: "other"})) == [ingredient]


def test_names_are_ingredients() -> None:
    assert names(whole(), whole(name="other")) == ["name"]
    assert names(whole(), whole(file="other.onnx")) == ["source name"]


def test_threads_in_use_follow_from_the_settings_or_the_machine() -> None:
    assert whole()["threads in use"] == str(host.usable_cores())
    assert whole(BuildConfig(threads=(3, 1)))["threads in use"] == "3"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "openvino", "nncf", "numpy"])
def test_versions_are_ingredients(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = whole(), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == package else real(name))
    (change,) = changes(before, whole())
    assert (change.name, change.now) == (f"{package} version", "9.9")


@pytest.mark.parametrize("package", ["tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "onnxruntime-gpu"])
def test_packages_that_few_machines_have_are_ingredients_where_they_are(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def gone(name: str) -> str:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", gone)
    before = whole()
    assert f"{package} version" not in before
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == package else real(name))
    assert names(before, whole()) == [f"{package} version"]


def test_files_that_the_environment_names_are_ingredients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole()
    monkeypatch.setenv("TAILORBIRD_TUNED", str(tmp_path / "tuned.json"))
    assert whole() == before  # it is not there
    (tmp_path / "tuned.json").write_text("{}")
    named = whole()
    assert names(before, named) == ["$TAILORBIRD_TUNED"]
    (tmp_path / "tuned.json").write_text("{ }")
    assert names(named, whole()) == ["$TAILORBIRD_TUNED"]


def test_what_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", gone)
    assert versions()["torch version"] == "not installed"


def test_plug_ins_are_ingredients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole()
    info = tmp_path / "fast-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: fast\nVersion: 1.2\n", "utf-8")
    (info / "entry_points.txt").write_text("[tailorbird.backends]\nfast = fast_backend:Fast\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (change,) = changes(before, whole())
    assert (change.name, change.now) == ("plug-in fast", "fast_backend:Fast of fast 1.2")


@pytest.mark.parametrize("fact", ["isa", "cores", "memory_gib", "cpu", "gpu_driver"])
def test_device_facts_are_ingredients(fact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole()
    monkeypatch.setattr(subject, "device_facts", lambda: host.cpu_facts() | {fact: "other"})
    assert names(before, whole()) == [f"device {fact}"]


def test_our_own_code_is_an_ingredient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    for name in ("builder/a.py", "builder/graph/b.py", "service/c.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x = 1\n", "utf-8")
    monkeypatch.setattr(subject, "__file__", str(package / "builder" / "fingerprint.py"))

    def digest(*parts: str) -> str:
        code_digest.cache_clear()
        return code_digest(parts)

    before = digest("builder"), digest("builder/graph")
    (package / "service" / "c.py").write_text("x = 2\n", "utf-8")
    assert (digest("builder"), digest("builder/graph")) == before
    (package / "builder" / "a.py").write_text("x = 2\n", "utf-8")
    assert digest("builder") != before[0]
    assert digest("builder/graph") == before[1]
    (package / "builder" / "graph" / "b.py").rename(package / "builder" / "graph" / "renamed.py")
    assert digest("builder/graph") != before[1]
    code_digest.cache_clear()


def test_our_code_has_a_place_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole()
    monkeypatch.setattr(subject, "code_digest", lambda parts: "other")
    assert names(before, whole()) == ["tailorbird code"]


def test_a_metric_counts_by_its_file_and_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "scores.py"
    (tmp_path / "mine" / "__init__.py").write_text("raise RuntimeError('it was imported')\n", "utf-8")
    file.write_text("raise RuntimeError('it was run')\n", "utf-8")
    config = BuildConfig(metric="mine.scores:score")
    before = whole(config)
    file.write_text("raise RuntimeError('it was run!')\n", "utf-8")
    assert names(before, whole(config)) == ["metric code"]
    assert code_of("top1") == ""
    assert code_of("nowhere.at.all:score") == "not found"


def test_a_budget_or_a_precision_leaves_graph_and_references_alone() -> None:
    other = whole(BuildConfig(budget=parse_budget("snr >= 40"), precisions=("fp32",), time_budget=3.0))
    assert normalised_key(whole(), ()) == normalised_key(other, ())
    assert references_key(whole(), ()) == references_key(other, ())


@pytest.mark.parametrize(
    ("changed", "reached"),
    [
        ({"source": "other"}, (1, 1)),
        ({"external data w.bin": "other"}, (1, 1)),
        ({"data": "other"}, (0, 1)),
        ({"seed": "1"}, (0, 1)),
        ({"opt_shapes": "x:1x4"}, (0, 1)),
        ({"labels": "y"}, (0, 1)),
        ({"metric code": "other"}, (0, 1)),
        ({"threads in use": "77"}, (0, 1)),
        ({"onnx version": "0"}, (1, 1)),
        ({"onnxruntime version": "0"}, (0, 1)),
        ({"nncf version": "0"}, (0, 0)),
        ({"name": "other"}, (0, 0)),
        ({"source name": "other"}, (0, 0)),
    ],
)
def test_each_kind_follows_from_its_own_part(changed: dict[str, str], reached: tuple[int, int]) -> None:
    other = whole() | changed
    found = [key(whole(), ()) != key(other, ()) for key in (normalised_key, references_key)]
    assert tuple(map(int, found)) == reached


@pytest.mark.parametrize("part", ["builder/cases/a.py", "builder/gate/a.py", "builder/groundwork.py"])
def test_what_lays_the_groundwork_is_in_the_key_of_a_normalised_graph(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("builder/cases", "builder/gate", "builder/graph", "builder/sources", "domain"):
        (tmp_path / folder).mkdir(parents=True)
    for name in {"builder/groundwork.py", "builder/prepare.py", part}:
        (tmp_path / name).write_text("x = 1\n", "utf-8")
    monkeypatch.setattr(subject, "__file__", str(tmp_path / "builder" / "fingerprint.py"))
    code_digest.cache_clear()
    before = normalised_key({}, ())
    (tmp_path / part).write_text("x = 2\n", "utf-8")
    code_digest.cache_clear()
    assert names(before, normalised_key({}, ())) == ["tailorbird code"]
    code_digest.cache_clear()


def test_passes_left_out_make_another_graph() -> None:
    assert names(normalised_key(whole(), ()), normalised_key(whole(), ("opset",))) == ["left out"]
