"""Certificates made in a test: an authority, a server, clients."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates; its own is at :attr:`file`."""

    def __init__(self, folder: Path, name="authority"):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = _name(name)
        own = _unsigned(self.subject, self.subject, self.key.public_key())
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(own.sign(self.key, hashes.SHA256())))

    def issue(self, name, alternatives=(), stem=None, password=None):
        """Paths of a new certificate and its key."""
        stem = stem or name
        key = ec.generate_private_key(ec.SECP256R1())
        made = _unsigned(_name(name), self.subject, key.public_key())
        if alternatives:
            made = made.add_extension(x509.SubjectAlternativeName(list(alternatives)), critical=False)
        certificate, private = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        certificate.write_bytes(_pem(made.sign(self.key, hashes.SHA256())))
        hiding = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        private.touch(0o600)
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hiding))
        return certificate, private

    def server(self, stem="server"):
        """Paths of a certificate for this machine's loopback, and of its key."""
        places = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self.issue("localhost", places, stem=stem)


def _unsigned(subject, issuer, public_key):
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)
