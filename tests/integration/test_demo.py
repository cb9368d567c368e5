"""The demo, whole: two trained models from a wheel to text on a page, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tailorbird.demo.models import RAPIDOCR


class Links(HTMLParser):
    """Every address that a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"src", "href"}]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home for temporary files that can be looked at afterwards."""
    (tmp_path / "tmp").mkdir()
    return {**os.environ, "TMPDIR": str(tmp_path / "tmp")}


def demo(*words: str) -> list[str]:
    return [sys.executable, "-m", "tailorbird", "demo", *words]


# A shell that runs tests in the background has them, and so their children, ignore Ctrl-C.
HEEDING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tailorbird.cli.main import run
sys.exit(run(["demo"]))
"""


def servers_of(folder: Path) -> list[str]:
    """Running commands that name a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found += [command] if str(folder) in command else []
    return found


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_it_reads_the_pages_and_leaves_only_the_file_to_look_at(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        demo("--json"), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=800
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["characters_right"] > 0.98
    assert [len(engine["table"]) >= 4 and engine["speedup"] > 0 for engine in told["engines"].values()] == [True, True]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "demo-output").iterdir()] == [
        "demo-output/demo.html"
    ]
    check_page((tmp_path / "demo-output" / "demo.html").read_text("utf-8"))


def check_page(page: str) -> None:
    links = Links()
    links.feed(page)
    assert len(links.found) == 3
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert not re.search(r"https?://|<script|url\(", page)
    assert "Flat white 3.80" in page


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("cached")
def test_an_interrupt_leaves_nothing(number: signal.Signals, tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", HEEDING]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1) as process:
        try:
            while not list((tmp_path / "tmp").glob("*/*-data")):
                assert process.poll() is None
                time.sleep(0.1)
            time.sleep(3)
            process.send_signal(number)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert list((tmp_path / "tmp").iterdir()) == []
    assert servers_of(tmp_path / "tmp") == []
    assert not (tmp_path / "demo-output").exists()


@pytest.fixture
def cached() -> None:
    RAPIDOCR.file()


def test_without_network_and_cache_it_says_what_to_do(tmp_path: Path, environment: dict[str, str]) -> None:
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "TAILORBIRD_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        demo(), cwd=tmp_path, env=environment | nowhere, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1
    assert "error: cannot download the wheel rapidocr 3.10.0: got ERROR: " in done.stderr
    assert f"put the wheel itself into {tmp_path}/cache/wheels/rapidocr-3.10.0" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "demo-output").exists()
