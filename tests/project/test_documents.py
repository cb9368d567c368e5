"""What the documents say exists does exist, and what exists is in them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tailorbird
from tests.project import tree

README = tree.ROOT / "README.md"
ARCHITECTURE = tree.ROOT / "docs" / "architecture.md"
MAKEFILE = tree.ROOT / "Makefile"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE.read_text(encoding="utf-8"), flags=re.MULTILINE))


def modules_named_in(text: str) -> list[str]:
    """The modules that code spans name: `build/gate.py`, with or without the way to the package."""
    spans = re.findall(r"`((?:[\w.-]+/)*\w+\.py)`", text)
    ours = [re.sub(r"^(src/)?tailorbird/", "", span) for span in spans]
    return [name for name in ours if not name.startswith(("bench/", "tests/"))]


def test_the_architecture_names_every_module() -> None:
    named = modules_named_in(ARCHITECTURE.read_text(encoding="utf-8"))
    missing = {tree.label(path) for path in tree.modules() if not tree.is_marker(path)} - set(named)
    assert not missing, "give each a line in docs/architecture.md, as `folder/module.py`"


def test_the_architecture_names_nothing_else() -> None:
    named = modules_named_in(ARCHITECTURE.read_text(encoding="utf-8"))
    assert not set(named) - {tree.label(path) for path in tree.modules()}


@pytest.mark.parametrize("path", tree.documents(), ids=lambda path: path.name)
def test_make_targets_in_documents_exist(path: Path) -> None:
    named = re.findall(r"\bmake ([a-z][a-z-]*[a-z])\b", tree.code_in(path.read_text(encoding="utf-8")))
    assert not set(named) - make_targets()


def test_the_readme_gives_the_two_commands() -> None:
    code = tree.code_in(README.read_text(encoding="utf-8"))
    assert re.search(r"\bmake demo\b", code)
    assert re.search(r"\bmake test\b", code)


@pytest.fixture(scope="module")
def command_help() -> str:
    command = [sys.executable, "-m", "tailorbird", "--help"]
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    return done.stdout


def test_commands_in_the_readme_exist(command_help: str) -> None:
    code = tree.code_in(README.read_text(encoding="utf-8"))
    named = set(re.findall(r"(?:^|[$;&|] *|bin/)tailorbird +([a-z]+)", code, flags=re.MULTILINE))
    assert named, "the README shows no command"
    listed = {name for name in named if re.search(rf"^\W*{name}\b", command_help, flags=re.MULTILINE)}
    assert named - listed == set()


@pytest.mark.parametrize("path", tree.documents(), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert not [target for target in targets if target and not (path.parent / target).exists()]


def test_the_changelog_has_this_version() -> None:
    text = (tree.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{tailorbird.__version__}]" in text


def test_every_make_target_is_explained() -> None:
    text = MAKEFILE.read_text(encoding="utf-8")
    assert make_targets() == set(re.findall(r"^([a-z-]+):.*?## \w", text, flags=re.MULTILINE))


def test_ci_runs_the_readmes_test_command() -> None:
    script = tree.ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^make test$", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
