"""Files of TLS: which are good, and what is said of those that are not."""

import os
import ssl

import pytest

from tailorbird.domain.errors import UsageError
from tailorbird.service.faults import Forbidden
from tailorbird.service.guard.options import Guarding, tls_files
from tailorbird.service.guard.tls import ClientNames, Tls, TlsFiles, load, names_of
from tests.protocol.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def pair(authority):
    return authority.server()


def message(files):
    with pytest.raises(UsageError) as caught:
        load(files)
    return caught.value.message


def test_files_that_fit(authority, pair):
    found = load(TlsFiles(*pair, client_authorities=authority.file))
    assert found.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert found.context.verify_mode is ssl.CERT_REQUIRED
    assert load(TlsFiles(*pair)).context.verify_mode is ssl.CERT_NONE


def test_a_key_of_another_certificate(authority, pair):
    _, other = authority.server("other")
    assert message(TlsFiles(pair[0], other)) == f"the key {other} is not that of the certificate {pair[0]}"


def test_a_key_with_a_password_is_not_asked_for(authority):
    certificate, key = authority.issue("locked", password=b"secret")
    assert message(TlsFiles(certificate, key)).endswith(
        "expected a certificate and its private key in PEM, without a password"
    )


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(100), b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"]
)
def test_no_pem(tmp_path, pair, content):
    bad = tmp_path / "bad.pem"
    bad.write_bytes(content)
    bad.chmod(0o600)
    words = "expected a certificate and its private key in PEM, without a password"
    assert message(TlsFiles(bad, pair[1])).endswith(words)
    assert message(TlsFiles(pair[0], bad)).endswith(words)
    assert message(TlsFiles(*pair, client_authorities=bad)) == (
        f"no certificates in {bad}: expected those of the clients' authorities in PEM"
    )


def test_a_key_that_everybody_can_use(pair):
    pair[1].chmod(0o604)
    try:
        assert message(TlsFiles(*pair)) == (
            f"everybody on this machine can use the private key {pair[1]}: got mode 0604, expected mode 0600 or 0640\n"
            f"Hint: chmod 600 {pair[1]}; in Kubernetes the volume's defaultMode"
        )
        pair[1].chmod(0o640)
        load(TlsFiles(*pair))
    finally:
        pair[1].chmod(0o600)


def test_files_that_are_not_there(tmp_path, pair):
    none = tmp_path / "none"
    assert message(TlsFiles(none, pair[1])) == f"cannot read the certificate {none}: got No such file or directory"
    assert message(TlsFiles(pair[0], none)) == f"cannot read the private key {none}: got No such file or directory"
    os.mkfifo(tmp_path / "pipe")
    assert message(TlsFiles(tmp_path / "pipe", pair[1])).startswith(f"{tmp_path}/pipe is no certificate: ")


def test_new_files_that_do_not_fit_leave_the_old_ones(authority, pair, tmp_path, capsys):
    now = [0.0]
    certificate, key = tmp_path / "c", tmp_path / "k"
    certificate.write_bytes(pair[0].read_bytes())
    key.write_bytes(pair[1].read_bytes())
    key.chmod(0o600)
    tls = Tls(TlsFiles(certificate, key), lambda: now[0])
    first = tls.material()
    certificate.write_bytes(b"x")
    for second in (1, 2):
        now[0] = second
        assert tls.material() is first
    assert capsys.readouterr().err.count("do not fit") == 1
    certificate.write_bytes(authority.server("next")[0].read_bytes())
    key.write_bytes(authority.folder.joinpath("next.key").read_bytes())
    assert tls.material() is first  # not looked at yet
    now[0] = 3
    assert tls.material().certificate == certificate.read_bytes()


@pytest.mark.parametrize(
    ("patterns", "names", "let_in"),
    [
        (("*",), ("x",), "x"),
        (("*",), (), None),
        (("robot-*",), ("human", "robot-1"), "robot-1"),
        (("robot-*",), ("Robot-1", "xrobot-1"), None),
        (("a", "b"), ("b",), "b"),
        (("[!x]*",), ("x",), None),
    ],
)
def test_names_of_clients(patterns, names, let_in):
    if let_in is None:
        with pytest.raises(Forbidden, match=r"^the client's certificate is not for this server$"):
            ClientNames(patterns).match(names)
    else:
        assert ClientNames(patterns).match(names) == let_in


def test_the_names_in_a_certificate():
    told = {
        "subject": ((("organizationName", "o"),), (("commonName", "cn"),)),
        "subjectAltName": (("DNS", "d"), ("URI", "spiffe://x"), ("DirName", ((("commonName", "hidden"),),))),
    }
    assert names_of(told) == ("cn", "d", "spiffe://x")
    assert names_of({}) == names_of(None) == ()


@pytest.mark.parametrize("named", [("c", "", ""), ("", "k", ""), ("", "", "a"), ("c", "", "a")])
def test_one_file_without_the_other(named):
    with pytest.raises(UsageError) as caught:
        tls_files(*named)
    assert caught.value.message == "TLS needs a certificate and its key: expected --tls-cert and --tls-key"


def test_settings_that_need_others(pair):
    for wrong in ({"client_names": ("x",)}, {"client_names": ("x",), "tls": TlsFiles(*pair)}, {"open_health": True}):
        with pytest.raises(UsageError, match=r"^--(tls-client-name|open-health) needs --"):
            Guarding(**wrong)
