"""Signatures from end to end: the first build of a machine, and an altered or unsigned bundle at every door."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from tailorbird.cli import main
from tailorbird.domain import bundle
from tailorbird.repository.signing import keys
from tailorbird.repository.store import LocalRepository
from tests import bundles
from tests.project import tree

FILES = ["model.onnx", *(f"tailorbird/{name}" for name in ("build.jsonl", "manifest.json", "report.html",
                                                           "signature.json"))]  # fmt: skip
Tailorbird = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A stranger's machine: no key, no cache, no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAILORBIRD", "XDG"))}
    return {**kept, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(tree.ROOT / "src"), "COLUMNS": "200"}


@pytest.fixture
def tailorbird(environment: dict[str, str], tmp_path: Path) -> Tailorbird:
    (tmp_path / "home").mkdir()

    def call(*words: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tailorbird", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
                              timeout=100)  # fmt: skip

    return call


USUAL = re.compile(r'"event":"(instance [a-z ]+|model (loaded|live)|gRPC is (served|off))"')


@contextmanager
def served(environment: dict[str, str], source: Path, *flags: str) -> Iterator[tuple[str, list[str]]]:
    """The real server; yields its address and the lines it wrote before that, but for those of processes and ports."""
    command = [sys.executable, "-m", "tailorbird", "serve", str(source), "--port", "0", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines: list[str] = []
            assert process.stderr
            while not (lines and lines[-1].startswith("serving ")):
                line = process.stderr.readline()
                assert line, lines
                lines.append(line)
            yield lines.pop().split()[-1], [line for line in lines if not USUAL.search(line)]
        finally:
            process.terminate()


def inputs(tmp_path: Path) -> Path:
    np.savez(tmp_path / "inputs.npz", **bundles.INPUTS)
    return tmp_path / "inputs.npz"


@pytest.mark.timeout(300)
def test_a_stranger_s_first_two_commands(tailorbird: Tailorbird, environment: dict[str, str], tmp_path: Path) -> None:
    model = bundles.write_model(tmp_path / "tiny.onnx")
    quick = ("--opt-shapes", "x:2x16", "--threads", "1", "--backend", "onnxruntime", "--precision", "fp32")
    built = tailorbird("build", model, "--repo", "repository", "-o", "tiny.engine", *quick)
    assert built.returncode == 0, built.stderr
    place = tmp_path / "home" / ".config" / "tailorbird" / "keys"
    told = f"made a key to sign bundles with, {place}/default.pem, and trusted it on this machine"
    assert built.stderr.count(told) == 1
    events = (tmp_path / "repository" / "tiny" / "1" / "tailorbird" / "build.jsonl").read_text().splitlines()
    (made,) = [json.loads(line) for line in events if '"key made"' in line]
    assert made["path"] == f"{place}/default.pem"
    with served(environment, tmp_path / "repository") as (url, lines):
        assert lines == []
        assert httpx.get(f"{url}/v2/models/tiny/ready").status_code == 200
        assert made["key"] in httpx.get(url).text
    assert tailorbird("run", "tiny.engine", "--inputs", inputs(tmp_path)).returncode == 0
    again = tailorbird("build", model, "-o", "again.engine", *quick)
    assert again.returncode == 0, again.stderr
    assert "made a key" not in again.stderr


def flipped(version: Path, name: str) -> None:
    data = bytearray((version / name).read_bytes())
    data[len(data) // 2] ^= 1
    (version / name).chmod(0o644)
    (version / name).write_bytes(data)


@pytest.fixture
def ours(environment: dict[str, str]) -> None:
    """The machine trusts what the tests' own key signs."""
    keys.ensured()
    environment["TAILORBIRD_KEYS"] = os.environ["TAILORBIRD_KEYS"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_named_at_every_door(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = LocalRepository(tmp_path / "repository")
    repository.publish(bundles.version(tmp_path / "version"))
    published = repository.root / "tiny" / "1"
    flipped(published, name)
    run = ["run", str(published), "--inputs", str(inputs(tmp_path))]
    for words in (run, [*run, "--allow-unsigned"], ["serve", str(published), "--port", "0"]):
        assert main.run(words) == 1
        assert f"'{name}' of {published}" in capsys.readouterr().err
    assert main.run(["repo", "verify", str(repository.root), "--json"]) == 1
    checked = capsys.readouterr().out
    assert f"'{name}' of " in checked


@pytest.mark.usefixtures("ours")
def test_an_unsigned_model_is_served_on_request_only_and_marked(
    tailorbird: Tailorbird, environment: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    repository = LocalRepository(root)
    for name in ("signed", "unsigned"):
        repository.publish(bundles.version(tmp_path / name), name)
    (root / "unsigned" / "1" / bundle.SIGNATURE).unlink()
    with served(environment, root) as (url, lines):
        (failed,) = map(json.loads, lines)
        assert (failed["event"], failed["model"]) == ("model failed to load", "unsigned")
        assert "is not signed" in failed["reason"]
        assert httpx.get(f"{url}/v2/models/unsigned/ready").status_code == 503
        assert httpx.get(f"{url}/v2/models/signed/ready").status_code == 200
        assert "--allow-unsigned" not in httpx.get(url).text
    with served(environment, root, "--allow-unsigned") as (url, lines):
        (warning,) = map(json.loads, lines)
        assert (warning["level"], warning["model"], warning["version"]) == ("warning", "unsigned", 1)
        assert httpx.get(f"{url}/v2/models/unsigned/ready").status_code == 200
        page = httpx.get(url).text
        assert "Unsigned engines are allowed on this server (--allow-unsigned)" in page
        assert page.count('class="mark warn">unsigned') == 1
        assert "tailorbird_unsigned" in httpx.get(f"{url}/v2").json()["extensions"]
    assert "is not signed" in tailorbird("run", root / "unsigned", "--inputs", inputs(tmp_path)).stderr
    allowed = tailorbird("run", root / "unsigned", "--inputs", inputs(tmp_path), "--allow-unsigned")
    assert allowed.returncode == 0, allowed.stderr


def test_a_team(tailorbird: Tailorbird, environment: dict[str, str], tmp_path: Path) -> None:
    """One signs, another trusts, and no longer."""
    version = bundles.sealed(tmp_path / "version")
    environment["TAILORBIRD_KEYS"] = str(tmp_path / "ci")
    assert tailorbird("key", "new", "ci").returncode == 0
    assert tailorbird("sign", version).returncode == 0
    (tmp_path / "ci.pem").write_text(tailorbird("key", "show", "ci").stdout)
    environment["TAILORBIRD_KEYS"] = str(tmp_path / "server")
    run = ("run", version, "--inputs", inputs(tmp_path))
    assert "is by a key that is not trusted here" in tailorbird(*run).stderr
    assert tailorbird("key", "trust", tmp_path / "ci.pem").returncode == 0
    assert tailorbird(*run).returncode == 0
    assert tailorbird("key", "untrust", "ci").returncode == 0
    assert tailorbird(*run).returncode == 1
    environment["TAILORBIRD_KEY"] = str(tmp_path / "ci" / "ci.pem")  # whoever holds the key trusts it
    assert tailorbird(*run).returncode == 0
    shutil.rmtree(tmp_path / "server")
    assert tailorbird("sign", version).returncode == 0
