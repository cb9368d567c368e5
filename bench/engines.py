"""How fast is the engine we choose? Ours against what people would pick instead.

For every model: build (timed, gate passed, nothing cached), then the peers: ONNX Runtime, OpenVINO and PyTorch eager as
people run them, and NNCF's own INT8 in OpenVINO. Each is held against FP32 on sets of inputs that nobody calibrated on,
then all take turns, A B C D A B C D ..., each in its own process, at the same thread count, on the same inputs. A
ratio is the median over rounds of the paired ratio; its spread is half the interquartile range.

``python -m bench.engines [NAME[@BATCH] ...]`` prints the tables and writes ``bench-output/engines.json``; with
``--append`` rows that the file holds of other models stay, so that a long run can be made in pieces. ``--table`` only
prints what the file holds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import cases, contest, peers, record, zoo
from bench.cases import Case, Inputs
from bench.contestants import Turn
from bench.figures import CANDIDATE, Peer, Row, judged, timed
from bench.table import show, speeds
from bench.timeline import Watch, phases
from tailorbird import api
from tailorbird.backends.host import cpu_facts, usable_cores
from tailorbird.builder.workdir import workdir
from tailorbird.cli.progress import BuildProgress
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.outcome import Outcome, Status

NEAR = 1.3
"""Our own candidates measured within this factor of the chosen one take part, where it is asked for."""

EIGHT = tuple(model.name for model in zoo.ZOO)


def main() -> int:
    """Build and race the models named on the command line; all by default. 1 where one of them failed."""
    args = _arguments()
    out = Console(width=None if Console().is_terminal else 190, highlight=False)
    try:
        chosen = [cases.parse(name) for name in args.models or cases.default_names()]
        rows = record.load(args.output) if args.append or args.table else ()
    except (UsageError, zoo.ZooError) as error:
        sys.exit(str(error))
    failed = []
    for case in () if args.table else chosen:
        try:
            rows = record.merged(rows, (measure(case, args),), cases.default_names())
        except (TailorbirdError, zoo.ZooError) as error:
            failed.append(f"{case.name} failed: {error}")
            print(failed[-1], file=sys.stderr)
            continue
        record.save(rows, args.output)
        out.print(speeds(rows, EIGHT))
    show(rows, EIGHT, out)
    out.print(*failed, sep="\n", markup=False)
    return 1 if failed else 0


@dataclass
class Bench:
    """One model's run: what is known of it so far, in one private folder."""

    case: Case
    args: argparse.Namespace
    folder: Path
    inputs: Inputs
    watch: Watch = field(default_factory=Watch)

    @property
    def source(self) -> Path:
        """The ONNX file that everybody is given."""
        return zoo.path(self.case.model.name)

    def turn(self, kind: str, what: object, **more: Any) -> Turn:
        """A contestant on the sets that nobody has seen."""
        return Turn(kind, str(what), str(self.inputs.unseen), self.args.threads, **more)


def measure(case: Case, args: argparse.Namespace) -> Row:
    """One model from file to figures."""
    zoo.path(case.model.name)  # made now if it is absent: not the build's time
    with workdir() as folder:
        bench = Bench(case, args, folder, cases.write_inputs(case, folder))
        result = _built(bench)
        seconds = bench.watch.seconds
        unseen = contest.answers(bench.source, bench.inputs.unseen, folder / "unseen-fp32", args.threads)
        quantised = _quantised(bench)
        contestants = _contestants(bench, result) | {
            name: peers.entered(made, bench.inputs.unseen, args.threads)
            for name, made in quantised.items()
            if made.model
        }
        results = contest.held(contestants, unseen, args.rounds)
    if "ours" not in results.medians:
        raise TailorbirdError("the engine that was chosen does not run", got=results.failures["ours"])
    found = _peers(results, quantised)
    return _row(bench, result, seconds, found, results)


def _built(bench: Bench) -> api.Result:
    """Our build, with a cache of its own, so that its seconds are those of a first build."""
    settings: dict[str, Any] = {"threads": (bench.args.threads,), "precisions": tuple(bench.args.precision)}
    with BuildProgress() as progress:
        bench.watch = Watch()
        return api.build(
            bench.source,
            output=bench.folder / f"{bench.case.model.name}.engine",
            opt_shapes=bench.case.shapes,
            data=str(bench.inputs.data),
            cache=str(bench.folder / "cache"),
            observers=[bench.watch, progress],
            **settings,
        )


def _contestants(bench: Bench, result: api.Result) -> dict[str, Turn]:
    found = {"ours": bench.turn("ours", result.bundle)}
    found |= {kind: bench.turn(kind, bench.source) for kind in ("onnxruntime", "openvino")}
    if bench.case.model.source is not None:
        found["torch"] = bench.turn("torch", bench.case.model.source)
    for outcome in result.table if bench.args.candidates else ():
        if _is_near(outcome, result.winner):
            more = {"candidate": outcome.candidate, "signature": result.manifest.signature}
            found[f"{CANDIDATE}{outcome.candidate.name}"] = bench.turn("candidate", bench.source, **more)
    return found


def _is_near(outcome: Outcome, winner: Outcome) -> bool:
    """Passed, close to the winner, and compiled from the source as it is: quantised graphs went with the build."""
    plain = outcome.candidate.quantisation is None and outcome.candidate.instances == 1
    close = outcome.median is not None and outcome.median < NEAR * (winner.median or 0.0)
    return outcome.status is Status.SLOWER and plain and close


def _quantised(bench: Bench) -> dict[str, peers.Made]:
    """What NNCF makes of it: plain on all of the data, and with accuracy control where that is asked for."""
    data, folder = sorted(bench.inputs.data.glob("*.npz")), bench.folder
    transformer = bench.case.model.name in peers.TRANSFORMERS
    files = tuple(map(str, data))
    args = peers.PeerArgs(str(bench.source), files, str(folder / "nncf.xml"), transformer)
    found = {"nncf": peers.made("plain", args, peers.NNCF_SECONDS, folder / "nncf.log")}
    if bench.args.accuracy_control:
        answers = contest.answers(bench.source, bench.inputs.data, folder / "data-fp32", bench.args.threads)
        scored = data[-min(peers.VALIDATION_SETS, len(data) // 3) :]
        pairs = tuple((str(path), str(answers / path.name)) for path in scored)
        rest = files[: len(files) - len(pairs)]
        args = peers.PeerArgs(str(bench.source), rest, str(folder / "controlled.xml"), transformer, pairs)
        limit, log = bench.args.accuracy_control_seconds, folder / "controlled.log"
        found["accuracy-control"] = peers.made("controlled", args, limit, log)
    return found


def _peers(results: contest.Results, quantised: dict[str, peers.Made]) -> dict[str, Peer]:
    """Everybody's record, ours among them, those that never ran included."""
    found = {}
    for name in (*results.reports, *results.failures, *quantised):
        made = quantised.get(name)
        failure = results.failures.get(name, made.failure if made else "")
        peer = Peer(verdict=failure, made_seconds=made.seconds if made else None)
        peer = judged(peer, results.reports[name]) if name in results.reports else peer
        times = results.medians.get(name)
        found[name] = timed(peer, times, results.medians["ours"]) if times else peer
    return found


def _row(bench: Bench, result: api.Result, seconds: float, found: dict[str, Peer], results: contest.Results) -> Row:
    return Row(
        model=bench.case.name,
        shapes=bench.case.shapes,
        engine=result.winner.candidate.name,
        median_ms=statistics.median(results.medians["ours"]),
        ours=found.pop("ours"),
        peers=found,
        gate_db=result.manifest.gate.worst("snr_db"),
        build_seconds=seconds,
        phases=phases(bench.watch.events, seconds),
        tried=bench.watch.tried,
        threads=bench.args.threads,
        rounds=bench.args.rounds,
        device=cpu_facts(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME[@BATCH]")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--precision", action="append", default=[], help="allow this one only; repeatable")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--accuracy-control", action="store_true", help="NNCF's own accuracy control too; slow")
    parser.add_argument("--accuracy-control-seconds", type=float, default=180.0, metavar="S", help="its time limit")
    parser.add_argument("--candidates", action="store_true", help="our other unquantised candidates take turns too")
    parser.add_argument("--output", type=Path, default=record.PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--append", action="store_true", help="keep the file's rows of other models")
    parser.add_argument("--table", action="store_true", help="print what the file holds, and measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
