"""The commands about tokens: who may ask a server, and for what."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from tailorbird.cli import render
from tailorbird.domain.errors import UsageError, nearest

if TYPE_CHECKING:
    from tailorbird.service.guard.tokens import TokenRecord

app = App(name="token", help="Tokens: who may ask a server, and for what. The file holds digests, never a token.")

FILE = "TAILORBIRD_TOKENS"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 _.@+/-]{0,63}")
_AGE = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]
File = Annotated[Path | None, Parameter(help=f"the tokens' file; ${FILE}, or tokens.json beside the keys, without it")]
ScopeName = Literal["infer", "read", "admin"]


@app.command
def create(
    name: str,
    *,
    scope: Annotated[tuple[ScopeName, ...], Parameter(negative="")] = ("infer",),
    models: Annotated[tuple[str, ...], Parameter(negative="")] = ("*",),
    expires: str = "",
    file: File = None,
    json: Json = False,
) -> None:
    """Make a token, and print it: this once, as nothing can show it again.

    Args:
        name: who it is for; stands in the server's log.
        scope: infer, read (metadata, statistics, metrics, the status page) or admin; may be given again.
        models: only models with a name like this; may be given again.
        expires: after a time like 12h, 90d or 4w; never without it.
    """
    from tailorbird.service.guard import tokenfile
    from tailorbird.service.guard.scopes import Scope
    from tailorbird.service.guard.tokens import issue

    if not _NAME.fullmatch(name):
        raise UsageError("no name for a token", got=repr(name), expected="1 to 64 letters, digits, blanks or _.@+/-")
    place, now = _place(file), datetime.now(UTC)
    until = _end(now, expires) if expires else None
    with tokenfile.changing(place) as known:
        if any(one.name == name and one.state(now) == "valid" for one in known.values()):
            raise UsageError(f"there is a token '{name}'", hint=f"another name, or: tailorbird token revoke {name}")
        token, record = issue(name, frozenset(map(Scope, scope)), models, until)
        known[record.id] = record
    if json:
        render.write_json({"token": token, **_row(record, now), "file": str(place)})
        return
    render.out.print(token, markup=False, highlight=False, soft_wrap=True)
    render.err.print(f"{_words(record, now)}; written to {place}; it cannot be shown again",
                     markup=False, highlight=False, soft_wrap=True)  # fmt: skip


@app.command(name="list")
def list_tokens(*, file: File = None, json: Json = False) -> None:
    """List the tokens of a file: names, scopes, models, states."""
    from tailorbird.service.guard import tokenfile

    now = datetime.now(UTC)
    rows = [_row(one, now) for one in tokenfile.read(_place(file)).tokens]
    if json:
        render.write_json(rows)
    elif rows:
        render.out.print(_table(rows))
    else:
        _say("no tokens; make one: tailorbird token create NAME")


@app.command
def revoke(name: str, *, file: File = None, json: Json = False) -> None:
    """Let a token in no longer; a running server follows within a second or two.

    Args:
        name: its name or its id.
    """
    from msgspec.structs import replace

    from tailorbird.service.guard import tokenfile

    place, now = _place(file), datetime.now(UTC)
    tokenfile.read(place)  # a file that is not there is not made
    with tokenfile.changing(place) as known:
        found = [one for one in known.values() if name in (one.name, one.id) and one.revoked is None]
        if not found:
            close = nearest(name, tuple(one.name for one in known.values() if one.revoked is None))
            raise UsageError(f"no token '{name}'", hint=f"did you mean '{close}'?" if close else None)
        known.update({one.id: replace(one, revoked=now.replace(microsecond=0)) for one in found})
    if json:
        render.write_json([_row(known[one.id], now) for one in found])
    else:
        _say(f"revoked {', '.join(f'{one.name} ({one.id})' for one in found)}")


def _place(file: Path | None) -> Path:
    from tailorbird.repository.signing.keyfiles import folder

    named = os.environ.get(FILE)
    return file or (Path(named) if named else folder().parent / "tokens.json")


def _end(now: datetime, text: str) -> datetime:
    found = _AGE.fullmatch(text)
    if found is None:
        raise UsageError("--expires is no time", got=repr(text), expected="a number and s, m, h, d or w, as 90d")
    try:
        return now.replace(microsecond=0) + timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    except OverflowError:
        raise UsageError("--expires is too long", got=repr(text), expected="an end before the year 10000") from None


def _row(record: TokenRecord, now: datetime) -> dict[str, Any]:
    return {
        "name": record.name,
        "id": record.id,
        "scopes": sorted(record.scopes),
        "models": list(record.models),
        "created": record.created.isoformat(),
        "expires": record.expires.isoformat() if record.expires else None,
        "state": record.state(now),
    }


def _words(record: TokenRecord, now: datetime) -> str:
    row = _row(record, now)
    models = "every model" if record.models == ("*",) else f"models {', '.join(record.models)}"
    return (
        f"token {record.name} ({record.id}): {', '.join(row['scopes'])}; {models}; expires {row['expires'] or 'never'}"
    )


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "id", "scopes", "models", "expires", "state"):
        table.add_column(column, overflow="fold")
    for row in rows:
        state = row["state"] if row["state"] == "valid" else f"[red]{row['state']}[/]"
        table.add_row(row["name"], row["id"], ", ".join(row["scopes"]), ", ".join(row["models"]),
                      row["expires"] or "never", state)  # fmt: skip
    return table


def _say(text: str) -> None:
    render.out.print(text, markup=False, soft_wrap=True)
