"""The race: each candidate in its own process, built, looked at, gated, measured; finalists in turn."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from tailorbird.backends.isolate import Worker
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.search import choose, standings, steps
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.signature import Signature

LEAST_ROUNDS = 7
MOST_ROUNDS = 15
FINAL_SECONDS = 60.0
"""After this long, the least number of rounds is enough."""

ROUND_SECONDS = 0.25
_STEPS = "tailorbird.builder.search.steps"


class Race:
    """One build's candidates, from the first to the winner.

    Args:
        model: the normalised ONNX file.
        signature: of the source.
        cases: inputs and the source's outputs at every place.
        config: limits and budget.
        folder: an empty directory for engines and the children's logs.
        log: receives every outcome as it is known.
    """

    def __init__(self, model: Path, signature: Signature, cases: tuple[Case, ...], config: BuildConfig,
                 folder: Path, log: BuildLog) -> None:  # fmt: skip
        self._model = model
        self._signature = signature
        self._cases = cases
        self._config = config
        self._folder = folder
        self._log = log
        self._baseline = ""
        self._best: float | None = None

    def run(self, candidates: Sequence[Candidate], baseline: str = "") -> list[Outcome]:
        """Outcomes of all candidates, at most one of them chosen, the fastest first.

        Args:
            candidates: in the order to try them.
            baseline: name of the one that speed-ups are told against: always measured in the last round.
        """
        self._baseline = baseline
        outcomes = {}
        for candidate in candidates:
            outcomes[candidate.name] = outcome = self._try(candidate)
            self._log.write("tried", candidate=candidate.name, status=outcome.status, reason=outcome.reason,
                            median=outcome.median, seconds=outcome.build_seconds)  # fmt: skip
        return self._decide(outcomes)

    def engine_of(self, outcome: Outcome) -> Path:
        """The directory that holds a candidate's engine."""
        return self._folder / outcome.candidate.name.replace(" ", "_")

    def _is_baseline(self, outcome: Outcome) -> bool:
        return outcome.candidate.name == self._baseline

    def _try(self, candidate: Candidate) -> Outcome:
        args = self._args(candidate)
        with self._worker(self._folder / f"{Path(args.engine).name}.log") as worker:
            try:
                outcome = self._qualify(worker, args)
            except TailorbirdError as error:
                outcome = standings.lost(Outcome(candidate, Status.FAILED, ""), error)
        if outcome.status is not Status.SLOWER and not (self._is_baseline(outcome) and outcome.latency):
            shutil.rmtree(args.engine, ignore_errors=True)
        return outcome

    def _worker(self, log: Path) -> Worker:
        return Worker(self._config.limits, log, scratch=self._folder)

    def _qualify(self, worker: Worker, args: steps.StepArgs) -> Outcome:
        built = worker.call(f"{_STEPS}:compile_engine", args, steps.Compiled)
        facts = Outcome(args.candidate, Status.SLOWER, "", build_seconds=built.seconds, engine_bytes=built.engine_bytes)
        look = worker.call(f"{_STEPS}:first_look", args, steps.Samples).milliseconds
        if choose.cannot_win(look, self._best):
            return msgspec.structs.replace(
                facts, status=Status.STOPPED, latency=self._look_row(look), reason=self._behind(look)
            )
        judged = worker.call(f"{_STEPS}:gate_engine", args, steps.Judged)
        facts = msgspec.structs.replace(facts, gate=judged.gate, executed=judged.executed)
        if not judged.gate.passed:
            return msgspec.structs.replace(
                facts, status=Status.REFUSED, latency=self._look_row(look), reason=judged.gate.verdict
            )
        measured = worker.call(f"{_STEPS}:measure_engine", args, steps.Measured)
        outcome = msgspec.structs.replace(facts, latency=measured.rows)
        self._best = min(filter(None, (self._best, outcome.median)))
        return outcome

    def _decide(self, outcomes: dict[str, Outcome]) -> list[Outcome]:
        """Race the finalists; should all of them die, those behind them have their turn."""
        while least := standings.least(outcomes):
            turns = self._in_turn(outcomes, self._racing(outcomes, choose.finalists(least)))
            rounds = {name: list(map(_median, times)) for name, times in turns.items() if name in least}
            if rounds:
                choice = choose.choose({n: outcomes[n].candidate for n in rounds}, rounds, self._baseline)
                self._log.write("chosen", candidate=choice.winner, reason=choice.reason)
                outcomes = standings.settled(outcomes, turns, choice)
                break
        return sorted(outcomes.values(), key=standings.order)

    def _racing(self, outcomes: dict[str, Outcome], finalists: list[str]) -> list[str]:
        """The finalists, and the baseline when it ran at all: even stopped early it is what people compare with."""
        behind = [n for n, o in outcomes.items() if self._is_baseline(o) and o.latency and n not in finalists]
        return finalists + behind

    def _in_turn(self, outcomes: dict[str, Outcome], racing: list[str]) -> dict[str, list[Sequence[float]]]:
        """A B C A B C ...: the samples of each one's every turn, until the race is decided or long enough."""
        turns: dict[str, list[Sequence[float]]] = {name: [] for name in racing}
        deadline = self._log.seconds + FINAL_SECONDS
        with self._workers(racing) as workers:
            for number in range(1, MOST_ROUNDS + 1):
                self._round(outcomes, turns, workers)
                medians = {name: list(map(_median, times)) for name, times in turns.items()}
                latest = {name: round(times[-1], 6) for name, times in medians.items()}
                self._log.write("round", number=number, medians=latest)
                late = self._log.seconds > deadline
                if len(turns) < 2 or (number >= LEAST_ROUNDS and (late or choose.decided(medians))):
                    break
        return turns

    def _round(
        self, outcomes: dict[str, Outcome], turns: dict[str, list[Sequence[float]]], workers: dict[str, Worker]
    ) -> None:
        """One turn for each. One that dies drops out, and its row says why."""
        for name in list(turns):
            try:
                turns[name].append(self._turn(outcomes[name], workers[name]))
            except TailorbirdError as error:
                del turns[name]
                outcomes[name] = standings.lost(outcomes[name], error)

    def _turn(self, outcome: Outcome, worker: Worker) -> Sequence[float]:
        runs = max(3, min(200, int(ROUND_SECONDS * 1e3 / max(outcome.median or 1.0, 1e-3))))
        args = msgspec.structs.replace(self._args(outcome.candidate), runs=runs)
        return worker.call(f"{_STEPS}:sample_engine", args, steps.Samples).milliseconds

    @contextlib.contextmanager
    def _workers(self, racing: list[str]) -> Iterator[dict[str, Worker]]:
        log = self._folder / "rounds.log"
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(self._worker(log)) for name in racing}

    def _args(self, candidate: Candidate) -> steps.StepArgs:
        engine = self._folder / candidate.name.replace(" ", "_")
        return steps.StepArgs(
            candidate, self._signature, str(self._model), str(engine), self._cases, self._config.budget
        )

    def _look_row(self, look: Sequence[float]) -> tuple[LatencyRow, ...]:
        place = self._cases[0].place
        return (LatencyRow(place.edge, place.shapes, place.rows, 1, Latency.of(look)),)

    def _behind(self, look: Sequence[float]) -> str:
        assert self._best is not None
        return f"{min(look) / self._best:.2f}x the best at a first look, cannot win; not gated"


def _median(samples: Sequence[float]) -> float:
    return float(np.median(samples))
