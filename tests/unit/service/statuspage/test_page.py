"""The status page: what it says, that hostile names stay text, and that people can read it."""

import re
import shutil

import httpx
import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.repository.signing.trust import Signer
from tailorbird.service.app import running_server
from tailorbird.service.options import ServerOptions
from tailorbird.service.statuspage.page import BANNER, status_page
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.descriptions import EXTENSIONS, ModelStatus, ServerStatus
from tailorbird.serving.hub import FailedModel, Hub, IdleModel, State
from tailorbird.serving.pace import Pace, spread_of
from tailorbird.serving.rollout.record import Change, What
from tailorbird.serving.rollout.status import (
    CanaryStatus,
    OutputAgreement,
    RolloutStatus,
    ShadowStatus,
    Side,
    Stop,
)
from tailorbird.serving.starting import HubOptions
from tailorbird.serving.statistics import Failure, Trouble
from tests.protocol.engines import echo_model

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
UNSIGNED = ServerOptions(port=0, grpc_port=0, models=HubOptions(allow_unsigned=True))
KEY = "ed25519:" + "0123456789abcdef" * 4
HOSTILE = "</td><script>alert(1)</script>\"'&" + "x" * 200


def model(name="resnet", **fields):
    plain = {"version": 3, "ready": True, "engine": "openvino int8 static 4t", "target": "openvino:cpu:avx512"}
    return ModelStatus(name=name, **plain | {"signer": Signer(KEY, "ci")} | fields)


def page(*models, allow_unsigned=False, rollouts=(), changes=()):
    return status_page(ServerStatus("1.2.3", models, allow_unsigned, rollouts, changes)).decode()


def text(html):
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)).split())


def test_what_it_says():
    said = text(page(model(), model("late", version=1, ready=False, engine="", target="", signer=None)))
    assert "version 1.2.3, 1 of 2 models ready" in said
    assert (
        "resnet ready version 3 openvino int8 static 4t openvino:cpu:avx512 signed by ci ed25519:0123456789ab… "
        "no answer yet requests 0 failed 0 p50 – p99 – in the queue 0 rows a run –"
    ) in said
    assert said.endswith("late failed to load version 1")
    assert "nsigned" not in said


def test_unsigned_engines_are_told_of_on_every_page():
    unsigned = page(model(), model("wild", signer=None), allow_unsigned=True)
    assert text(unsigned).count(BANNER) == 1
    assert re.findall(r"<h2>(\w+)</h2>(?:(?!</section>).)*>unsigned</span>", unsigned) == ["wild"]
    assert BANNER in page(allow_unsigned=True)  # also where no model is


def test_nothing_is_served():
    assert text(page()).endswith("version 1.2.3, 0 of 0 models ready no model")


def test_how_it_is_doing():
    troubles = (Trouble(1e9 + 1, Failure.REJECTED, "too many wait"), Trouble(1e9, Failure.OTHER, HOSTILE))
    pace = Pace(answered=1200, failed=3, waiting=7, crashes=2, p50_ms=0.4123, p99_ms=1234.5, troubles=troubles,
                spread=spread_of((0.001, 0.002, 0.004)), rows_a_run=2.5, most_rows=8, alive=1, instances=2)  # fmt: skip
    html = page(
        model(pace=pace, memory=300 << 20),
        model("down", ready=False, pace=Pace(troubles=(Trouble(1e9 + 2, Failure.BACKEND, "crashed"),))),
        changes=(Change(at=1e9 + 3, what=What.LIVE, model="resnet", version=3, seconds=1.25, reason="secret"),
                 Change(at=1e9, what=What.BLIND)),
    )  # fmt: skip
    said = text(html)
    assert (
        "requests 1\u202f200 failed 3 p50 0.412 ms p99 1234 ms in the queue 7 rows a run 2.5 of 8 "
        "instances 1 of 2 memory 300 MiB crashes 2"
    ).replace("\u202f", " ") in said
    assert "down down, starting again version 3 openvino" in said
    assert "Recent errors 01:46:42 UTC down: crashed 01:46:41 UTC resnet: too many wait 01:46:40 UTC" in said
    assert "Recent changes 01:46:43 UTC resnet/3: live in 1.2 s 01:46:40 UTC repository cannot be read" in said
    assert "secret" not in said
    assert "<script" not in html
    assert '<meta http-equiv="refresh" content="5">' in html


def test_the_spread_has_every_answer_and_its_ends():
    spread = spread_of(tuple(np.geomspace(1e-3, 1e-1, 500)))
    assert sum(spread.counts) == 500
    assert (spread.low_ms, spread.high_ms) == (pytest.approx(1, rel=0.05), pytest.approx(100, rel=0.05))
    narrow = spread_of((0.0,) * 3)
    assert narrow.high_ms / narrow.low_ms > 4  # steady answers are one bar in the middle, not noise enlarged
    assert [place for place, count in enumerate(narrow.counts) if count] == [len(narrow.counts) // 2]
    assert spread_of(()) is None


def canary(stop=None, **fields):
    sides = {"canary": Side(4, 120, 6, 2.5, 31.0), "live": Side(3, 1080, 0, 1.2, 3.4)}
    plain = {
        "version": 4,
        "weight": 0.1,
        "state": "running",
        "evidence": 3.25,
        "stops_at": 100.0,
        "verdict": "no worse",
    }
    return CanaryStatus(**plain | sides | {"stop": stop} | fields)


def shadow(**fields):
    logits = OutputAgreement(name="logits", compared=90, max_abs_error=0.0123, snr_db=41.2, worst_snr_db=33.0,
                             cosine=0.999871, top1=0.995)  # fmt: skip
    outputs = (logits, OutputAgreement(name="ids", compared=90, equal=1.0))
    plain = {"version": 5, "share": 1.0, "compared": 90, "errors": 1, "dropped": 2, "waiting": 0, "latency_ratio": 0.84}
    return ShadowStatus(**plain | {"outputs": outputs} | fields)


def test_who_answers_beside_the_live_version():
    versions = [model(version=number, role=role) for number, role in
                ((2, "kept for a rollback"), (3, "live"), (4, "canary"), (5, "shadow"))]  # fmt: skip
    said = text(page(*versions, rollouts=(RolloutStatus("resnet", 3, canary(), shadow()),)))
    assert "1 of 1 models ready" in said
    order = [said.index(f"version {number} {role}") for number, role in
             ((3, "live"), (5, "shadow"), (4, "canary"), (2, "kept for a rollback"))]  # fmt: skip
    assert order == sorted(order)
    assert (
        "Canary: version 4 running 10 % of the requests; no worse live 3 canary 4 requests 1 080 120 errors 0 6 "
        "p50 1.2 ms 2.5 ms p99 3.4 ms 31 ms evidence against it 3.25, stopped at 100"
    ) in said
    assert (
        "Shadow: version 5 Copies of 100 % of the requests: 90 compared, 1 failed, 2 dropped, 0.84 times the live "
        "version's latency. output SNR worst SNR largest error cosine same winner equal "
        "logits 41.2 dB 33 dB 0.0123 0.99987 99.5 % – ids – – – – – 100 %"
    ) in said


def test_a_stopped_canary_says_why():
    stop = Stop(at=1e9, model="resnet", reason="errors", words="5 % of its requests fail", evidence=140.0,
                canary=Side(4), live=Side(3))  # fmt: skip
    status = canary(stop, state="stopped", weight=0.0, verdict="stopped: 5 % of its requests fail <b>")
    said = page(model(role="live"), rollouts=(RolloutStatus("resnet", 3, status),))
    assert "0 % of the requests, stopped at 01:46:40 UTC; stopped: 5 % of its requests fail &lt;b&gt;" in text(said)
    assert '<rect class="live" width="100" height="4"/>' in said


def test_a_model_whose_newest_version_failed_is_ready_by_the_one_before():
    said = text(page(model(role="live"), model(version=4, ready=False, engine="", signer=None)))
    assert "1 of 1 models ready resnet ready version 3 live" in said
    assert said.endswith("version 4 failed to load")
    idle = IdleModel("resnet", 3, State.UNAVAILABLE, "evicted: memory budget")
    assert "0 of 1 models ready resnet evicted: memory budget" in text(page(model(ready=False, engine="", idle=idle)))


def test_the_numbers_are_the_models_own():
    hub = Hub([echo_model("echo", DType.FP32)])
    with running_server(hub) as url:
        body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [7]}]}
        for _ in range(3):
            httpx.post(f"{url}/v2/models/echo/infer", json=body)
        httpx.post(f"{url}/v2/models/echo/infer", json={"inputs": []})
        said = text(httpx.get(url).text)
    assert re.search(
        r"requests 3 failed 1 p50 [\d.]+ ms p99 [\d.]+ ms in the queue 0 rows a run 1 instances 1 "
        r"Recent errors \d\d:\d\d:\d\d UTC echo: missing input &#x27;x",
        said,
    )


@pytest.mark.parametrize("field", ["name", "engine", "target"])
def test_hostile_names_stay_text(field):
    plain, hostile = page(model()), page(model(**{field: HOSTILE}))
    assert "&lt;/td&gt;&lt;script&gt;" in hostile
    assert re.findall(r"<[^>]*>", hostile) == re.findall(r"<[^>]*>", plain)


def test_hostile_signers_stay_text():
    hostile = page(model(signer=Signer(HOSTILE, HOSTILE)))
    assert "<script" not in hostile
    assert "&quot;" in hostile
    assert page(model(engine="\ud800")).count("ready")  # no half of a character stops the page


def test_the_server_answers_with_it():
    hub = Hub([echo_model("echo", DType.FP32)], [FailedModel("late", 1, "secret /etc/path")])
    with running_server(hub, UNSIGNED) as url:
        answer = httpx.get(url)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert (answer.headers["referrer-policy"], answer.headers["x-frame-options"]) == ("no-referrer", "DENY")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert BANNER in answer.text
        assert "secret" not in answer.text
        assert httpx.get(f"{url}/v2").json()["extensions"] == [*EXTENSIONS, "tailorbird_unsigned"]
        assert httpx.post(url).status_code == 405


def test_the_log_warns_of_each_unsigned_model(capfd):
    hub = Hub([echo_model("echo", DType.FP32)])
    with running_server(hub, UNSIGNED):
        pass
    lines = [line for line in capfd.readouterr().err.splitlines() if "trusted signature" in line]
    assert len(lines) == 1
    assert '"level":"warning","model":"echo","version":1,"allowed_by":"--allow-unsigned"' in lines[0]


def test_without_the_flag_nothing_is_said(capfd):
    hub = Hub([echo_model("echo", DType.FP32)])
    with running_server(hub) as url:
        assert BANNER not in httpx.get(url).text
    assert "signature" not in capfd.readouterr().err
    hub.close()


def test_models_come_in_order():
    hub = Hub([echo_model("b", DType.FP32)], [FailedModel("a", 2, ""), FailedModel("c", 1, "")])
    assert [one.name for one in DataPlane(hub).status().models] == ["a", "b", "c"]
    hub.close()


CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 :
    ((v + .055) / 1.055) ** 2.4); return .2126 * x + .7152 * y + .0722 * z };
  const behind = node => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node)
    .backgroundColor); if (c.length < 4 || c[3] > 0) return c } return [255, 255, 255] };
  const worst = []; const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) { const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || node.closest('svg')) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((p, q) => q - p);
    if ((a + .05) / (b + .05) < 4.5) worst.push([node.textContent, (a + .05) / (b + .05)]) }
  return worst }"""


EMPTY = """() => [...document.querySelectorAll('section')].filter(one => {
  const head = one.querySelector('h2'); return !head || one.clientHeight < head.clientHeight + 20 ||
    one.textContent.trim() === head.textContent.trim() }).map(one => one.textContent)"""


def crowded_page():
    """Everything that a page can hold, at its longest."""
    models = [model(), model("wild-" + "x" * 123, signer=None), model(HOSTILE, engine=HOSTILE),
              model("late", ready=False, engine="", signer=None),
              model("busy", role="live", memory=10**12,
                    pace=Pace(answered=10**9, failed=10**6, waiting=256, crashes=3, p50_ms=12345.6, p99_ms=1e6,
                              spread=spread_of(tuple(np.geomspace(1e-5, 1e3, 512))), rows_a_run=31.9, most_rows=256,
                              alive=1, instances=64, troubles=(Trouble(1e9, Failure.OTHER, HOSTILE),))),
              model("busy", version=4, role="canary"), model("busy", version=5, role="shadow"),
              model("asleep", ready=False, engine="",
                    idle=IdleModel("asleep", 1, State.LOADING, "is being loaded"))]  # fmt: skip
    beside = shadow(outputs=tuple(OutputAgreement(name=f"{HOSTILE}{number}", compared=1, snr_db=-123.456,
                                                  max_abs_error=1.2345e-30, cosine=-1.0, top1=1.0, equal=0.33333)
                                  for number in range(20)))  # fmt: skip
    rollouts = (RolloutStatus("busy", 3, canary(verdict=HOSTILE), beside),)
    changes = (Change(at=1e9, what=What.EVICTED, model=HOSTILE, version=10**9),)
    return page(*models, allow_unsigned=True, rollouts=rollouts, changes=changes)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is found")
def test_people_can_read_it(tmp_path):
    """In both themes, on a screen and on a phone: no overflow, no faint text, no script, no request."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    (tmp_path / "page.html").write_text(crowded_page())
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            for width in (1280, 390):
                tab = browser.new_page(color_scheme=theme, viewport={"width": width, "height": 800})
                said, asked = [], []
                tab.on("console", lambda message, said=said: said.append(message.text))
                tab.on("dialog", lambda dialog, said=said: said.append(dialog.message))
                tab.on("request", lambda request, asked=asked: asked.append(request.url))
                tab.goto(f"file://{tmp_path}/page.html")
                tab.screenshot(path=tmp_path / f"{theme}-{width}.png")
                assert said == []
                assert len(asked) == 1
                assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), (theme, width)
                assert tab.evaluate(CONTRAST) == []
                assert tab.evaluate(EMPTY) == []
                assert tab.evaluate(
                    "[...document.querySelectorAll('figure svg')].map(one => one.clientHeight > 40)"
                ) == [True]
                assert tab.get_by_text(BANNER).is_visible()
                assert tab.get_by_text("unsigned", exact=True).is_visible()
                tab.close()
        browser.close()
