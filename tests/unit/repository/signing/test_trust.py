"""Trust: every fault of a signed bundle found and named, and no way around."""

import ast
import base64
import json
import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest

import tailorbird
from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.digest import digest_file
from tailorbird.domain.errors import BundleError
from tailorbird.domain.manifest import SCHEMA, encode_manifest
from tailorbird.repository.load import load_version, open_bundle
from tailorbird.repository.signing import keys, sign
from tailorbird.repository.signing.trust import Signer, signer_of, verified
from tailorbird.repository.store import LocalRepository
from tailorbird.serving.loading import load_hub
from tests import bundles
from tests.project import tree

FILES = ["model.onnx", "tailorbird/build.jsonl", "tailorbird/manifest.json", "tailorbird/report.html",
         "tailorbird/signature.json"]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of keys of the test's own."""
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return bundles.version(tmp_path / "version")


def refusal(version_dir: Path, **options: bool) -> str:
    with pytest.raises(BundleError) as caught:
        verified(version_dir, **options)
    return caught.value.message


def flip(path: Path, place: int | None = None, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= mask
    path.chmod(0o644)
    path.write_bytes(data)


def resigned_by_attacker(version_dir: Path, signature: sign.BundleSignature) -> None:
    """The signature as it was, but over the manifest that is there now."""
    forged = msgspec.structs.replace(signature, manifest=digest_file(version_dir / bundle.MANIFEST))
    (version_dir / bundle.SIGNATURE).write_bytes(sign.encode_signature(forged))


def signature_of(version_dir: Path) -> sign.BundleSignature:
    return sign.decode_signature((version_dir / bundle.SIGNATURE).read_bytes(), "")


def test_a_signed_version_names_its_signer(version: Path, tmp_path: Path) -> None:
    found = verified(version)
    assert found.manifest == bundle.read_manifest(version)
    assert found.signer == Signer(keys.chosen().id, "default")
    assert signer_of(version) == signer_of(bundles.engine_file(version, tmp_path / "x.engine")) == found.signer
    with open_bundle(version) as loaded:
        assert loaded.signer == found.signer


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_and_named_everywhere(name: str, version: Path, tmp_path: Path) -> None:
    repository = LocalRepository(tmp_path / "repository")
    repository.publish(version)
    published = repository.root / "tiny" / "1"
    for place in (version, published):
        flip(place / name)
    for load in (tailorbird.open, verified, open_bundle, load_version, sign.sign_bundle):
        if load is sign.sign_bundle and name in bundle.UNLISTED:
            continue  # it is what these two are made by
        with pytest.raises(BundleError) as caught:
            load(version)
        assert name in caught.value.message
    with pytest.raises(BundleError):
        LocalRepository(tmp_path / "another").publish(version)
    (failed,) = load_hub(repository.root).failed
    assert name in failed.reason
    (check,) = repository.verify()
    assert name in check.problem


def test_every_bit_of_both_papers_counts(tmp_path: Path) -> None:
    version = bundles.version(tmp_path / "version")
    for name in (bundle.SIGNATURE, bundle.MANIFEST):
        whole = (version / name).read_bytes()
        step = 1 if name == bundle.SIGNATURE else 7
        for place in range(0, len(whole), step):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            (version / name).write_bytes(changed)
            with pytest.raises(BundleError, match=name):
                signer_of(version)
        (version / name).write_bytes(whole)
    assert signer_of(version)


def test_every_bit_of_the_signature_counts(version: Path) -> None:
    path = version / bundle.SIGNATURE
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            with pytest.raises(BundleError, match=bundle.SIGNATURE):
                _signer_with(bytes(changed), version)


def _signer_with(signature: bytes, version: Path) -> None:
    (version / bundle.SIGNATURE).write_bytes(signature)
    signer_of(version)


class TestUnsigned:
    @pytest.fixture
    def unsigned(self, tmp_path: Path) -> Path:
        return bundles.sealed(tmp_path / "unsigned")

    def test_it_is_refused(self, unsigned: Path) -> None:
        assert refusal(unsigned) == (
            f"{unsigned} is not signed: got no 'tailorbird/signature.json', expected a signature by a trusted key\n"
            "Hint: sign it, if you know where it is from: tailorbird sign; "
            "for a local experiment allow it: --allow-unsigned"
        )
        with pytest.raises(BundleError, match="is not signed"):
            open_bundle(unsigned)

    def test_it_may_be_allowed(self, unsigned: Path) -> None:
        assert verified(unsigned, allow_unsigned=True).signer is None
        with open_bundle(unsigned, allow_unsigned=True) as loaded:
            assert loaded.signer is None
            assert loaded.run(bundles.INPUTS)["y"].shape == (2, bundles.WIDTH)

    def test_its_files_count_all_the_same(self, unsigned: Path) -> None:
        flip(unsigned / "model.onnx")
        assert "'model.onnx'" in refusal(unsigned, allow_unsigned=True)

    def test_a_stripped_signature(self, version: Path) -> None:
        (version / bundle.SIGNATURE).unlink()
        assert "is not signed" in refusal(version)


class TestUntrusted:
    @pytest.fixture
    def version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Signed on another machine."""
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TAILORBIRD_KEYS", str(tmp_path / "elsewhere"))
            return bundles.version(tmp_path / "theirs")

    def test_it_is_refused_until_its_key_is_trusted(self, version: Path, tmp_path: Path) -> None:
        key = signature_of(version).key
        assert refusal(version) == (
            f"'tailorbird/signature.json' of {version} is by a key that is not trusted here: got {key}, "
            "expected a trusted key; none is, so far\n"
            "Hint: if you know whose it is: tailorbird key trust FILE; "
            "for a local experiment allow it: --allow-unsigned"
        )
        own = keys.new()
        assert f"expected {own.id} ('default')" in refusal(version)
        keys.trust(tmp_path / "elsewhere" / "default.pub.pem", "colleague")
        assert verified(version).signer == Signer(key, "colleague")
        keys.untrust("colleague")
        assert "not trusted here" in refusal(version)

    def test_it_may_be_allowed_and_counts_as_unsigned(self, version: Path) -> None:
        assert verified(version, allow_unsigned=True).signer is None

    def test_allowed_or_not_it_must_be_over_this_manifest(self, version: Path, tmp_path: Path) -> None:
        flip(version / bundle.MANIFEST)
        assert "'tailorbird/manifest.json'" in refusal(version, allow_unsigned=True)


class TestForged:
    """An attacker who can write every byte of a bundle, and has no trusted key."""

    def edited(self, version: Path) -> None:
        """Other weights, under a manifest with their digests."""
        flip(version / "model.onnx")
        manifest = bundle.read_manifest(version)
        bundle.seal(version, msgspec.structs.replace(manifest, executed={"fp32": 99}))
        bundle.verify(version)

    @pytest.mark.parametrize("allowed", [False, True])
    def test_the_old_signature_is_over_another_manifest(self, version: Path, allowed: bool) -> None:
        signed = digest_file(version / bundle.MANIFEST)
        self.edited(version)
        assert refusal(version, allow_unsigned=allowed) == (
            f"'tailorbird/manifest.json' of {version} is not what was signed: it was altered, or the signature is "
            f"another's: got {digest_file(version / bundle.MANIFEST)}, expected {signed}\n"
            "Hint: restore it from its source, or build it again"
        )

    @pytest.mark.parametrize("allowed", [False, True])
    def test_the_old_signature_does_not_fit_a_new_digest(self, version: Path, allowed: bool) -> None:
        signature = signature_of(version)
        self.edited(version)
        resigned_by_attacker(version, signature)
        assert refusal(version, allow_unsigned=allowed) == (
            f"'tailorbird/signature.json' of {version} is not valid: got not a signature by 'default', "
            f"expected one by {signature.key}\nHint: restore it from its source, or build it again"
        )

    def test_a_key_of_his_own_is_not_trusted(
        self, version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = signature_of(version).key
        self.edited(version)
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TAILORBIRD_KEYS", str(tmp_path / "attacker"))
            made = sign.sign_version(version, keys.new())
        assert "not trusted here" in refusal(version)
        forged = msgspec.structs.replace(made, key=ours)  # his signature under our key's name
        (version / bundle.SIGNATURE).write_bytes(sign.encode_signature(forged))
        assert "is not valid: got not a signature by 'default'" in refusal(version)

    def test_a_signature_of_another_bundle(self, version: Path, tmp_path: Path) -> None:
        other = bundles.version(tmp_path / "other", executed={"fp32": 3})
        for one, another in ((version, other), (other, version)):
            swapped = shutil.copytree(one, tmp_path / f"swapped-{one.name}")
            shutil.copyfile(another / bundle.SIGNATURE, swapped / bundle.SIGNATURE)
            assert "the signature is another's" in refusal(swapped)

    def test_a_signature_of_the_bare_digest_is_none(self, version: Path) -> None:
        """What the key signed for another purpose is no signature of a bundle."""
        made, own = signature_of(version), keys.chosen()
        raw = own.private.sign(made.manifest.encode())
        forged = msgspec.structs.replace(made, signature=base64.b64encode(raw).decode())
        (version / bundle.SIGNATURE).write_bytes(sign.encode_signature(forged))
        assert "is not valid" in refusal(version)

    @pytest.mark.parametrize("text", ["sha256:\u00e9", "", "x" * 1000])
    def test_a_digest_that_is_none(self, version: Path, text: str) -> None:
        forged = msgspec.structs.replace(signature_of(version), manifest=text)
        (version / bundle.SIGNATURE).write_bytes(sign.encode_signature(forged))
        assert "is not valid" in refusal(version)


class TestStrangeFiles:
    def test_a_link(self, version: Path, tmp_path: Path) -> None:
        path = version / bundle.SIGNATURE
        path.rename(tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json")
        assert refusal(version) == (
            f"'tailorbird/signature.json' of {version} cannot be opened as a plain file: "
            "got Too many levels of symbolic links\nHint: sign it again: tailorbird sign"
        )
        assert "cannot be opened as a plain file" in refusal(version, allow_unsigned=True)

    def test_a_linked_folder(self, version: Path, tmp_path: Path) -> None:
        (version / "tailorbird").rename(tmp_path / "papers")
        (version / "tailorbird").symlink_to(tmp_path / "papers")
        assert "'tailorbird' is not a plain file: got a link" in refusal(version)

    def test_a_pipe_does_not_hang(self, version: Path) -> None:
        (version / bundle.SIGNATURE).unlink()
        os.mkfifo(version / bundle.SIGNATURE)
        assert "is not a plain file" in refusal(version)

    def test_a_folder(self, version: Path) -> None:
        (version / bundle.SIGNATURE).unlink()
        (version / bundle.SIGNATURE).mkdir()
        assert "cannot be opened as a plain file: got Is a directory" in refusal(version)

    def test_a_huge_one_is_not_read(self, version: Path) -> None:
        with (version / bundle.SIGNATURE).open("r+b") as file:
            file.truncate(1 << 40)  # sparse: it takes no room, and to read it would take all
        assert refusal(version) == (
            f"'tailorbird/signature.json' of {version} is too large: got {1 << 40} bytes, "
            "expected at most 65536 bytes\nHint: sign it again: tailorbird sign"
        )

    def test_a_huge_one_in_a_file(self, version: Path, tmp_path: Path) -> None:
        (version / bundle.SIGNATURE).write_bytes(bytes(sign.MAX_SIGNATURE_BYTES + 1))
        engine = bundles.engine_file(version, tmp_path / "x.engine")
        with pytest.raises(BundleError, match=r"its 'tailorbird/signature.json' is too large: got 65537 bytes"):
            signer_of(engine)

    def test_a_newer_manifest_says_what_to_upgrade(self, version: Path) -> None:
        path = version / bundle.MANIFEST
        newer = msgspec.to_builtins(bundle.read_manifest(version)) | {"schema": SCHEMA + 1, "new": 1}
        path.write_bytes(json.dumps(newer).encode())
        assert "is not what was signed" in refusal(version)
        own = keys.chosen()
        digest = digest_file(path)
        raw = base64.b64encode(own.private.sign(sign.message(digest))).decode()
        signature = sign.BundleSignature(key=own.id, manifest=digest, signature=raw)
        (version / bundle.SIGNATURE).write_bytes(sign.encode_signature(signature))
        assert refusal(version) == (
            f"the manifest's schema is newer than this Tailorbird: got {SCHEMA + 1}, expected {SCHEMA}\n"
            "Hint: upgrade Tailorbird: pip install --upgrade tailorbird"
        )

    def test_a_newer_signature_says_what_to_upgrade(self, version: Path) -> None:
        newer = msgspec.to_builtins(signature_of(version)) | {"schema": 2}
        (version / bundle.SIGNATURE).write_bytes(json.dumps(newer).encode())
        assert "is newer than this Tailorbird" in refusal(version, allow_unsigned=True)


def test_the_manifest_is_read_once(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded is what was held against the signature, whatever takes its place meanwhile."""
    other = encode_manifest(msgspec.structs.replace(bundle.read_manifest(version), executed={"evil": 1}))
    real, reads = Path.read_bytes, []

    def read(path: Path) -> bytes:
        data = real(path)
        if path == version / bundle.MANIFEST:
            reads.append(path)
            path.write_bytes(other)
        return data

    monkeypatch.setattr(Path, "read_bytes", read)
    assert verified(version).manifest.executed == {"fp32": 2}
    assert len(reads) == 1


def test_each_file_is_hashed_once(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(bundle, "digest_file", lambda path: hashed.append(path.name) or digest_file(path))
    verified(version)
    assert sorted(hashed) == ["build.jsonl", "model.onnx", "report.html"]


def test_a_packed_engine_s_bytes_are_not_read_for_its_signer(version: Path, tmp_path: Path) -> None:
    engine = bundles.engine_file(version, tmp_path / "x.engine")
    data = engine.read_bytes()
    place = data.index((version / "model.onnx").read_bytes())
    engine.write_bytes(data[:place] + b"\xff" * 32 + data[place + 32 :])
    assert signer_of(engine)
    with pytest.raises(BundleError, match="is not a whole bundle"):
        bundlefile.unpack(engine, tmp_path / "out")


def backends_used_in(path: Path) -> bool:
    """Whether a module can get at a backend: by the registry's function, or by a backend's own module."""
    for node in ast.walk(tree.parse(path)):
        match node:
            case ast.Attribute(value=ast.Name(id="registry"), attr="backend"):
                return True
            case ast.ImportFrom(module="tailorbird.backends.registry"):
                return True
            case ast.ImportFrom(module=str(module)) if module.startswith("tailorbird.backends."):
                if module.rpartition(".")[2] not in {"base", "host", "isolate"}:
                    return True
    return False


def test_nothing_else_loads_an_engine() -> None:
    """Outside builder/, which runs what it has just compiled, one module hands out backends, and one opens engines."""
    users = [tree.label(path) for path in tree.modules() if backends_used_in(path)]
    assert [name for name in users if not name.startswith(("builder/", "backends/"))] == ["repository/machine.py"]
    others = [path for path in tree.modules() if not tree.label(path).startswith(("builder/", "backends/"))]
    takers = [path for path in others if "backend_here" in path.read_text(encoding="utf-8")]
    assert [tree.label(path) for path in takers] == [
        "api/elsewhere.py",
        "repository/load.py",
        "repository/machine.py",
    ]
    opens = [
        tree.label(path)
        for path in takers
        for node in ast.walk(tree.parse(path))
        if isinstance(node, ast.Call) and re.search(r"backend(_here\(.*\))?\.open$", ast.unparse(node.func))
    ]
    assert opens == ["repository/load.py"]
