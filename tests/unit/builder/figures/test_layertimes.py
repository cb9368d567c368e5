"""Layer times and the precision map: figures that add up, names that are only text."""

import re

from tailorbird.builder.figures.layertimes import layer_times
from tailorbird.builder.figures.precisions import family, precision_map
from tailorbird.domain.layers import Layer, LayerBook, LayerTable
from tests.unit.builder.figures import books

EVIL = "<script>alert('x')</script>&\""


def test_both_engines_have_their_kinds_with_counts_and_milliseconds() -> None:
    page = layer_times(books.book(3))
    for text in ("Convolution × 3 INT8", "FullyConnected × 1 BF16", "Conv × 3 FP32", "Relu × 3 FP32",
                 f'<span class="won">chosen</span> {books.CHOSEN}', f"<span>runner-up</span> {books.RUNNER_UP}",
                 "5 ms a run; 5 layers of 6.38 ms together, over 20 runs at opt"):  # fmt: skip
        assert text in page, text


def test_parts_stand_side_by_side_with_their_difference() -> None:
    page = layer_times(books.book(3))
    assert re.search(
        r"conv2 … relu2<td>Convolution INT8<td class=\"n\">3<.*?Conv FP32, Relu FP32<td class=\"n\">4.5", page
    )
    assert '<td class="n">-1.5' in page
    assert "the engine’s own" in page


def test_only_the_slowest_parts_are_unfolded() -> None:
    page = layer_times(books.book(600))
    shown, folded = page.split("<details>")
    assert shown.count("<tr><td") == 15
    assert "587 faster ones, the first 385 of them" in folded
    assert folded.count("<tr><td") == 385
    assert len(page) < 400_000


def test_an_engine_alone_has_no_difference() -> None:
    page = layer_times(LayerBook(books.book().engines[:1]))
    assert "chosen" in page
    assert "runner-up" not in page
    assert "difference" not in page


def test_without_times_there_is_no_section_but_a_map() -> None:
    layers = (Layer("0:Conv", "Conv", "fp32", 0.0, ("conv",)), Layer("1:Relu", "Relu", "fp32", 0.0, ("relu",)))
    book = LayerBook((LayerTable("reference", "opt", 1, 3.0, layers),))
    assert layer_times(book) == ""
    page = precision_map(book)
    assert page.count("<rect") == 2
    assert "2 layers" in page
    assert layer_times(LayerBook()) == precision_map(LayerBook()) == ""


def test_every_layer_is_on_the_strip_of_its_precision_in_order() -> None:
    page = precision_map(books.book(10))
    first = page.split("<h3>")[1]
    strips = dict(re.findall(r'<svg class="strip (\w+)"[^>]*>(.*?)</svg>', first, re.DOTALL))
    assert {name: blocks.count("<rect") for name, blocks in strips.items()} == {"int8": 10, "half": 1, "other": 1}
    places = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', strips["int8"])]
    assert places == sorted(places)
    ends = [float(x) + float(wide) for x, wide in re.findall(r'<rect x="([\d.]+)" y="0" width="([\d.]+)"', first)]
    assert max(ends) <= 1000.05
    assert "10 layers" in first


def test_shares_of_the_precisions_add_up() -> None:
    page = precision_map(books.book(30))
    for engine in page.split("<h3>")[1:]:
        assert abs(sum(map(int, re.findall(r"(\d+) %</div>", engine))) - 100) <= 1


def test_a_thousand_layers_stay_small_and_visible() -> None:
    page = precision_map(books.book(1000))
    assert len(page) < 700_000
    assert min(float(wide) for wide in re.findall(r'width="([\d.]+)" height', page)) >= 1.0


def test_hostile_and_long_names_are_text() -> None:
    for page in (layer_times(books.book(3, EVIL * 20)), precision_map(books.book(3, EVIL * 20))):
        assert "<script" not in page
        assert "&lt;script&gt;" in page
        assert not re.search(r'title="[^"]*alert', page)
        assert max(map(len, re.findall(r"[^<>]+", page))) < 1500


def test_families_of_precisions() -> None:
    assert [family(name) for name in ("int8", "bf16", "fp16", "fp32", "uint8", "sint8", "")] == [
        "int8", "half", "half", "fp32", "other", "other", "other",
    ]  # fmt: skip
