"""``tailorbird serve``: the flags about its doors reach the server; wrong ones are named before anything is loaded."""

from pathlib import Path

import pytest

from tailorbird.cli.main import run
from tailorbird.service import app
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.tls import TlsFiles


def test_every_flag_reaches_the_server(monkeypatch):
    asked = []
    monkeypatch.setattr(app, "serve", lambda *about: asked.append(about))
    words = ["--tls-client-name", "a", "--tls-client-name", "b*", "--open-health", "--admin-on-public"]
    files = ["--tokens", "t", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a", "--admin", "unix:/x"]
    assert run(["serve", *words, *files, "models"]) == 0
    ((source, options),) = asked
    assert source == "models"
    assert options.guarding == Guarding(
        tokens=Path("t"),
        open_health=True,
        tls=TlsFiles(Path("c"), Path("k"), Path("a")),
        client_names=("a", "b*"),
        admin="unix:/x",
        admin_on_public=True,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--open-health"], "--open-health needs --tokens"),
        (["--tls-cert", "c"], "TLS needs a certificate and its key: expected --tls-cert and --tls-key"),
        (["--tls-client-name", "x"], "--tls-client-name needs --tls-client-ca"),
        (["--tokens", "/none"], "there is no file of tokens at /none"),
        (
            ["--tls-cert", "/none", "--tls-key", "/none"],
            "cannot read the certificate /none: got No such file or directory",
        ),
        (["--admin", "here"], "no door for administration: got 'here', expected PORT, HOST:PORT or unix:PATH"),
        (["--admin-on-public", "--host", "0.0.0.0"], "--admin-on-public would let anybody load and unload models"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_loaded(tmp_path, capsys, words, said):
    (tmp_path / "models").mkdir()
    assert run(["serve", str(tmp_path / "models"), "--port", "0", "--grpc-port", "0", *words]) == 2
    assert said in capsys.readouterr().err
