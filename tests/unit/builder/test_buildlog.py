"""The build log: every event the code writes is in the table, with its fields."""

import ast
import re
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.builder import buildlog
from tailorbird.builder.buildlog import BuildLog
from tailorbird.domain.config import Limits

PACKAGE = Path(buildlog.__file__).parent


def documented() -> dict[str, set[str]]:
    """Events and fields of the docstring's table; what stands in brackets or after a colon explains."""
    assert buildlog.__doc__
    table = buildlog.__doc__.split("=\n")[1]
    rows = (re.split(r"\s{2,}", line, maxsplit=1) for line in table.splitlines() if line and not line.startswith("="))
    return {event: set(re.sub(r"\([^)]*\)|:.*", "", fields).replace(" ", "").split(",")) for event, fields in rows}


def written() -> dict[str, set[str]]:
    """Events and fields of every call of ``….write("event", field=…)`` in the package."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            match call:
                case ast.Call(func=ast.Attribute(attr="write"), args=[ast.Constant(value=str(event))], keywords=fields):
                    found.setdefault(event, set()).update(str(field.arg) for field in fields)
    return found


def test_the_table_is_what_the_code_writes() -> None:
    assert documented() == written()


def test_the_code_writes_something() -> None:
    assert {"started", "tried", "finished"} <= set(written())


def test_every_event_is_a_line_and_is_shown(tmp_path: Path) -> None:
    shown: list[dict[str, Any]] = []
    log = BuildLog(tmp_path / "log.jsonl", shown.append)
    log.write("started", limits=Limits(seconds=2.0))
    log.write("finished", seconds=1)
    lines = [msgspec.json.decode(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    assert [line["event"] for line in lines] == ["started", "finished"]
    assert lines[0]["limits"]["seconds"] == 2.0
    assert 0 <= lines[0]["at"] <= lines[1]["at"] <= log.seconds + 0.001
    assert shown[1] == lines[1]
