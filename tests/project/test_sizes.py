"""Modules and functions stay small enough to read."""

import ast
import statistics
from pathlib import Path

from tests.project import tree

MODULE_LINES = 400
FUNCTION_LINES = 60
MEDIAN_FUNCTION_LINES = 12
REFERENCE_LINES = 60


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def length(function: tree.Function) -> int:
    """Lines from `def` to the end, without the docstring: saying more must not cost anything."""
    total = function.end_lineno - function.lineno + 1
    doc = function.body[0]
    documented = isinstance(doc, ast.Expr) and isinstance(getattr(doc.value, "value", None), str)
    return total - (doc.end_lineno - doc.lineno + 1 if documented else 0)


def test_there_are_modules() -> None:
    assert len(tree.modules()) > 10


def test_modules_are_short() -> None:
    long = {tree.label(path): lines(path) for path in tree.modules() if lines(path) > MODULE_LINES}
    assert not long, f"over {MODULE_LINES} lines; split by job, not by size"


def test_functions_are_short() -> None:
    long = [
        f"{tree.label(path)}:{function.lineno} {function.name} has {length(function)} lines"
        for path in tree.modules()
        for function in tree.functions(path)
        if length(function) > FUNCTION_LINES
    ]
    assert not long, f"over {FUNCTION_LINES} lines; name the steps and let the function be their list"


def test_most_functions_are_shorter_still() -> None:
    lengths = [length(function) for path in tree.modules() for function in tree.functions(path)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def test_the_smallest_backend_is_small() -> None:
    # If it is not, the interface is too big.
    assert lines(tree.PACKAGE / "backends" / "reference.py") < REFERENCE_LINES


def test_no_module_is_named_for_having_no_job() -> None:
    jobless = {"utils", "util", "helpers", "misc", "common"}
    assert not [tree.label(path) for path in tree.modules() if path.stem in jobless]
