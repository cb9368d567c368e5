"""Records are decoded by decoders made at import: several threads that meet at the first use crash msgspec 0.22."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bundles
from tests.project import tree

PROGRAM = """
import sys, threading
from pathlib import Path
sys.setswitchinterval(1e-6)
from tailorbird.domain.manifest import decode_manifest
from tailorbird.repository.signing.sign import decode_signature
manifest, signature = (Path(name).read_bytes() for name in sys.argv[1:])
together = threading.Barrier(4)
def work():
    together.wait()
    decode_manifest(manifest)
    decode_signature(signature, "here")
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_threads_may_meet_at_the_first_use(tmp_path: Path) -> None:
    folder = bundles.version(tmp_path / "1") / "tailorbird"
    files = [str(folder / name) for name in ("manifest.json", "signature.json")]
    for _ in range(3):  # nine of ten died when each call made its own decoder
        assert subprocess.run([sys.executable, "-c", PROGRAM, *files], check=False).returncode == 0


@pytest.mark.parametrize("floor", ["domain", "repository", "serving", "service"])
def test_no_floor_of_a_server_makes_decoders_as_it_goes(floor: str) -> None:
    made = [
        tree.label(path)
        for path in sorted((tree.ROOT / "src" / "tailorbird" / floor).rglob("*.py"))
        if re.search(r"(json|msgpack|toml|yaml)\.decode\([^)]*type=", path.read_text(encoding="utf-8"))
    ]
    assert not made, "make the decoder once, at the module's level"
