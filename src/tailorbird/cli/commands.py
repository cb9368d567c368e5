"""The commands, one function each: flags in, one call of the facade, rendered result out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

import tailorbird
from tailorbird.cli import cache, render
from tailorbird.cli.flags import Accuracy, Elsewhere, Search, Serving, flagged, settings_of
from tailorbird.cli.progress import BuildProgress
from tailorbird.domain.config import BuildConfig, Limits
from tailorbird.domain.errors import UsageError

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]
Unsigned = Annotated[
    bool, Parameter(negative="", help="Local experiments: also load what has no signature by a trusted key.")
]
ExplainCache = Annotated[bool, Parameter(negative="", help="Say what was found in the cache, and what changed.")]
_SERVING, _ACCURACY, _SEARCH, _ELSEWHERE = Serving(), Accuracy(), Search(), Elsewhere()


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


def build(
    model: str,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    repo: str | None = None,
    name: str | None = None,
    serving: Serving = _SERVING,
    accuracy: Accuracy = _ACCURACY,
    search: Search = _SEARCH,
    elsewhere: Elsewhere = _ELSEWHERE,
    config: Path = Path("tailorbird.toml"),
    explain_cache: ExplainCache = False,
    json: Json = False,
) -> None:
    """Find the fastest engine that is still right on this machine, and say why.

    Args:
        model: an ONNX file, a .pt2 file of torch.export, module:callable, or a build kit to finish here.
        output: the bundle to write, NAME.engine; or NAME.kit, a build kit for another machine to finish.
        repo: a repository to publish into, a folder or s3://bucket/prefix.
        name: the model's name in it.
        config: settings from a TOML file; flags win over it.
    """
    settings = settings_of(config, serving, accuracy, search, elsewhere)
    asked = cache.Asked()
    if output is not None and output.suffix == ".kit":
        _make_kit(model, output, repo, name, settings, json)
        return
    with BuildProgress(quiet=json) as progress:
        result = tailorbird.build(
            model, output=output, repository=repo, name=name, config=settings, observers=[progress, asked],
            **flagged(serving, accuracy, search, elsewhere)
        )  # fmt: skip
    _show_result(result, json, asked.events if explain_cache else None)


def qualify(
    bundle: Path,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    repo: str | None = None,
    name: str | None = None,
    time_limit: float = Limits().seconds,
    memory_limit: int = Limits().memory_bytes >> 20,
    json: Json = False,
) -> None:
    """Gate and measure an unqualified bundle on the device that it was built for; without a pass nothing is written.

    Args:
        bundle: a .engine file, as build --target and build --no-qualify write them.
        output: the qualified bundle, NAME.engine; NAME.qualified.engine beside the other without it and --repo.
        repo: a repository to publish into, a folder or s3://bucket/prefix.
        name: the model's name in it.
        time_limit: seconds one step may take.
        memory_limit: MiB the engine may use.
    """
    beside = None if repo else bundle.with_name(f"{bundle.stem}.qualified.engine")
    limits = Limits(seconds=time_limit, memory_bytes=memory_limit << 20)
    with BuildProgress(quiet=json) as progress:
        result = tailorbird.qualify(
            bundle, output=output or beside, repository=repo, name=name, limits=limits, observers=[progress]
        )
    _show_result(result, json)


def rebuild(repository: str, model: str, *, version: int | None = None, channel: str = "", json: Json = False) -> None:
    """Build a version again on this machine from the build kit that it keeps, and publish it as the next version.

    Args:
        repository: a folder, or s3://bucket/prefix.
        model: the model.
        version: the latest without it.
        channel: let this one point at the new version.
    """
    with BuildProgress(quiet=json) as progress:
        result = tailorbird.rebuild(repository, model, version=version, channel=channel, observers=[progress])
    _show_result(result, json)


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


def demo(*, output: Path = Path("demo-output"), json: Json = False) -> None:
    """Build, publish, serve and query two real models, and leave a page to look at.

    Args:
        output: a folder for that page.
    """
    from tailorbird.cli.demo import run_demo

    run_demo(output, json)


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


def _make_kit(model: str, output: Path, repo: str | None, name: str | None, settings: BuildConfig, json: bool) -> None:
    if repo is not None:
        raise UsageError("a build kit cannot be published", got=repo, hint="leave --repo out, and finish the kit first")
    with BuildProgress(quiet=json) as progress:
        kit = tailorbird.make_kit(model, output, name=name, config=settings, observers=[progress])
    if json:
        render.write_json({"kit": str(kit)})
    else:
        render.out.print(f"\nwrote {kit}; finish it on its device: tailorbird build {kit} -o NAME.engine", markup=False,
                         soft_wrap=True)  # fmt: skip


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
        "qualified": result.manifest.qualified,
        "speedup": result.speedup,
        "table": result.table,
    }
