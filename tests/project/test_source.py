"""What every source file has, and what none may have."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.project import tree

CARRIES_CODE = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def public(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """The public classes and functions under a module or class, named from the module's top."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | tree.Function) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


def imports(path: Path) -> set[str]:
    """The top-level packages that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree.parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_every_module_says_what_it_is_for() -> None:
    assert not [tree.label(path) for path in tree.modules() if not ast.get_docstring(tree.parse(path))]


def test_every_public_name_has_a_docstring() -> None:
    bare = [
        f"{tree.label(path)}:{node.lineno} {name}"
        for path in tree.modules()
        for name, node in public(tree.parse(path), "")
        if not ast.get_docstring(node) and not is_overload_or_setter(node)
    ]
    assert not bare


def is_overload_or_setter(node: ast.AST) -> bool:
    """Whether a function repeats a name that is documented elsewhere."""
    marks = (ast.unparse(mark) for mark in getattr(node, "decorator_list", ()))
    return any(mark in {"overload", "typing.overload", "override"} or mark.endswith(".setter") for mark in marks)


def test_nothing_is_marked_as_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        f"{tree.label(path)}:{number} {line.strip()}"
        for path in tree.modules()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if marks.search(line)
    ]
    assert not found, "finish it, or file an issue"


def test_nothing_loads_a_format_that_carries_code() -> None:
    found = {tree.label(path): imports(path) & CARRIES_CODE for path in tree.modules()}
    assert not {name: packages for name, packages in found.items() if packages}
