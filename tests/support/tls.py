"""TLS for tests: a certificate, and contexts of either end that trust it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from support.certificates import certificate

NAME = "shop.test"


class Authority:
    """A self-signed certificate for ``shop.test`` in this folder."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = certificate(folder, NAME)

    def server(self, version: ssl.TLSVersion, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """Without session tickets, which would be messages of the server that come at any time."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(self.certificate, self.key)
        if version is ssl.TLSVersion.TLSv1_3:
            context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def client(self, protocols: Sequence[str] = (), by_name: bool = True) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = by_name
        context.load_verify_locations(self.certificate)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


def vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(number: int, data: bytes) -> bytes:
    return number.to_bytes(2, "big") + vector(data, 2)


def alpn(protocols: Sequence[bytes]) -> bytes:
    return extension(16, vector(b"".join(vector(name, 1) for name in protocols), 2))


def hello(message: int, version: bytes, session: bytes, body: bytes) -> bytes:
    """The record of a ClientHello (message 1) or ServerHello (2); body: what follows the session id."""
    content = version + bytes(range(32)) + vector(session, 1) + body
    return b"\x16\x03\x01" + vector(bytes([message]) + vector(content, 3), 2)


def client_hello(
    name: bytes | None = NAME.encode(),
    protocols: Sequence[bytes] = (),
    session: bytes = bytes(32),
    before: Sequence[bytes] = (),
    behind: Sequence[bytes] = (),
) -> bytes:
    """before, behind: further extensions around those of the name and the protocols."""
    extensions = [*before]
    if name is not None:
        extensions.append(extension(0, vector(b"\0" + vector(name, 2), 2)))
    if protocols:
        extensions.append(alpn(protocols))
    block = vector(b"".join([*extensions, *behind]), 2)
    return hello(1, b"\3\3", session, vector(b"\x13\x01\xc0\x2f", 2) + vector(b"\0", 1) + block)


def server_hello(
    version: bytes = b"\3\3", cipher: bytes = b"\x13\x01", session: bytes = bytes(32), protocol: bytes | None = None
) -> bytes:
    extensions = [] if protocol is None else [alpn([protocol])]
    return hello(2, version, session, cipher + b"\0" + vector(b"".join(extensions), 2))


def fatal_alert(number: int) -> bytes:
    return b"\x15\x03\x03\0\2\2" + bytes([number])
