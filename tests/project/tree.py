"""The project's own files, as these tests read them."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tailorbird"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    """Every module of the package, in a steady order."""
    return sorted(PACKAGE.rglob("*.py"))


def label(path: Path) -> str:
    """How messages and docs/architecture.md name a module: its path inside the package."""
    return path.relative_to(PACKAGE).as_posix()


def dotted(path: Path) -> str:
    """The name by which a module is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(path: Path) -> Iterator[Function]:
    """Every function of a module, methods and inner ones included."""
    return (node for node in ast.walk(parse(path)) if isinstance(node, Function))


def is_marker(path: Path) -> bool:
    """Whether a package's __init__.py holds a docstring at most, so that nobody need be told of it."""
    return path.name == "__init__.py" and len(parse(path).body) <= 1


def documents() -> list[Path]:
    """Every Markdown file that people read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def code_in(markdown: str) -> str:
    """What a document sets as code: fenced blocks, indented blocks and code spans, one a line."""
    fences = r"^ *```[^\n]*\n(.*?)^ *```"
    blocks = re.findall(fences, markdown, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(fences, "", markdown, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4,}(\S.*)$", prose, flags=re.MULTILINE)
    return "\n".join([*blocks, *indented, *re.findall(r"`([^`\n]+)`", prose)])


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, which has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
