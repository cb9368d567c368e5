"""Reproduce: the command line leads back to the settings it was made of."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from cyclopts import App, Parameter

from tailorbird.builder.figures.reproduce import command, reproduce_html, requirements
from tailorbird.cli.flags import Accuracy, Elsewhere, Search, Serving, settings_of
from tailorbird.domain.budget import parse_budget
from tailorbird.domain.config import BuildConfig, Limits
from tailorbird.domain.objective import Objective
from tailorbird.domain.quantisation import Ranges
from tests.unit.builder.figures import builds

SERVING, ACCURACY, SEARCH, ELSEWHERE = Serving(), Accuracy(), Search(), Elsewhere()
SETTINGS = [
    BuildConfig(),
    BuildConfig(min_shapes="x:1x3", opt_shapes="x:2x3", max_shapes="x:8x3,y z:1", seed=7, time_budget=0.0),
    BuildConfig(data="my data.npz", labels="y", metric="top5", ranges=(Ranges.MINMAX, Ranges.ENTROPY)),
    BuildConfig(target="tensorrt_rtx:cuda:sm86", keep_kit=True),
    BuildConfig(qualify=False),
    BuildConfig(threads=(1, 2), backends=("openvino", "onnxruntime"), precisions=("fp32", "int8")),
    BuildConfig(objective=Objective.THROUGHPUT, slo_ms=12.5, limits=Limits(30.0, 512 << 20)),
    *(BuildConfig(budget=parse_budget(text)) for text in (
        "99.9%", "top1 >= 99.5%", "top1 drop <= 0.5", "snr >= 25", "cosine >= 0.999", "snr >= 30, cosine >= 0.9, 98%",
        "hooks:wer drop <= 1e-3", "0.5%", "snr >= 20",
    )),
]  # fmt: skip


def logged(config: BuildConfig) -> dict[str, Any]:
    """The settings as the build log has them."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return found


def parsed(line: str) -> BuildConfig:
    """The settings that the words of a command line come to, through the flags themselves."""
    app, found = App(), list[BuildConfig]()

    @app.default
    def build(
        model: str,
        *,
        output: Annotated[str, Parameter(name="-o")],
        serving: Serving = SERVING,
        accuracy: Accuracy = ACCURACY,
        search: Search = SEARCH,
        elsewhere: Elsewhere = ELSEWHERE,
    ) -> None:
        found.append(settings_of(Path("/nonexistent/tailorbird.toml"), serving, accuracy, search, elsewhere))

    words = shlex.split(line)
    assert words[:2] == ["tailorbird", "build"]
    app(words[2:], exit_on_error=False, result_action="return_value")
    return found[0]


@pytest.mark.parametrize("config", SETTINGS, ids=range(len(SETTINGS)))
def test_the_command_leads_back_to_the_settings(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailorbird.builder.gate.metrics.resolve_metric", lambda *_, **__: None)
    assert parsed(command("m.onnx", logged(config), "out.engine")) == config


def test_names_with_spaces_and_quotes_stay_one_word() -> None:
    line = command("a b/it's.onnx", {}, "x;rm -rf.engine")
    assert shlex.split(line) == ["tailorbird", "build", "a b/it's.onnx", "-o", "x;rm -rf.engine"]


def test_settings_of_another_version_are_left_out() -> None:
    line = command("m.onnx", {"of_tomorrow": 3, "seed": 1, "budget": {"strange": 1}, "limits": {}}, "m.engine")
    assert line == "tailorbird build m.onnx -o m.engine --seed 1"


def test_a_kit_is_asked_for_nothing_that_it_has_itself() -> None:
    config = BuildConfig(seed=7, opt_shapes="x:2x3", target="onnxruntime:cpu:avx2", threads=(1,), keep_kit=True)
    assert command("net.kit", logged(config), "net.engine") == (
        "tailorbird build net.kit -o net.engine --threads 1 --keep-kit"
    )


def test_where_it_is_cached_does_not_matter() -> None:
    assert "cache" not in command("m.onnx", logged(BuildConfig(cache="/some/where")), "m.engine")


def test_versions_are_requirements() -> None:
    assert requirements({"onnxruntime": "1.32.0", "a<b": "1"}) == "pip install onnxruntime==1.32.0 'a<b'==1"


def test_the_section_has_command_digests_device_and_seed() -> None:
    page = reproduce_html(builds.manifest(), [{"event": "started", "source": "<m>.onnx", "config": {"seed": 5}}])
    for text in ("&lt;m&gt;.onnx", "--seed 5", builds.manifest().provenance.source_digest, "tailorbird compare"):
        assert text in page, text
    assert reproduce_html(builds.manifest(), [])
