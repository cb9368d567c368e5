"""Loading: a repository's latest versions, one bundle, and models that fail."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, BundleError, UsageError
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.serving import loading
from tests.protocol.engines import TINY, FakeSession, candidate, manifest, tiny_function


class FakeEngine(SimpleNamespace):
    """What repository/load.py returns."""

    def run(self, inputs):
        return self.session.run(inputs)

    def close(self):
        self.session.close()


def engine(name="tiny", function=tiny_function, signature=TINY):
    session = FakeSession(signature, function)
    return FakeEngine(manifest=manifest(name, signature, candidate(signature)), session=session)


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

    def opened(path):
        answer = answers["/".join(Path(path).parts[-2:])]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(loading, "load_version", opened)
    monkeypatch.setattr(loading, "open_bundle", opened)
    return loading.load_hub(source)


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
    load(monkeypatch, repository / "b", {f"{repository.name}/b": warmed}).close()
    assert seen[0]["x"].tolist() == [[0, 0]]
    assert seen[0]["t"].tolist() == [b""]


@pytest.mark.parametrize(("source", "version"), [("a/2", 2), ("a", 10), ("x.engine", 1)])
def test_one_bundle(monkeypatch, repository, source, version):
    (repository / "x.engine").touch()
    (repository / "a/2/tailorbird").mkdir()
    (repository / "a/2/tailorbird/manifest.json").touch()
    answers = dict.fromkeys(("a/2", f"{repository.name}/a", f"{repository.name}/x.engine"), engine("named"))
    hub = load(monkeypatch, repository / source, answers)
    assert [(model.name, model.version) for model in hub.loaded] == [("named", version)]
    hub.close()


def test_one_bundle_that_fails_is_an_error(monkeypatch, repository):
    with pytest.raises(BackendError, match=r"^fake could not run the engine: got burnt$"):
        load(monkeypatch, repository / "a", {f"{repository.name}/a": engine(function=fail(ValueError("burnt")))})


def test_a_name_that_cannot_be_in_a_url(monkeypatch, repository):
    with pytest.raises(UsageError, match=r"^not a model name: got 'a b', expected 1 to 128 of ASCII letters"):
        load(monkeypatch, repository / "a", {f"{repository.name}/a": engine("a b")})


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
