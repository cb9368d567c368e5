"""The figures: what is kept of each model, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from tailorbird.domain.budget import GateReport

PASSING = ("onnxruntime", "openvino", "nncf")
"""What people would pick instead. Ours is held against the fastest of those that keep the default budget."""

CANDIDATE = "candidate "
"""What the names of our own other candidates begin with."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant against ours: its speed, and whether it is right."""

    ratio: float | None = None
    """Its time over ours: how many times as fast ours is. None where it did not run."""
    spread: float | None = None
    """Half the interquartile range of the ratio over the rounds."""
    passes: bool | None = None
    """Whether it keeps the default budget on sets that it has not seen; None where that was not found out."""
    verdict: str = ""
    """The gate's words, or why it did not run."""
    snr_db: float | None = None
    cosine: float | None = None
    made_seconds: float | None = None
    """What quantising took, where it is a peer that quantises."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model's figures. ``ours`` is our own contestant: judged like the others, its ratio 1."""

    model: str
    shapes: str
    engine: str
    median_ms: float
    ours: Peer
    peers: dict[str, Peer]
    gate_db: float | None
    """The least SNR that the build's own gate measured."""
    build_seconds: float
    phases: dict[str, float]
    tried: int
    threads: int
    rounds: int
    device: dict[str, str]
    date: str

    @property
    def best_passing(self) -> tuple[str, float] | None:
        """The fastest of :data:`PASSING` that keeps the budget, and our speed against it."""
        ratios = {name: peer.ratio for name in PASSING if (peer := self.peers.get(name)) and peer.passes and peer.ratio}
        return min(ratios.items(), key=lambda one: one[1]) if ratios else None

    @property
    def best_candidate(self) -> float | None:
        """The least of our other candidates' times over ours: below one, another would have been faster."""
        found = [peer.ratio for name, peer in self.peers.items() if name.startswith(CANDIDATE) and peer.ratio]
        return min(found) if found else None


def judged(peer: Peer, report: GateReport) -> Peer:
    """The peer with what the gate's rules said of it."""
    return msgspec.structs.replace(peer, passes=report.passed, verdict=report.verdict,
                                   snr_db=report.worst("snr_db"), cosine=report.worst("cosine"))  # fmt: skip


def timed(peer: Peer, theirs: Sequence[float], ours: Sequence[float]) -> Peer:
    """The peer with its ratio: the median over rounds of the paired ratio."""
    p25, median, p75 = np.percentile(np.array(theirs) / np.array(ours), [25, 50, 75])
    return msgspec.structs.replace(peer, ratio=float(median), spread=float(p75 - p25) / 2)


def geometric_mean(values: Sequence[float]) -> float:
    """exp(mean(log(x)))."""
    return float(np.exp(np.mean(np.log(values))))


def ratios(rows: Sequence[Row], kind: str, models: Sequence[str]) -> dict[str, float]:
    """Our speed against one kind of peer, by model, where it was measured."""
    found = {row.model: row.peers[kind].ratio for row in rows if row.model in models and kind in row.peers}
    return {name: ratio for name, ratio in found.items() if ratio}


class Goal(msgspec.Struct, frozen=True):
    """One goal, and what became of it. ``held`` is None where it was not measured, or only in part."""

    words: str
    held: bool | None
    found: str

    def __str__(self) -> str:
        state = {True: "held", False: "NOT HELD", None: "not measured"}[self.held]
        return f"{state:<12}  {self.words}: {self.found}"


ORT_MEAN = 2.8
TORCH_LEAST = {"bert-base": 6.5, "bert-base@8": 7.5, "resnet50": 7.5}
BEST_PASSING_LEAST = 0.98
BUILD_MOST = {"bert-base": 300.0, "bert-base@8": 300.0, "resnet50": 120.0}


def goals(rows: Sequence[Row], eight: Sequence[str]) -> Iterator[Goal]:
    """Every goal. A part of them that broke breaks the whole; one that is absent leaves it open."""
    found = ratios(rows, "onnxruntime", eight)
    mean = geometric_mean(list(found.values())) if found else 0.0
    whole = len(found) == len(eight)
    yield Goal(f"geometric mean of the eight over ONNX Runtime at least {ORT_MEAN}",
               mean >= ORT_MEAN if whole else None, f"{mean:.2f} over {len(found)} of {len(eight)}")  # fmt: skip
    for name, least in TORCH_LEAST.items():
        against = ratios(rows, "torch", (name,))
        yield _each(f"{name} over PyTorch eager at least {least}", against, (name,), least)
    everything = (*eight, *(name for name in TORCH_LEAST if name not in eight))
    best = {row.model: row.best_passing[1] for row in rows if row.best_passing}
    yield _each(f"each over its best passing peer at least {BEST_PASSING_LEAST}", best, everything, BEST_PASSING_LEAST)
    seconds = {row.model: row.build_seconds for row in rows}
    for name, most in BUILD_MOST.items():
        known = {name: -seconds[name]} if name in seconds else {}
        yield _each(f"{name} built within {most:g} s", known, (name,), -most)
    rightness = {row.model: float(row.ours.passes) for row in rows if row.ours.passes is not None}
    yield _each("each chosen engine keeps the budget on sets that nobody saw", rightness, everything, 1.0)


def _each(words: str, found: Mapping[str, float], expected: Sequence[str], least: float) -> Goal:
    """Whether every expected number is there and reaches ``least``."""
    missed = {name: value for name, value in found.items() if name in expected and value < least}
    absent = [name for name in expected if name not in found]
    shown = missed if len(expected) > 1 else found
    listed = ", ".join(f"{name} {abs(shown[name]):.3g}" for name in expected if name in shown)
    parts = ("missed by " if missed and len(expected) > 1 else "") + listed, _absent(absent, expected)
    held = False if missed else None if absent else True
    return Goal(words, held, "; ".join(filter(None, parts)) or f"all {len(expected)}")


def _absent(absent: Sequence[str], expected: Sequence[str]) -> str:
    if not absent or len(absent) == len(expected):
        return "nothing" if absent else ""
    named = f", without {', '.join(absent)}" if len(absent) < 4 else ""
    return f"{len(expected) - len(absent)} of {len(expected)} measured{named}"
