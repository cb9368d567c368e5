"""The commands that administer a running server, through its door for administration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from tailorbird.cli import render
from tailorbird.cli.adminclient import AdminClient, own_certificate, token_of

app = App(name="admin", help="Administer a running server: tailorbird serve --admin PORT or --admin unix:PATH.")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Door:
    """Where the server's door is, and what opens it."""

    url: Annotated[str, Parameter(help="its door: http://HOST:PORT, https://HOST:PORT or unix:PATH")]
    token_file: Annotated[
        Path | None, Parameter(help="a file with a token; without it $TAILORBIRD_TOKEN, if that is set")
    ] = None
    ca: Annotated[Path | None, Parameter(help="the authorities of an https server, in PEM")] = None
    cert: Annotated[Path | None, Parameter(help="a certificate to show to an https server, in PEM")] = None
    key: Annotated[Path | None, Parameter(help="its private key; without it that is in the certificate's file")] = None

    def client(self) -> AdminClient:
        """Who asks there."""
        return AdminClient(self.url, token_of(self.token_file), self.ca, own=own_certificate(self.cert, self.key))


@app.command
def load(model: str, *, door: Door, json: Json = False) -> None:
    """Load a model, or load it again; returns when it serves.

    Args:
        model: its name in the server's repository.
    """
    door.client().load(model)
    _done({"loaded": model}, f"loaded {model}", json)


@app.command
def unload(model: str, *, door: Door, json: Json = False) -> None:
    """Put a model away, once what it accepted is answered.

    Args:
        model: its name.
    """
    door.client().unload(model)
    _done({"unloaded": model}, f"unloaded {model}", json)


@app.command
def index(*, door: Door, json: Json = False) -> None:
    """List every version that the server knows, and its state."""
    rows = door.client().index()
    if json:
        render.write_json(rows)
    else:
        _table(rows, ("name", "version", "state", "reason"))


@app.command
def rollouts(*, door: Door, json: Json = False) -> None:
    """Say who answers for each model, and how canaries and shadows do."""
    rows = door.client().rollouts()
    if json:
        render.write_json(rows)
    else:
        _table([_rollout(row) for row in rows], ("model", "live", "canary", "shadow"))


def _rollout(row: dict[str, Any]) -> dict[str, Any]:
    canary, shadow = row.get("canary"), row.get("shadow")
    return {
        "model": row["model"],
        "live": row["live"],
        "canary": f"{canary['version']} {canary.get('state', '')}" if canary else "",
        "shadow": f"{shadow['version']}" if shadow else "",
    }


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    render.out.print(table)


def _done(record: dict[str, str], words: str, json: bool) -> None:
    if json:
        render.write_json(record)
    else:
        render.out.print(words, markup=False, soft_wrap=True)
