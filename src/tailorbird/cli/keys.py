"""The commands about keys and signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from tailorbird.cli import render

app = App(name="key", help="Keys: those of this machine, which sign bundles, and those whose bundles it loads.")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]


@app.command
def new(name: str = "default", *, json: Json = False) -> None:
    """Make a key that signs bundles, and trust it here. Nothing is overwritten.

    Args:
        name: what to call it.
    """
    from tailorbird.repository.signing import keys

    own = keys.new(name)
    if json:
        render.write_json({"name": own.name, "id": own.id, "path": str(own.path)})
        return
    _say(f"made {own.id} as '{own.name}'")
    _say(f"private key {own.path}: keep it to this machine")
    _say(f"others trust it with the output of: tailorbird key show {own.name}")


@app.command(name="list")
def list_keys(*, json: Json = False) -> None:
    """List this machine's own keys, and the keys it trusts."""
    from tailorbird.repository.signing import keys

    trusted = {key.id: key for key in keys.trusted()}
    own = [keys.public(name) for name in keys.own_names()]
    rows = [_row(key.name, key.id, own=True, trusted=key.id in trusted) for key in own]
    rows += [_row(key.name, key.id, own=False, trusted=True) for key in trusted.values() if key not in own]
    if json:
        render.write_json(rows)
    elif rows:
        render.out.print(_table(rows))
    else:
        _say("no keys; the first build makes one, or: tailorbird key new")


@app.command
def trust(file: Path, *, name: str | None = None, json: Json = False) -> None:
    """Load what this public key's owner has signed, from now on.

    Args:
        file: a public PEM file, as 'tailorbird key show' prints it.
        name: what to call the key here; by default the file's name.
    """
    from tailorbird.repository.signing import keys

    key = keys.trust(file, name)
    if json:
        render.write_json({"name": key.name, "id": key.id})
    else:
        _say(f"trusted {key.id} as '{key.name}'")


@app.command
def untrust(name: str, *, json: Json = False) -> None:
    """Load no longer what this key signed.

    Args:
        name: the trusted key's name.
    """
    from tailorbird.repository.signing import keys

    keys.untrust(name)
    if json:
        render.write_json({"name": name})
    else:
        _say(f"'{name}' is trusted no longer; what it signed will not be loaded any more")


@app.command
def show(name: str = "default", *, p256: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Print the public half of a key, to give to others.

    Args:
        name: one of this machine's keys, or a trusted one.
        p256: the companion key's, which exported signatures are verified with.
    """
    from tailorbird.repository.signing import keys

    text = keys.companion(keys.load(name)).public_pem if p256 else keys.public(name).public.pem
    render.out.print(text, end="", markup=False, soft_wrap=True)


def sign(bundle: Path, *, key: str | None = None, json: Json = False) -> None:
    """Sign a bundle, in place of any signature that it has, once every file in it has been verified.

    Args:
        bundle: a .engine file or a version's directory.
        key: one of this machine's keys; $TAILORBIRD_KEY or 'default' without it.
    """
    from tailorbird.repository.signing import keys
    from tailorbird.repository.signing.sign import sign_bundle

    own = keys.chosen(key)
    made = sign_bundle(bundle, own)
    if json:
        render.write_json(made)
    else:
        _say(f"signed {bundle} with '{own.name}', {own.id}")


def export_signature(
    bundle: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    key: str | None = None,
    json: Json = False,
) -> None:
    """Write a signature of a bundle that model-signing and other sigstore tools verify.

    Args:
        bundle: a .engine file or a version's directory, signed by one of this machine's keys.
        output: the file to write, FILE.sig.
        key: the key that signed it; $TAILORBIRD_KEY or 'default' without it.
    """
    from tailorbird.repository.signing import keys
    from tailorbird.repository.signing.sigstore import export

    own = keys.chosen(key)
    export(bundle, output, own)
    if json:
        render.write_json({"signature": str(output), "key": own.id})
    else:
        _say(f"wrote {output}; verify it with the output of: tailorbird key show {own.name} --p256")


def _row(name: str, key_id: str, *, own: bool, trusted: bool) -> dict[str, Any]:
    from tailorbird.repository.signing import keys

    signs = own and name == keys.signing_name()
    return {"name": name, "id": key_id, "own": own, "trusted": trusted, "signs": signs}


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "whose", "state", "id"):
        table.add_column(column, no_wrap=column != "id", overflow="fold")
    for row in rows:
        state = "trusted" if row["trusted"] else "[red]not trusted[/]"
        table.add_row(row["name"], "own" if row["own"] else "of others", state + ", signs" * row["signs"], row["id"])
    return table


def _say(text: str) -> None:
    render.out.print(text, markup=False, soft_wrap=True)
