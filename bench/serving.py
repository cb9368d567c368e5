"""How good is the server? Ours against Triton, LitServe, MLServer, BentoML and Flask under gunicorn.

Four contests: ``tiny`` (what a server itself costs), ``resnet`` (how much of an engine's throughput is left behind it,
and what its clients feel at 70 % and at 200 %), ``start`` (to the first answer) and ``batching`` (what joining requests
is worth). ``python -m bench.serving prepare`` makes what they need, once: the rivals' environments and the engines.
``python -m bench.serving`` runs them, prints the tables, and writes ``bench-output/serving.json`` and
``docs/serving-benchmarks.md``; contests of an earlier run that are not run anew stay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import zoo
from bench.servers import engines, triton
from bench.servers.engines import Served
from bench.servers.rivals import RIVALS
from bench.serving_parts import batching, page, resnet, results, starting, tables, tiny
from bench.serving_parts.plan import Plan, said
from bench.serving_parts.results import Contest
from tailorbird.builder.workdir import workdir
from tailorbird.domain.errors import TailorbirdError, UsageError

CONTESTS: dict[str, Callable[[Plan], Contest]] = {
    tiny.NAME: tiny.run,
    resnet.NAME: resnet.run,
    starting.NAME: starting.run,
    batching.NAME: batching.run,
}
NEEDS: dict[str, tuple[Served, ...]] = {
    tiny.NAME: (engines.DOUBLE,),
    resnet.NAME: (engines.RESNET,),
    starting.NAME: (engines.RESNET_FP32,),
    batching.NAME: tuple(case.served for case in batching.CASES),
}


def main() -> int:
    """Prepare, or run the contests that were asked for. 1 where something failed."""
    args = _arguments()
    try:
        contests, rivals = _chosen(args.contest, tuple(CONTESTS)), _chosen(args.rivals, _names())
        if args.what == "prepare":
            prepare(contests, rivals, args)
            return 0
        return _run(contests, rivals, args)
    except (TailorbirdError, zoo.ZooError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def prepare(contests: tuple[str, ...], rivals: tuple[str, ...], args: argparse.Namespace) -> None:
    """Make the environments and the engines that are absent; raises what pip and builds raise."""
    for rival in RIVALS:
        if rival.name in rivals:
            said(f"environment: {rival.name}")
            if rival.environment:
                rival.environment.make()
            else:
                triton.prepare()
    for served in {one.name: one for name in contests for one in NEEDS[name]}.values():
        said(f"engine: {served.name}")
        served.build(args.build_seconds, anew=args.rebuild)


def _run(contests: tuple[str, ...], rivals: tuple[str, ...], args: argparse.Namespace) -> int:
    found, failed = results.load(args.output), 0
    for name in () if args.table else contests:
        try:
            fresh = _one(name, rivals, args)
        except (TailorbirdError, RuntimeError) as error:
            failed += 1
            print(f"{name} failed: {error}", file=sys.stderr)
            continue
        found = results.merged(found, fresh, tuple(CONTESTS))
        results.save(found, args.output)
    tables.show([one for one in found if one.name in contests], _console())
    if args.page:
        page.write(found, args.page)
    return 1 if failed else 0


def _one(name: str, rivals: tuple[str, ...], args: argparse.Namespace) -> Contest:
    missing = [served.name for served in NEEDS[name] if not served.bundle.exists()]
    if missing:
        raise UsageError(f"no engine of {', '.join(missing)}", hint="make it: python -m bench.serving prepare")
    with workdir() as folder:
        scale = 0.15 if args.quick else args.scale
        return CONTESTS[name](Plan(2 if args.quick else args.rounds, scale, rivals, folder))


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 190, highlight=False)


def _names() -> tuple[str, ...]:
    return tuple(one.name for one in RIVALS)


def _chosen(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(word for word in text.split(",") if word) if text != "all" else known
    for word in words:
        if word not in known:
            raise UsageError(f"unknown name '{word}'", expected=", ".join(known))
    return words


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("run", "prepare"), default="run")
    parser.add_argument("--contest", default="all", help=f"some of {','.join(CONTESTS)}")
    parser.add_argument("--rivals", default="all", help=f"some of {','.join(_names())}; empty for none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of all times")
    parser.add_argument("--quick", action="store_true", help="a smoke run: two short rounds")
    parser.add_argument("--rebuild", action="store_true", help="prepare: build the engines anew")
    parser.add_argument("--build-seconds", type=float, default=engines.BUILD_SECONDS, metavar="S",
                        help="prepare: time budget of each build; default %(default)s")  # fmt: skip
    parser.add_argument("--output", type=Path, default=results.PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the Markdown page here, too")
    parser.add_argument("--table", action="store_true", help="print what the file holds, and measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
