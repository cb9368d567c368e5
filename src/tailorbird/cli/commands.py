"""The commands, one function each: flags in, one call of the facade, rendered result out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

import tailorbird
from tailorbird.cli import render
from tailorbird.cli.flags import Accuracy, Search, Serving, settings_of
from tailorbird.cli.progress import BuildProgress

if TYPE_CHECKING:
    pass

app = App(name="tailorbird", help="From a trained model to the fastest engine that is still right, served.",
          version=tailorbird.__version__, suppress_keyboard_interrupt=False)  # fmt: skip
repo = App(name="repo", help="The repository: versions of engines, by model.")
app.command(repo)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]
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
    repo: Path | None = None,
    name: str | None = None,
    serving: Serving = _SERVING,
    accuracy: Accuracy = _ACCURACY,
    search: Search = _SEARCH,
    config: Path = Path("tailorbird.toml"),
    json: Json = False,
) -> None:
    """Find the fastest engine that is still right on this machine, and say why.

    Args:
        model: an ONNX file, a .pt2 file of torch.export, or module:callable.
        output: the bundle to write, NAME.engine.
        repo: a repository to publish into.
        name: the model's name in it.
        config: settings from a TOML file; flags win over it.
    """
    settings = settings_of(config, serving, accuracy, search)
    with BuildProgress(quiet=json) as progress:
        result = tailorbird.build(
            model, output=output, repository=repo, name=name, config=settings, observers=[progress]
        )
    _show_result(result, json)


@app.command
def run(engine: Path, *, inputs: Path, output: Path | None = None, json: Json = False) -> None:
    """Run an engine once on arrays from an .npz file.

    Args:
        engine: a .engine file or a version's directory.
        inputs: an .npz file with one array for each input.
        output: an .npz file to write; without it the outputs are summarised.
    """
    from tailorbird.builder.cases.data import read_arrays, save_set

    with tailorbird.open(engine) as loaded:
        outputs = loaded.run(read_arrays(inputs))
    if output is not None:
        save_set(output, outputs)
    summary = {name: {"dtype": str(array.dtype), "shape": array.shape} for name, array in outputs.items()}
    if json:
        render.write_json(summary)
    else:
        render.pairs((name, render.array_line(array)) for name, array in outputs.items())


@app.command
def serve(source: Path, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a repository or a bundle over the Open Inference Protocol (HTTP).

    Args:
        source: a repository's directory or a .engine file.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.
    """
    tailorbird.serve(source, host=host, port=port)


@app.command
def demo(*, output: Path = Path("demo-output"), json: Json = False) -> None:
    """Build, publish, serve and query two real models, and leave a page to look at.

    Args:
        output: a folder for that page.
    """
    from tailorbird.cli.demo import run_demo

    run_demo(output, json)


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


@repo.command(name="list")
def repo_list(repository: Path, *, json: Json = False) -> None:
    """List models and their versions."""
    from tailorbird.repository.store import LocalRepository

    store = LocalRepository(repository)
    models = {model: store.versions(model) for model in store.models()}
    if json:
        render.write_json(models)
    else:
        render.pairs((model, "versions " + ", ".join(map(str, versions))) for model, versions in models.items())


@repo.command
def show(repository: Path, model: str, *, version: int | None = None, json: Json = False) -> None:
    """Show one version: engine, signature, gate, latency table, every candidate."""
    from tailorbird.domain.bundle import read_manifest
    from tailorbird.repository.store import LocalRepository

    store = LocalRepository(repository)
    manifest = read_manifest(store.version_dir(model, version or max(store.versions(model))))
    if json:
        render.write_json(manifest)
        return
    for line in render.manifest_lines(manifest):
        render.out.print(line, markup=False, soft_wrap=True)
    render.out.print()
    render.out.print(render.latency_table(manifest))
    render.out.print()
    render.out.print(render.outcomes_table(manifest.outcomes, manifest.goal))


@repo.command
def publish(repository: Path, bundle: Path, *, name: str | None = None, json: Json = False) -> None:
    """Publish a .engine file as a model's next version."""
    version_dir = tailorbird.publish(bundle, repository, name=name)
    if json:
        render.write_json({"version_dir": str(version_dir)})
    else:
        render.out.print(f"published {version_dir}", markup=False, soft_wrap=True)


@repo.command
def verify(repository: Path, model: str | None = None, *, version: int | None = None, json: Json = False) -> None:
    """Check every file of a version, a model or the whole repository against its manifest.

    Args:
        repository: the repository's directory.
        model: one model; all of them without it.
        version: one version of the model.
    """
    from tailorbird.domain.errors import BundleError
    from tailorbird.repository.store import LocalRepository

    checks = LocalRepository(repository).verify(model, version)
    if json:
        render.write_json(checks)
    else:
        render.out.print(render.checks_table(checks))
    broken = [check for check in checks if not check.ok]
    if broken:
        raise BundleError(f"{len(broken)} of {len(checks)} versions are not what their manifests say")


def _show_result(result: tailorbird.Result, json: bool) -> None:
    if json:
        render.write_json(_as_data(result))
        return
    render.out.print(render.outcomes_table(result.table, result.manifest.goal))
    for line in render.result_lines(result.manifest):
        render.out.print(f"\n{line}", markup=False, soft_wrap=True)
    for place in filter(None, (result.bundle, result.version_dir)):
        render.out.print(f"\nwrote {place}", markup=False, soft_wrap=True)


def _as_data(result: tailorbird.Result) -> dict[str, object]:
    return {
        "bundle": str(result.bundle) if result.bundle else None,
        "version_dir": str(result.version_dir) if result.version_dir else None,
        "chosen": result.winner.candidate.name,
        "speedup": result.speedup,
        "table": result.table,
    }
