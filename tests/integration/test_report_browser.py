"""The report in a real browser: real builds, light and dark, a desk and a phone, and on paper."""

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tailorbird
from tailorbird.builder.report import read_events, write_report
from tailorbird.domain import bundlefile
from tailorbird.domain.layers import LAYERS, LayerBook, decode_layers
from tailorbird.domain.manifest import Manifest, decode_manifest
from tests.unit.builder.figures import books, builds
from tests.unit.builder.graphs import model, save, value
from tests.unit.builder.test_buildlog import documented

pytest.importorskip("onnxruntime")

SCHEMES, WIDTHS = ("light", "dark"), (1280, 390)
SECTIONS = {"How to read this", "Speed and accuracy", "Candidates", "Latency of the chosen engine, ms", "Time by layer",
            "Precision of every layer", "Gate", "Where the build’s time went", "How to reproduce it",
            "Where it comes from"}  # fmt: skip

FAINT = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = node => { for (; node; node = node.parentElement) {
    const found = parse(getComputedStyle(node).backgroundColor); if (found.length < 4 || found[3] === 1) return found; }
    return [255, 255, 255]; };
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) { const text = walker.currentNode, node = text.parentElement;
    if (!text.data.trim() || node.tagName === 'title' || !node.getClientRects().length) continue;
    const style = getComputedStyle(node), ink = parse(node.closest('svg') ? style.fill : style.color);
    const [one, two] = [light(ink), light(behind(node))].sort((a, b) => b - a), ratio = (one + .05) / (two + .05);
    seen += 1; if (ratio < 4.5) faint.push([text.data.trim().slice(0, 40), ratio.toFixed(2)]); }
  return {seen, faint}; }"""
"""Text whose contrast with what is behind it is below 4.5 (WCAG 2.2, 1.4.3)."""

MEETING = """() => [...document.querySelectorAll('svg')].filter(one => one.getClientRects().length).flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
  return boxes.flatMap(([text, a], i) => boxes.slice(i + 1).filter(([, b]) => a.left < b.right - 1
    && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2).map(([other]) => [text, other])); })"""

CUT = """() => [...document.querySelectorAll('svg.scatter')].filter(one => one.getClientRects().length).flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(one => { const box = one.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1; })
    .map(one => one.textContent); })"""

EMPTY = """() => [...document.querySelectorAll('h2')].filter(head => { let full = false;
  for (let next = head.nextElementSibling; next && next.tagName !== 'H2'; next = next.nextElementSibling)
    full = full || next.getBoundingClientRect().height > 10 && (next.textContent.trim() || next.querySelector('svg'));
  return !full; }).map(head => head.textContent)"""


def conv_net() -> onnx.ModelProto:
    """A stem and a residual block, each convolution with its bias and activation, and a head."""
    random = np.random.default_rng(2)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array((random.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype("f4"), name)

    weights = [weight("w1", 16, 3, 3, 3), weight("w2", 16, 16, 3, 3), weight("w3", 16, 10), weight("b", 16)]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b"], ["c1"], name='stem <conv> & "co"', pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], name="stem relu"),
        helper.make_node("Conv", ["r1", "w2", "b"], ["c2"], name="block/" + "very_" * 60 + "long", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["s"], name="block/add"),
        helper.make_node("Relu", ["s"], ["r2"], name="block/relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w3"], ["y"], name="head"),
    ]
    return model(nodes, [value("x", ["N", 3, 48, 48])], [value("y", ["N", 10])], weights)


def attention() -> onnx.ModelProto:
    """One block of attention over 8 words of 32 numbers."""
    random = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array((random.standard_normal((32, 32)) / 32**0.5).astype("f4"), f"w{n}") for n in "qkvo"
    ]
    weights += [numpy_helper.from_array(np.ones(32, "f4"), "g"), numpy_helper.from_array(np.zeros(32, "f4"), "b")]
    nodes = [
        *(helper.make_node("MatMul", ["x", f"w{n}"], [n], name=f"/{n}/MatMul") for n in "qkv"),
        helper.make_node("Transpose", ["k"], ["kt"], name="/Transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["qk"], name="/scores/MatMul"),
        helper.make_node("Softmax", ["qk"], ["p"], name="/Softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["c"], name="/context/MatMul"),
        helper.make_node("MatMul", ["c", "wo"], ["o"], name="/out/MatMul"),
        helper.make_node("Add", ["o", "x"], ["r"], name="/residual/Add"),
        helper.make_node("LayerNormalization", ["r", "g", "b"], ["y"], name="/norm/LayerNormalization"),
    ]
    return model(nodes, [value("x", ["N", 8, 32])], [value("y", ["N", 8, 32])], weights)


class Report:
    """One build's papers, unpacked."""

    def __init__(self, folder: Path) -> None:
        (found,) = folder.rglob("report.html")
        self.page, self.papers, self.version = found, found.parent, found.parent.parent

    @property
    def layers(self) -> LayerBook:
        return decode_layers((self.version / LAYERS).read_bytes())

    @property
    def manifest(self) -> Manifest:
        return decode_manifest((self.papers / "manifest.json").read_bytes())

    @property
    def events(self) -> list[Any]:
        return read_events(self.papers / "build.jsonl")


def built(folder: Path, name: str, graph: onnx.ModelProto, shape: tuple[int, ...], **settings: Any) -> Report:
    source = save(graph, folder / f"{name}.onnx")
    data = np.random.default_rng(1).standard_normal((24, *shape)).astype(np.float32)
    np.savez(folder / f"{name}.npz", x=data)
    small, large = (f"x:{rows}x{'x'.join(map(str, shape))}" for rows in (1, 4))
    tailorbird.build(source, output=folder / f"{name}.engine", data=str(folder / f"{name}.npz"), min_shapes=small,
                     opt_shapes=small, max_shapes=large, cache=str(folder / "cache"), **settings)  # fmt: skip
    bundlefile.unpack(folder / f"{name}.engine", folder / name)
    return Report(folder / name)


@pytest.fixture(scope="module")
def conv(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return built(tmp_path_factory.mktemp("conv"), "conv net", conv_net(), (3, 48, 48),
                 threads=(1,), backends=("onnxruntime",), precisions=("fp32", "int8"))  # fmt: skip


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return built(tmp_path_factory.mktemp("words"), "words", attention(), (8, 32), threads=(1,), precisions=("fp32",))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A page as a large build leaves it: many candidates, a thousand layers, hostile names."""
    folder = tmp_path_factory.mktemp("large")
    papers = folder / "tailorbird"
    papers.mkdir()
    write_report(
        papers / "report.html", builds.manifest(labelled=True), builds.events(), books.book(500, "<i>&\"'" * 30)
    )
    return Report(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["conv", "words", "large"])
def report(request: pytest.FixtureRequest) -> Report:
    made: Report = request.getfixturevalue(request.param)
    return made


@pytest.fixture(params=itertools.product(SCHEMES, WIDTHS), ids=lambda one: f"{one[0]}-{one[1]}")
def page(request: pytest.FixtureRequest, browser: Any, report: Report) -> Iterator[Any]:
    scheme, width = request.param
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.troubles = []
    page.on("console", lambda message: page.troubles.append(message.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda asked: page.troubles.append(asked.url) if not asked.url.startswith("file:") else None)
    page.goto(report.page.as_uri())
    yield page
    context.close()


def test_it_can_be_read(page: Any) -> None:
    """In both schemes and at both widths; once as it comes, once with all that is folded unfolded."""
    for unfolded in (False, True):
        if unfolded:
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        across = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        assert across[0] <= across[1]
        contrast = page.evaluate(FAINT)
        assert contrast["seen"] > 100
        assert contrast["faint"] == []
    assert page.evaluate(MEETING) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(EMPTY) == []
    assert page.troubles == []


def test_every_section_is_there(conv: Report, words: Report) -> None:
    for report in (conv, words):
        page = report.page.read_text("utf-8")
        heads = set(re.findall(r"<h2>([^<]*)</h2>", page))
        lacking = SECTIONS - heads
        assert lacking <= ({"Speed and accuracy"} if len(report.manifest.outcomes) < 3 else set())


def test_on_paper_it_is_light_and_whole(browser: Any, conv: Report) -> None:
    context = browser.new_context(color_scheme="dark", viewport={"width": 800, "height": 1100})
    page = context.new_page()
    page.goto(conv.page.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(FAINT)["faint"] == []
    assert page.pdf().startswith(b"%PDF")
    context.close()


def test_a_large_page_is_small(large: Report) -> None:
    assert large.page.stat().st_size < 2_000_000


def test_the_chosen_engine_and_the_runner_up_are_profiled(conv: Report) -> None:
    chosen, *others = conv.layers.engines
    assert chosen.candidate == conv.manifest.candidate.name
    assert len(others) <= 1
    nodes = {node.name for node in conv_net().graph.node}
    for table in conv.layers.engines:
        assert table.latency > 0
        assert 0 < table.profiled < 100 * table.latency
        named = [node for layer in table.layers for node in layer.nodes]
        assert set(named) <= nodes
        assert {'stem <conv> & "co"', "head"} <= set(named)
    counted = sum(conv.manifest.executed.values())
    assert 0 < len(chosen.layers) <= counted


def test_what_was_profiled_is_in_the_log(conv: Report) -> None:
    told = [event for event in conv.events if event["event"] == "profiled"]
    assert [event["candidate"] for event in told] == [table.candidate for table in conv.layers.engines]
    assert [event["layers"] for event in told] == [len(table.layers) for table in conv.layers.engines]


@pytest.mark.parametrize("name", ["conv", "words"])
def test_the_log_of_a_real_build_keeps_to_its_schema(name: str, request: pytest.FixtureRequest) -> None:
    events = request.getfixturevalue(name).events
    schema = documented()
    for event in events:
        assert event.keys() - {"event", "at"} == schema[event["event"]], event["event"]
    times = [event["at"] for event in events]
    assert times == sorted(times)
    assert times[0] >= 0
    assert {"started", "reference", "candidates", "tried", "round", "chosen", "profiled", "finished"} <= {
        event["event"] for event in events
    }


def test_the_times_of_the_phases_add_up(conv: Report) -> None:
    page = conv.page.read_text("utf-8")
    section = page.split("Where the build’s time went")[1].split("<h2>")[0]
    whole = float(re.findall(r"([\d.]+) s in all", section)[0])
    figures = [float(seconds) for seconds in re.findall(r">([\d.]+) s, \d+ %</div>", section)]
    assert abs(sum(figures) - whole) <= 0.06 * (len(figures) + 1)


def test_an_old_bundle_without_layers_or_log_has_a_page(conv: Report, tmp_path: Path) -> None:
    (tmp_path / "tailorbird").mkdir()
    write_report(tmp_path / "tailorbird" / "report.html", msgspec.structs.replace(conv.manifest, baseline=""))
    page = (tmp_path / "tailorbird" / "report.html").read_text("utf-8")
    assert "Time by layer" not in page
    assert "How to reproduce it" in page
