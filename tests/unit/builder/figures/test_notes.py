"""Notes of a build: what lowering did, and what it left in FP32."""

from tailorbird.builder.figures.notes import notes_html
from tests.unit.builder.figures import builds

CAST = {"event": "lowered", "at": 3.0, "precision": "fp16", "method": "", "nodes": 83, "kept": [], "snr_db": 55.1,
        "notes": ["mask 'm': -3.4e+38 became -8192"], "cached": False, "seconds": 3.2}  # fmt: skip


def test_what_stays_in_fp32_is_counted_and_the_first_is_named() -> None:
    kept = [{"node": "mean <1>", "why": "adds up to 7e+04; FP16 ends at 65504"}, {"node": "b", "why": "cancels"}]
    page = notes_html(builds.manifest().candidate, [CAST, CAST | {"kept": kept}])
    assert page.count("<li>FP16: mask &#x27;m&#x27;: -3.4e+38 became -8192</li>") == 2
    assert page.count("stay in FP32") == 1
    told = "FP16: 2 of its nodes stay in FP32, the first is mean &lt;1&gt;: adds up to 7e+04; FP16 ends at 65504"
    assert told in page
