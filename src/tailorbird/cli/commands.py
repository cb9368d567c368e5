"""The commands, one function each: flags in, one call of the facade, rendered result out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

import tailorbird
from tailorbird.cli import admin, cache, keys, render, repo, tokens
from tailorbird.cli.bench import bench
from tailorbird.cli.compare import compare
from tailorbird.cli.flags import Accuracy, Search, Serving, settings_of
from tailorbird.cli.progress import BuildProgress
from tailorbird.cli.serve import serve

if TYPE_CHECKING:
    pass

app = App(name="tailorbird", help="From a trained model to the fastest engine that is still right, served.",
          version=tailorbird.__version__, suppress_keyboard_interrupt=False)  # fmt: skip
app.command(repo.app)
app.command(cache.app)
app.command(keys.app)
app.command(keys.sign)
app.command(keys.export_signature)
app.command(tokens.app)
app.command(admin.app)
app.command(bench)
app.command(compare)
app.command(serve)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]
Unsigned = Annotated[
    bool, Parameter(negative="", help="Local experiments: also load what has no signature by a trusted key.")
]
ExplainCache = Annotated[bool, Parameter(negative="", help="Say what was found in the cache, and what changed.")]
_SERVING, _ACCURACY, _SEARCH = Serving(), Accuracy(), Search()


@app.command
def inspect(model: str, *, shapes: str = "", trial: bool = True, json: Json = False) -> None:
    """Say what a model is, what it costs, and what stands in the way of each backend.

    Args:
        model: an ONNX file.
        shapes: input shapes to count operations at, as name:1x3x224x224,...
        trial: really try each backend (--no-trial to skip).
    """
    found = tailorbird.inspect(model, shapes=shapes, try_backends=trial)
    if json:
        render.write_json(found)
    else:
        render.pairs(render.inspection_pairs(found))


@app.command
def build(
    model: str,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    repo: str | None = None,
    name: str | None = None,
    serving: Serving = _SERVING,
    accuracy: Accuracy = _ACCURACY,
    search: Search = _SEARCH,
    config: Path = Path("tailorbird.toml"),
    explain_cache: ExplainCache = False,
    json: Json = False,
) -> None:
    """Find the fastest engine that is still right on this machine, and say why.

    Args:
        model: an ONNX file, a .pt2 file of torch.export, or module:callable.
        output: the bundle to write, NAME.engine.
        repo: a repository to publish into, a folder or s3://bucket/prefix.
        name: the model's name in it.
        config: settings from a TOML file; flags win over it.
    """
    settings = settings_of(config, serving, accuracy, search)
    asked = cache.Asked()
    with BuildProgress(quiet=json) as progress:
        result = tailorbird.build(
            model, output=output, repository=repo, name=name, config=settings, observers=[progress, asked]
        )
    _show_result(result, json, asked.events if explain_cache else None)


@app.command
def run(
    engine: Path, *, inputs: Path, output: Path | None = None, allow_unsigned: Unsigned = False, json: Json = False
) -> None:
    """Run an engine once on arrays from an .npz file.

    Args:
        engine: a .engine file or a version's directory.
        inputs: an .npz file with one array for each input.
        output: an .npz file to write; without it the outputs are summarised.
    """
    from tailorbird.builder.cases.data import read_arrays, save_set

    with tailorbird.open(engine, allow_unsigned=allow_unsigned) as loaded:
        outputs = loaded.run(read_arrays(inputs))
    if output is not None:
        save_set(output, outputs)
    summary = {name: {"dtype": str(array.dtype), "shape": array.shape} for name, array in outputs.items()}
    if json:
        render.write_json(summary)
    else:
        render.pairs((name, render.array_line(array)) for name, array in outputs.items())


@app.command
def demo(*, output: Path = Path("demo-output"), json: Json = False) -> None:
    """Build, publish, serve and query two real models, and leave a page to look at.

    Args:
        output: a folder for that page.
    """
    from tailorbird.cli.demo import run_demo

    run_demo(output, json)


@app.command
def bom(bundle: Path, *, output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None) -> None:
    """Write a bundle's bill of materials: CycloneDX 1.6 with a model card, facts only.

    Args:
        bundle: a .engine file or a version's directory.
        output: the file to write; without it the bill goes to stdout.
    """
    bill = tailorbird.bill_of_materials(bundle)
    if output is None:
        render.out.print(bill.decode(), markup=False, highlight=False, soft_wrap=True)
    else:
        output.write_bytes(bill)


@app.command
def doctor(*, json: Json = False) -> None:
    """Say which backends are here, which are not, why, and what to install."""
    from tailorbird.backends.host import cpu_facts

    report = tailorbird.doctor()
    if json:
        render.write_json({"device": cpu_facts(), "backends": report})
        return
    render.pairs(cpu_facts().items())
    render.out.print()
    render.out.print(render.doctor_table(report))


def _show_result(result: tailorbird.Result, json: bool, asked: list[dict[str, Any]] | None = None) -> None:
    if json:
        render.write_json(_as_data(result) | ({} if asked is None else {"cache": asked}))
        return
    render.out.print(render.outcomes_table(result.table, result.manifest.goal))
    for line in render.result_lines(result.manifest):
        render.out.print(f"\n{line}", markup=False, soft_wrap=True)
    for place in filter(None, (result.bundle, result.version_dir)):
        render.out.print(f"\nwrote {place}", markup=False, soft_wrap=True)
    if asked is not None:
        render.out.print()
        render.out.print(cache.explain(asked))


def _as_data(result: tailorbird.Result) -> dict[str, object]:
    return {
        "bundle": str(result.bundle) if result.bundle else None,
        "version_dir": str(result.version_dir) if result.version_dir else None,
        "chosen": result.winner.candidate.name,
        "speedup": result.speedup,
        "table": result.table,
    }
