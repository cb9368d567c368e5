"""Loading: a repository's latest versions, one bundle, and models that fail."""

import asyncio
import contextlib
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tailorbird.domain import bundle
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BundleError, UsageError
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.repository import load as load_module
from tailorbird.repository.opening import open_repository
from tailorbird.repository.rules import Keep
from tailorbird.repository.store import LocalRepository
from tailorbird.serving import loading, starting
from tailorbird.serving.starting import HubOptions, Isolation
from tests import bundles, object_storage
from tests.protocol.engines import TINY, FakeSession, candidate, manifest, tiny_function

THREADS = HubOptions(isolation=Isolation.THREAD)


class FakeEngine(SimpleNamespace):
    """What repository/load.py returns."""

    def run(self, inputs):
        return self.session.run(inputs)

    def close(self):
        self.session.close()


def engine(name="tiny", function=tiny_function, signature=TINY):
    session = FakeSession(signature, function)
    return FakeEngine(manifest=manifest(name, signature, candidate(signature)), session=session, signer=None)


@pytest.fixture
def repository(tmp_path):
    for place in ("a/1", "a/2", "a/10", "b/3", "c/1", "d/1"):
        (tmp_path / place).mkdir(parents=True)
    return tmp_path


def fail(error):
    def run(*_):
        raise error

    return run


def load(monkeypatch, source, answers):
    """Load with engines given by the last two parts of their folder's path."""

    def opened(path, *, allow_unsigned):
        answer = answers["/".join(Path(path).parts[-2:])]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(starting, "load_version", opened)
    return loading.load_hub(source, THREADS)


def test_the_latest_of_each_model_and_failures_apart(monkeypatch, repository):
    broken = engine(function=fail(RuntimeError("no such kernel")))
    answers = {"a/10": engine(), "b/3": BundleError("altered", got="x"), "c/1": broken, "d/1": OSError("disk")}
    hub = load(monkeypatch, repository, answers)
    assert [(model.name, model.version) for model in hub.loaded] == [("a", 10)]
    assert [(model.name, model.version, model.reason) for model in hub.failed] == [
        ("b", 3, "altered: got x"),
        ("c", 1, "fake could not run the engine: got no such kernel"),
        ("d", 1, "OSError: disk"),
    ]
    assert broken.session.closed
    hub.close()
    assert answers["a/10"].session.closed


def test_warm_up_sends_zeros(monkeypatch, repository):
    seen = []
    signature = Signature((TensorSpec("x", DType.FP32, ("N", 2)), TensorSpec("t", DType.BYTES, ("N",))), ())
    warmed = engine(function=lambda inputs: seen.append(inputs) or {}, signature=signature)
    load(monkeypatch, repository, {**dict.fromkeys(("a/10", "c/1", "d/1"), BundleError("no")), "b/3": warmed}).close()
    assert seen[0]["x"].tolist() == [[0, 0]]
    assert seen[0]["t"].tolist() == [b""]


def test_a_name_that_cannot_be_in_a_url(tmp_path):
    version = bundles.version(tmp_path / "made", model="a b")
    with pytest.raises(UsageError, match=r"^not a model name: got 'a b', expected 1 to 128 of ASCII letters"):
        loading.load_hub(version, THREADS)


@pytest.mark.parametrize("isolation", list(Isolation))
class TestOneBundle:
    """In both modes, with real engines."""

    @pytest.mark.parametrize(("place", "version"), [("tiny/2", 2), ("tiny", 2), ("x.engine", 1)])
    def test_it_serves(self, tmp_path, isolation, place, version):
        made = bundles.version(tmp_path / "made")
        for number in (1, 2):
            shutil.copytree(made, tmp_path / "tiny" / str(number))
        bundles.engine_file(made, tmp_path / "x.engine")
        with contextlib.closing(loading.load_hub(tmp_path / place, HubOptions(isolation=isolation))) as hub:
            (model,) = hub.loaded
            assert (model.name, model.version, model.alive) == ("tiny", version, True)
            assert model.signer is not None
            outputs = asyncio.run(model.instance.run(bundles.INPUTS))
        np.testing.assert_allclose(outputs["y"], bundles.expected(), rtol=1e-5, atol=1e-6)
        assert not model.alive

    def test_one_that_fails_is_an_error_and_leaves_nothing(self, tmp_path, isolation, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))
        (tmp_path / "unpacked").mkdir()
        version = bundles.version(tmp_path / "made")
        (version / bundle.SIGNATURE).unlink()
        packed = bundles.engine_file(version, tmp_path / "x.engine")
        with pytest.raises(BundleError, match="is not signed"):
            loading.load_hub(packed, HubOptions(isolation=isolation))
        assert list((tmp_path / "unpacked").iterdir()) == []
        with contextlib.closing(loading.load_hub(packed, HubOptions(isolation=isolation, allow_unsigned=True))) as hub:
            assert hub.loaded[0].signer is None
            assert len(list((tmp_path / "unpacked").iterdir())) == 1  # for processes that start again
        assert list((tmp_path / "unpacked").iterdir()) == []


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError) as caught:
        loading.load_hub(tmp_path / "none")
    assert caught.value.message == (
        f"nothing to serve at {tmp_path}/none: got no such file or folder, expected a repository or a bundle"
    )


def test_an_empty_repository(tmp_path):
    with pytest.raises(UsageError) as caught:
        loading.load_hub(tmp_path)
    assert caught.value.message == (
        f"no model in {tmp_path}: expected a repository or a bundle\nHint: publish one: tailorbird repo publish"
    )


class TestChannels:
    """Real engines: which version of a repository is served."""

    @pytest.fixture
    def published(self, tmp_path):
        store = LocalRepository(tmp_path / "repository")
        for threads in (1, 2, 3):
            store.publish(bundles.version(tmp_path / str(threads), candidate=bundles.candidate(threads=threads)))
        store.publish(bundles.version(tmp_path / "other"), "other")
        return store

    def served(self, source, **options):
        with contextlib.closing(loading.load_hub(source, THREADS, **options)) as hub:
            assert hub.failed == ()
            return {model.name: model.version for model in hub.loaded}

    def test_production_or_the_latest(self, published):
        assert self.served(published.root) == {"tiny": 3, "other": 1}
        published.promote("tiny", 1, "production")
        assert self.served(published.root) == {"tiny": 1, "other": 1}

    def test_what_is_retired_is_not_served(self, published):
        published.retire("tiny", 3)
        published.retire("other", 1)
        assert self.served(published.root) == {"tiny": 2}

    def test_a_named_channel(self, published):
        published.promote("tiny", 1, "production")
        published.promote("tiny", 2, "canary")
        assert self.served(published.root, channel="canary") == {"tiny": 2}
        with pytest.raises(UsageError) as caught:
            loading.load_hub(published.root, channel="beta")
        assert caught.value.message == (
            f"no model in {published.root} has the channel 'beta': expected one of: canary, production\n"
            "Hint: promote a version to it: tailorbird repo promote"
        )

    def test_a_models_folder_follows_its_repositorys_log(self, published, monkeypatch):
        published.retire("tiny", 3)
        assert self.served(published.root / "tiny") == {"tiny": 2}
        published.promote("tiny", 1, "production")
        monkeypatch.chdir(published.root / "tiny")
        assert self.served(".") == {"tiny": 1}
        with load_module.open_bundle(published.root / "tiny") as engine:
            assert engine.manifest.candidate.threads == 2

    def test_a_bundle_has_no_channels(self, published):
        with pytest.raises(UsageError, match="a single bundle has no channels: got --channel canary"):
            loading.load_hub(published.root / "tiny" / "1", channel="canary")

    def test_nothing_but_retired_versions(self, published):
        for version in (1, 2, 3):
            published.retire("tiny", version)
        published.retire("other", 1)
        with pytest.raises(UsageError, match=r"every version in .* is retired: got other, tiny"):
            loading.load_hub(published.root)

    def test_a_version_that_went_while_it_was_loaded(self, published, monkeypatch):
        """Collected between the look and the load: the one in service by then is loaded instead."""
        load = starting.load_version

        def collected(path, **options):
            if path.name == "3":
                published.retire("tiny", 3)
                published.gc(Keep(timedelta(0)))
            return load(path, **options)

        monkeypatch.setattr(starting, "load_version", collected)
        assert self.served(published.root) == {"tiny": 2, "other": 1}

    def test_object_storage(self, published):
        with object_storage.object_storage():
            place = f"s3://{object_storage.new_bucket()}/nest"
            store = open_repository(place)
            for version in (1, 2):
                store.publish(published.version_dir("tiny", version))
            store.promote("tiny", 1, "production")
            assert self.served(place) == {"tiny": 1}
