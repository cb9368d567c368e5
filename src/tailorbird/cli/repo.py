"""The commands about the repository: versions, and the channels that point at them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from tailorbird.cli import render

if TYPE_CHECKING:
    from tailorbird.repository.base import Repository
    from tailorbird.repository.channels import Entry, Live

app = App(name="repo", help="The repository, a folder or s3://bucket/prefix: versions of engines, and channels.")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]
Unsigned = Annotated[
    bool, Parameter(negative="", help="Local experiments: also take what has no signature by a trusted key.")
]
Channel = Annotated[str, Parameter(help="The channel.")]
Reason = Annotated[str, Parameter(help="Why, for the log: one line.")]


@app.command(name="list")
def list_models(repository: str, *, json: Json = False) -> None:
    """List models, their versions, and the channels that point at them."""
    store = _open(repository)
    models = {model: store.versions(model) for model in store.models()}
    retired = {model: store.retired(model) for model in models}
    channels = store.channels()
    if json:
        found = {model: {"versions": versions, "retired": retired[model],
                         "channels": {one.channel: one.version for one in channels if one.model == model}}
                 for model, versions in models.items()}  # fmt: skip
        render.write_json(found)
        return
    rows = ((model, _numbers(versions), _numbers(retired[model]), _pointers(channels, model))
            for model, versions in models.items())  # fmt: skip
    _print(("model", "versions", "of them retired", "channels"), rows)


@app.command
def show(repository: str, model: str, *, version: int | None = None, json: Json = False) -> None:
    """Show one version: engine, signature, gate, latency table, every candidate.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: the model.
        version: the latest that is not retired without it.
    """
    manifest = _open(repository).manifest(model, version)
    if json:
        render.write_json(manifest)
        return
    for line in render.manifest_lines(manifest):
        render.out.print(line, markup=False, soft_wrap=True)
    render.out.print()
    render.out.print(render.latency_table(manifest))
    render.out.print()
    render.out.print(render.outcomes_table(manifest.outcomes, manifest.goal))


@app.command
def publish(
    repository: str,
    bundle: Path,
    *,
    name: str | None = None,
    again: Annotated[bool, Parameter(negative="")] = False,
    allow_unsigned: Unsigned = False,
    json: Json = False,
) -> None:
    """Publish a .engine file as a model's next version.

    Args:
        repository: a folder, or s3://bucket/prefix.
        bundle: a .engine file or a version's folder.
        name: the model's name; the bundle's own without it.
        again: add it also where it is the latest version already.
    """
    from tailorbird.domain.bundlefile import manifest_of

    store = _open(repository, allow_unsigned)
    version = store.publish(bundle, name, again=again)
    model = name or manifest_of(bundle).model
    place = store.location(model, version)
    if json:
        render.write_json({"model": model, "version": version, "version_dir": place})
    else:
        _say(f"published {place}")


@app.command
def promote(
    repository: str,
    model: str,
    *,
    version: int | None = None,
    channel: Channel = "production",
    reason: Reason = "",
    allow_unsigned: Unsigned = False,
    json: Json = False,
) -> None:
    """Let a channel point at a version, once that version is verified.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: the model.
        version: the latest that is not retired without it.
    """
    store = _open(repository, allow_unsigned)
    chosen = store.latest(model) if version is None else version
    _told(store.promote(model, chosen, channel, reason), json)


@app.command
def rollback(
    repository: str,
    model: str,
    *,
    channel: Channel = "production",
    reason: Reason = "",
    allow_unsigned: Unsigned = False,
    json: Json = False,
) -> None:
    """Let a channel point at what was live before; twice in a row goes back twice.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: the model.
    """
    _told(_open(repository, allow_unsigned).rollback(model, channel, reason), json)


@app.command
def retire(repository: str, model: str, version: int, *, reason: Reason = "", json: Json = False) -> None:
    """Take a version out of service; it stays listed, and can be restored until gc removes it.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: the model.
        version: the version.
    """
    _told(_open(repository).retire(model, version, reason), json)


@app.command
def restore(repository: str, model: str, version: int, *, reason: Reason = "", json: Json = False) -> None:
    """Take back a retirement.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: the model.
        version: the version.
    """
    _told(_open(repository).restore(model, version, reason), json)


@app.command
def verify(
    repository: str,
    model: str | None = None,
    *,
    version: int | None = None,
    allow_unsigned: Unsigned = False,
    json: Json = False,
) -> int:
    """Check every file of a version, a model or the whole repository, and who signed it.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: one model; all of them without it.
        version: one version of the model.
    """
    checks = _open(repository, allow_unsigned).verify(model, version)
    if json:
        render.write_json(checks)
    else:
        render.out.print(render.checks_table(checks))
    broken = [check for check in checks if not check.ok]
    return _broken(len(broken), len(checks)) if broken else 0


@app.command
def gc(
    repository: str,
    *,
    keep: int = 0,
    older_than: str = "7d",
    unfinished: str = "1d",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Remove retired versions that nothing needs, and what killed processes left.

    Args:
        repository: a folder, or s3://bucket/prefix.
        keep: so many of each model's newest retired versions stay.
        older_than: versions retired, or live, within this time stay: 90s, 30m, 12h, 7d, or 0.
        unfinished: unfinished uploads and temporary files younger than this stay.
        dry_run: only list what would go.
    """
    from tailorbird.domain.errors import UsageError
    from tailorbird.repository.rules import Keep
    from tailorbird.repository.times import parse_age

    if keep < 0:
        raise UsageError("not a count of versions to keep", got=keep, expected="0 or more")
    found = _open(repository).gc(Keep(parse_age(older_than), keep, parse_age(unfinished)), dry_run=dry_run)
    if json:
        render.write_json(found)
        return
    _print(("kind", "place", "bytes"), ((one.kind, one.place, f"{one.bytes:,}") for one in found))
    total = sum(one.bytes for one in found)
    things = f"{len(found)} thing{'s' * (len(found) != 1)}"
    _say(f"{'would remove' if dry_run else 'removed'} {things}, {total:,} bytes")


@app.command
def log(
    repository: str, model: str | None = None, *, at: Annotated[str, Parameter(name="--at")] = "", json: Json = False
) -> None:
    """Show who let which channel point where, when and why; or what was live at a time.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: one model; all of them without it.
        at: a time, as ISO 8601 (2026-11-22T21:02:21+01:00; UTC without a zone), or a date, for its first moment.
    """
    from tailorbird.repository.times import parse_until

    store = _open(repository)
    if at:
        _show_live(store.live_at(parse_until(at), model), json)
        return
    entries = store.log(model)
    if json:
        render.write_json(entries)
    else:
        columns = ("number", "time (UTC)", "who", "what", "model", "version", "channel", "reason")
        _print(columns, map(_entry_row, entries))


@app.command
def channels(repository: str, model: str | None = None, *, json: Json = False) -> None:
    """Show what every channel points at, and since when.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: one model; all of them without it.
    """
    _show_live(_open(repository).channels(model), json)


def _open(place: str, allow_unsigned: bool = False) -> Repository:
    from tailorbird.repository.opening import open_repository

    return open_repository(place, allow_unsigned=allow_unsigned)


def _broken(count: int, of: int) -> int:
    """Said on stderr alone, so that stdout holds one JSON document; returns the exit code."""
    from tailorbird.domain.errors import BundleError

    error = BundleError(f"{count} of {of} versions are not what their manifests say, or not signed by a trusted key",
                        hint="restore each from its source, or retire it: tailorbird repo retire")  # fmt: skip
    print(f"error: {error.message}", file=sys.stderr)
    return error.exit_code


def _told(entry: Entry, json: bool) -> None:
    if json:
        render.write_json(entry)
    elif entry.channel:
        _say(f"{entry.channel} of {entry.model} points at version {entry.version}")
    else:
        _say(f"{entry.what}d version {entry.version} of {entry.model}")


def _show_live(found: Sequence[Live], json: bool) -> None:
    from tailorbird.repository.times import text_of

    if json:
        render.write_json(found)
        return
    rows = ((one.model, one.channel, str(one.version), text_of(one.since), one.reason or "-") for one in found)
    _print(("model", "channel", "version", "since", "reason"), rows)


def _entry_row(entry: Entry) -> tuple[str, ...]:
    from tailorbird.repository.times import text_of

    jumped = f" (clock said {text_of(entry.clock)})" if entry.clock else ""
    return (str(entry.sequence), text_of(entry.time) + jumped, entry.who, entry.what, entry.model,
            str(entry.version), entry.channel or "-", entry.reason or "-")  # fmt: skip


def _numbers(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "-"


def _pointers(found: Iterable[Live], model: str) -> str:
    return ", ".join(f"{one.channel} {one.version}" for one in found if one.model == model) or "-"


def _print(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """An aligned table; what strangers wrote is shown as it is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in ("number", "version", "bytes")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    render.out.print(table)


def _say(text: str) -> None:
    render.out.print(text, markup=False, soft_wrap=True)
