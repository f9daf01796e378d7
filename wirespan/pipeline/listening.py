"""Where servers listen, and by which certificates: settings with the Collector's keys, for all that listens."""

from __future__ import annotations

import re
import ssl
from typing import NamedTuple

from pydantic import field_validator

from .component import ComponentConfig, StartError

_ENDPOINT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:/\[\]]*)):(?P<port>\d{1,5})")


class Address(NamedTuple):
    """host: empty for all interfaces."""

    host: str
    port: int


def address_of(endpoint: str) -> Address:
    """``host:port``, ``[v6]:port`` or ``:port``; raises ValueError for anything else."""
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None or int(found["port"]) > 65_535:
        raise ValueError(f'endpoint "{endpoint}" is not host:port, such as localhost:4317 or 0.0.0.0:4317')
    return Address(found["v6"] or found["host"], int(found["port"]))


def sender_of(host: str) -> str:
    """An address as others write it: without the zone, and IPv4 where a socket of IPv6 has taken that."""
    return host.partition("%")[0].removeprefix("::ffff:")


class ServerTlsSettings(ComponentConfig):
    """Files in PEM. client_ca_file: authorities of clients, which then need a certificate."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None


class ServerSettings(ComponentConfig):
    endpoint: str
    tls: ServerTlsSettings | None = None

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str) -> str:
        address_of(endpoint)
        return endpoint


def ssl_context(tls: ServerTlsSettings) -> ssl.SSLContext:
    """Raises StartError."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # SSLError is one
        files = ", ".join(path for path in (tls.cert_file, tls.key_file, tls.client_ca_file) if path is not None)
        raise StartError(f"cannot use the certificates in {files}: {error}") from error
    return context
