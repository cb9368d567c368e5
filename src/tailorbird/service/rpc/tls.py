"""TLS for gRPC: the same files as for HTTP, followed in the same way."""

from __future__ import annotations

from typing import Any

import grpc

from tailorbird.service.guard.tls import Material, Tls


def credentials(tls: Tls) -> Any:
    """What a port is opened with. gRPC speaks TLS 1.2 and 1.3, and asks before each handshake what has changed."""
    used = tls.material()

    def changed() -> Any:
        nonlocal used
        found = tls.material()
        if found is used:
            return None
        used = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(_configuration(used), changed, tls.asks_certificates)


def _configuration(material: Material) -> Any:
    pair = (material.key, material.certificate)
    return grpc.ssl_server_certificate_configuration([pair], material.client_authorities)
