"""TLS (RFC 8446, RFC 5246): what is not encrypted of it.

The first exchange of a connection, or that with which one changes to TLS (STARTTLS), begins with a ClientHello: the server's
name (RFC 6066 3) is read there, and the protocols that the client offers (RFC 7301). The version is that of the ServerHello,
as far as it is captured. Of all later exchanges it is known that they are ciphertext, by the records at both sides. Turns of
direction are exchanges of records: whether they are requests nobody can tell, so spans say that they are not delimited.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple, cast

from ...pipeline.spans import AttributeValue, Fragment, SpanKind
from .parser import Endpoint, ProtocolName

_RECORD_HEADER: Final = 5
_LONGEST_RECORD: Final = (1 << 14) + 256
_RANDOM: Final = 32
_NAME_LIMIT: Final = 253
_OFFERED_LIMIT: Final = 8


class ContentType(IntEnum):
    """RFC 8446 5.1."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(IntEnum):
    """RFC 8446 4."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2


class Extension(IntEnum):
    """RFC 8446 4.2."""

    SERVER_NAME = 0
    ALPN = 16
    SUPPORTED_VERSIONS = 43


_VERSIONS: Final = {0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}
_CIPHER_SUITES_OF_1_3: Final = range(0x1301, 0x1308)


class Summary(NamedTuple):
    """Of an exchange. handshake: it begins with a ClientHello; only then is there more."""

    handshake: bool
    server_name: str | None = None
    offered: tuple[str, ...] = ()
    version: str | None = None


_CIPHERTEXT: Final = Summary(False)


class TlsParser:
    """Knows a handshake by its ClientHello, and what follows by the records at both sides."""

    name: str = ProtocolName.TLS.value

    def recognises(self, request: bytes, response: bytes) -> bool:
        if _is_hello(request, HandshakeType.CLIENT_HELLO):
            return not response or _begins_record(response)
        return _begins_record(request) and _begins_record(response)

    def summarise(self, request: bytes, response: bytes) -> Hashable:
        if not _is_hello(request, HandshakeType.CLIENT_HELLO):
            return _CIPHERTEXT
        name: str | None = None
        offered: tuple[str, ...] = ()
        for kind, data in _extensions_of_client_hello(request):
            if kind == Extension.SERVER_NAME:
                name = _server_name(data)
            elif kind == Extension.ALPN:
                offered = _protocol_names(data)
        return Summary(True, name, offered, _version(response))

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        found = cast(Summary, summary)
        attributes: list[tuple[str, AttributeValue]] = [
            ("network.protocol.name", self.name),
            ("wirespan.exchange.delimited", False),
        ]
        if found.server_name:
            attributes.append(("tls.client.server_name", found.server_name))
        if found.offered:
            attributes.append(("wirespan.tls.client.alpn", found.offered))
        if found.version:
            attributes.append(("tls.protocol.version", found.version))
        return Fragment("TLS handshake" if found.handshake else f"TLS {server.port}", tuple(attributes))


def _begins_record(data: bytes) -> bool:
    if len(data) < _RECORD_HEADER or not ContentType.CHANGE_CIPHER_SPEC <= data[0] <= ContentType.APPLICATION_DATA:
        return False
    return data[1] == 3 and data[2] <= 4 and int.from_bytes(data[3:5], "big") <= _LONGEST_RECORD


def _is_hello(data: bytes, kind: HandshakeType) -> bool:
    """Whether a record begins that holds this message, with a version where it has to be."""
    if not _begins_record(data) or data[0] != ContentType.HANDSHAKE or len(data) < _RECORD_HEADER + 6:
        return False
    return data[5] == kind and data[6] == 0 and data[9] == 3 and data[10] <= 4


def _version(response: bytes) -> str | None:
    """By the cipher suite: the version that a ServerHello names first is 1.2 in 1.3 too (RFC 8446 4.1.3)."""
    if not _is_hello(response, HandshakeType.SERVER_HELLO):
        return None
    at = _RECORD_HEADER + 6 + _RANDOM
    if len(response) <= at:
        return None
    at += 1 + response[at]
    suite = response[at : at + 2]
    if len(suite) < 2:
        return None
    if int.from_bytes(suite, "big") in _CIPHER_SUITES_OF_1_3:
        return _VERSIONS[0x0304]
    return _VERSIONS.get(int.from_bytes(response[9:11], "big"))


def _extensions_of_client_hello(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each that was captured whole."""
    at = _RECORD_HEADER + 6 + _RANDOM
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        if at + width > len(data):
            return
        at += width + int.from_bytes(data[at : at + width], "big")
    at += 2
    while at + 4 <= len(data):
        kind, size = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
        if at + size > len(data):
            return
        yield kind, data[at : at + size]
        at += size


def _server_name(data: bytes) -> str | None:
    """The host name of a list that has one, if it is a name of DNS: anything may be sent there."""
    if len(data) < 5 or data[2] != 0:
        return None
    name = data[5 : 5 + int.from_bytes(data[3:5], "big")]
    if not 0 < len(name) <= _NAME_LIMIT or not name.isascii():
        return None
    text = name.decode("ascii").lower()
    return text if all(character.isalnum() or character in "-._" for character in text) else None


def _protocol_names(data: bytes) -> tuple[str, ...]:
    """Those that are text; some clients send random ones (RFC 8701)."""
    names: list[str] = []
    at = 2
    while at < len(data) and len(names) < _OFFERED_LIMIT:
        name = data[at + 1 : at + 1 + data[at]]
        if name.isascii() and name.decode("ascii").isprintable() and name:
            names.append(name.decode("ascii"))
        at += 1 + data[at]
    return tuple(names)
