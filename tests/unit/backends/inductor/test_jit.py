"""The fall-back: ``torch.compile`` with the caches that an earlier process filled."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tailorbird.backends import registry
from tailorbird.domain.candidate import Form
from tests.contract import models
from tests.contract.backend_contract import agree, candidate_of

programs = pytest.importorskip("tests.contract.programs")
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

_OPEN = """
import sys, json
from pathlib import Path
import msgspec, numpy as np, torch
from tailorbird.backends import registry
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.signature import Signature
folder = Path(sys.argv[1])
candidate = msgspec.json.decode((folder / "candidate.json").read_bytes(), type=Candidate)
signature = msgspec.json.decode((folder / "signature.json").read_bytes(), type=Signature)
with registry.backend("inductor").open(folder / "engine", candidate, signature) as session:
    for rows in (3, 1, 8):
        y = session.run({"x": np.ones((rows, 16), np.float32)})["y"]
    np.save(folder / "y.npy", y)
from torch._dynamo.utils import counters
print(json.dumps(counters["inductor"]))
"""


def test_another_process_compiles_nothing_again(tmp_path: Path) -> None:
    import json

    import msgspec

    case, backend = models.dense(), registry.backend("inductor")
    candidate = candidate_of(backend, case, options={"compiler": "jit"}, form=Form.PROGRAM)
    (tmp_path / "engine").mkdir()
    backend.compile(programs.write(case, tmp_path), candidate, tmp_path / "engine")
    assert {path.name for path in (tmp_path / "engine").iterdir()} == {"caches.bin", "inductor.json", "jitted.pt2"}
    with backend.open(tmp_path / "engine", candidate, case.signature) as session:
        agree(case, session.run(case.inputs))
        assert set(session.executed_precision().values()) == {"fp32"}
    (tmp_path / "candidate.json").write_bytes(msgspec.json.encode(candidate))
    (tmp_path / "signature.json").write_bytes(msgspec.json.encode(case.signature))
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "fresh"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _OPEN, str(tmp_path)], env=environment,
                          capture_output=True, text=True, check=True, timeout=300)  # fmt: skip
    counted = json.loads(done.stdout.splitlines()[-1])
    assert counted.get("fxgraph_cache_hit", 0) >= 1
    assert counted.get("fxgraph_cache_miss", 0) == 0
    expected = case.expected({"x": np.ones((8, 16), np.float32)})["y"]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)
