"""Rows marked with their own number, through a real server, whatever happens to it: each answer is its own."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.stress import marks, memory
from tests.stress.marks import Marks, Mixed
from tests.stress.memory import Sample
from tests.stress.run import Plan, Result, stressed

FAULTS = ("500", "INTERNAL", "error: the server failed")
"""How the request that was in a killed process ends."""


def check(result: Result) -> None:
    """What must hold however it went."""
    tally = result.tally
    assert not tally.mixed, tally.mixed[:3]
    assert not tally.lost, tally.lost[:3]
    for words in ("http answered", "grpc answered", "stream answered"):
        assert tally.kinds[words], f"{words}: {tally}"
    wrong = [kind for kind in tally.kinds if any(words in kind for words in (" 400", " 404", "INVALID", "outside"))]
    assert not wrong, f"requests that were right are called wrong: {wrong}"
    assert result.exit_status == 0
    assert not any("Traceback" in line for line in result.log), [line for line in result.log if "Traceback" in line][:1]


def faults(result: Result) -> int:
    """Requests that were answered with the server's fault."""
    return sum(count for kind, count in result.tally.kinds.items() if any(word in kind for word in FAULTS))


def broken(result: Result) -> Counter[str]:
    """Connections and streams that ended by themselves."""
    return Counter(
        {kind: count for kind, count in result.tally.kinds.items() if "connection" in kind or "broken" in kind}
    )


def test_under_kills_and_swaps(tmp_path: Path) -> None:
    plan = Plan(seconds=8, kill_every_s=1.2, swap_every_s=1.5, pause_s=0.005, flags=("--repository-poll-secs", "0.3"))
    result = stressed(tmp_path, plan)
    check(result)
    kills = sum(count for name, count in result.done.items() if name.startswith("SIG"))
    assert kills
    most = 8 + plan.clients[2] * 8
    assert faults(result) <= kills * most, "more than can be in the processes that were killed"
    assert not broken(result)


def test_under_swaps_no_request_fails(tmp_path: Path) -> None:
    """Versions come and go, engines in threads: nothing but what a deadline asks for is refused."""
    plan = Plan(seconds=6, isolation="thread", swap_every_s=0.6, pause_s=0.005, timeouts=False,
                flags=("--repository-poll-secs", "0.2", "--keep-previous-secs", "0"))  # fmt: skip
    result = stressed(tmp_path, plan)
    check(result)
    assert {kind.split()[-1] for kind in result.tally.kinds} <= {"answered", "left"}, str(result)
    assert len(result.tally.versions) > 2, "it served but one version"


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_minutes_of_it(tmp_path: Path, isolation: str) -> None:
    plan = Plan(seconds=180, isolation=isolation, kill_every_s=2.0 if isolation == "process" else 0.0, swap_every_s=3.0,
                flags=("--repository-poll-secs", "0.5", "--instances", "2"))  # fmt: skip
    check(stressed(tmp_path, plan))


# --- what judges is judged, too ---


def test_an_answer_to_another_request_is_found() -> None:
    deal = Marks(3, ("quick",), timeouts=False)
    asked, other = deal.deal(), deal.deal()
    right = asked.values * 3 + 2
    assert marks.check(asked, "quick", "2", str(asked.serial), right) == "quick/2"
    wrong_row = right.copy()
    wrong_row[-1, -1] += 1
    for version, serial, outputs in (
        ("1", asked.serial, right),
        ("2", other.serial, right),
        ("2", asked.serial, other.values * 3 + 2),
        ("2", asked.serial, wrong_row),
    ):
        with pytest.raises(Mixed):
            marks.check(asked, "quick", version, str(serial), outputs)


def test_no_two_requests_share_a_number() -> None:
    dealt = [Marks(number, ("quick",)).deal() for number in range(20)]
    deal = Marks(20, ("quick",))
    dealt += [deal.deal() for _ in range(50)]
    values = np.concatenate([one.values.ravel() for one in dealt])
    assert len(set(values.tolist())) == values.size


def curve(kilobytes: list[float]) -> list[Sample]:
    """A sample every ten seconds."""
    return [Sample(10.0 * place, int(value), 0, 1, 9) for place, value in enumerate(kilobytes, 1)]


def test_growth_is_seen_and_swaps_are_not() -> None:
    noise = np.random.default_rng(5).normal(0, 300, 180)
    flat = 100_000 + noise
    flat[::9] += 40_000  # a swap holds two versions for a moment
    assert abs(memory.grown(curve(list(flat)))) < 0.5
    leaking = flat + np.linspace(0, 5000, 180)
    assert 3 < memory.grown(curve(list(leaking))) < 4.5, "5 % in all, three quarters of it after the warm-up"
    early = flat + np.minimum(np.arange(180) * 500, 20_000)
    assert abs(memory.grown(curve(list(early)))) < 0.5, "warming up is no leak"
    assert "growth of total" in memory.table(curve(list(leaking)))


def test_windows_are_of_equal_length() -> None:
    found = memory.windows(curve([100.0] * 180), 20)
    gaps = {later.seconds - earlier.seconds for earlier, later in itertools.pairwise(found)}
    assert 19 <= len(found) <= 21
    assert max(gaps) < 4 * 60
