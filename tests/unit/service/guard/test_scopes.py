"""The guide's table of doors is the table that the guard reads."""

import re

from tailorbird.service.guard.scopes import OFFERED, SCOPES, Door
from tailorbird.service.routes import Operation
from tests.project import tree

GUIDE = tree.ROOT / "docs" / "guides" / "security.md"


def rows():
    """From the guide: operation, offered at the three doors, scopes."""
    text = GUIDE.read_text(encoding="utf-8").split("## Doors")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")][2:]
    for names, *doors, scopes in lines:
        for name in names.split(","):
            told = [door.strip(" *") == "yes" for door in doors]
            yield Operation(name.strip()), *told, {scope.strip() for scope in scopes.split(",")}


def test_the_guide_tells_of_every_operation():
    assert sorted(row[0] for row in rows()) == sorted(Operation)


def test_the_guide_tells_the_truth():
    doors = (Door.PUBLIC, Door.PUBLIC_WITH_ADMIN, Door.ADMIN)
    for operation, *told, scopes in rows():
        assert told == [operation in OFFERED[door] for door in doors], operation
        assert scopes == SCOPES[operation], operation


def test_the_tests_that_the_guide_names_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)`", GUIDE.read_text(encoding="utf-8"))
    assert named
    assert not [name for name in named if not (tree.ROOT / name).exists()]
