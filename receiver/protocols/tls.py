"""TLS (RFC 8446, RFC 5246): what its handshake says in the clear.

The kernel tells such a connection by its ClientHello, wherever in a connection that comes (bpf/opaque.h), and captures
nothing of what follows the exchange with it: ciphertext is never looked at. So there are two kinds of exchanges. The first
begins a handshake and has its heads: the name that the client asks for, what it offers to speak, and of the answer the
version, or the alert that refuses it. All others are turns of ciphertext. Whether these are requests nobody can tell, so
spans say that they are not delimited. Connections that are older than the agent are known by the records at both sides.

What a head that was cut does not hold is absent: nothing is concluded from its absence but that the head was cut. The
protocol that was agreed upon is emitted only if the answer has it in the clear, which it never is from TLS 1.3 on. Names of
protocols are emitted if they are registered, that of a server if it can be a host's.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple, cast

from ...pipeline.spans import AttributeValue, Fragment, SpanKind, StatusCode
from .parser import Endpoint, ProtocolName

#: header of the record, header of the message, version (RFC 8446 5.1, 4, 4.1.2); as is_client_hello() of bpf/opaque.h
_CLIENT_HELLO: Final = re.compile(rb"\x16\x03...\x01\0..\x03.", re.DOTALL)
_SERVER_HELLO: Final = re.compile(rb"\x16\x03...\x02\0..\x03.", re.DOTALL)
_FATAL_ALERT: Final = re.compile(rb"\x15\x03.\0\x02\x02(.)", re.DOTALL)
_CHANGE_CIPHER_SPEC: Final = 20
_APPLICATION_DATA: Final = 23
_LONGEST_RECORD: Final = (1 << 14) + 256
_MESSAGE: Final = 5
_VERSION: Final = 9
_SESSION_ID: Final = 43
_TLS_1_2: Final = b"\3\3"
_CIPHER_OF_TLS_1_3: Final = 0x13
_HOST_NAME: Final = re.compile(rb"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_HOST_NAME_LIMIT: Final = 253


class Extension(IntEnum):
    """RFC 6066 3, RFC 7301."""

    SERVER_NAME = 0
    ALPN = 16


class Alert(IntEnum):
    """RFC 8446 B.2, RFC 5246 7.2: those that end a handshake."""

    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


_READ: Final = frozenset(Extension)
_ALERTS: Final = {member.value: member.name.lower() for member in Alert}
_VERSIONS: Final = {b"\3\1": "1.0", b"\3\2": "1.1", _TLS_1_2: "1.2"}

#: IANA's registry of ALPN protocol ids, and what service meshes use; any other may be anything
_PROTOCOLS: Final = frozenset(
    b"http/0.9 http/1.0 http/1.1 spdy/1 spdy/2 spdy/3 stun.turn stun.nat-discovery h2 h2c webrtc c-webrtc ftp imap pop3"
    b" managesieve coap co xmpp-client xmpp-server acme-tls/1 mqtt dot ntske/1 sunrpc h3 smb irc nntp nnsp doq sip/2"
    b" tds/8.0 dicom postgresql radius/1.0 radius/1.1 grpc-exp istio istio-peer-exchange".split()
)


class Summary(NamedTuple):
    """Of the exchange that begins a handshake. truncated: the ClientHello was cut before it told both names and protocols;
    version and what follows: of the answer."""

    server_name: str | None
    offered: tuple[str, ...]
    truncated: bool
    version: str | None
    next_protocol: str | None
    alert: str | None


class TlsParser:
    """See :class:`~.parser.Parser`."""

    name = ProtocolName.TLS.value

    def recognises(self, request: bytes, response: bytes) -> bool:
        if _CLIENT_HELLO.match(request):
            return not response or _begins_record(response)
        return _begins_record(request) and _begins_record(response)

    def summarise(self, request: bytes, response: bytes) -> Summary | None:
        """None for turns of ciphertext."""
        hello = _CLIENT_HELLO.search(request)
        if hello is None:
            return None
        return _summary_of(request[hello.start() :], response)

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        common = (("network.protocol.name", self.name), ("wirespan.exchange.delimited", False))
        if summary is None:
            return Fragment(f"TLS {server.port}", common)
        found = cast(Summary, summary)
        attributes: list[tuple[str, AttributeValue]] = [*common, ("tls.protocol.name", self.name)]
        if found.version:
            attributes.append(("tls.protocol.version", found.version))
        if found.server_name:
            attributes.append(("tls.client.server_name", found.server_name))
        if found.next_protocol:
            attributes.append(("tls.next_protocol", found.next_protocol))
        if found.offered:
            attributes.append(("wirespan.tls.client.alpn", found.offered))
        if found.truncated:
            attributes.append(("wirespan.tls.truncated", True))
        if found.alert:
            attributes.append(("error.type", found.alert))
        status = StatusCode.ERROR if found.alert else StatusCode.UNSET
        return Fragment("TLS handshake", tuple(attributes), status)


def _begins_record(data: bytes) -> bool:
    """RFC 8446 5.1: type, version, and a length that is not too large."""
    if len(data) < _MESSAGE or not _CHANGE_CIPHER_SPEC <= data[0] <= _APPLICATION_DATA:
        return False
    return data[1] == 3 and data[2] <= 4 and int.from_bytes(data[3:_MESSAGE], "big") <= _LONGEST_RECORD


def _summary_of(hello: bytes, response: bytes) -> Summary:
    extensions, whole = _client_extensions(hello)
    offered = tuple(_protocols(extensions.get(Extension.ALPN, b"")))
    alert = _FATAL_ALERT.match(response)
    version, agreed = _answer(response) if _SERVER_HELLO.match(response) else (None, ())
    return Summary(
        server_name=_server_name(extensions.get(Extension.SERVER_NAME, b"")),
        offered=offered,
        truncated=not whole and not extensions.keys() >= _READ,
        version=version,
        next_protocol=agreed[0] if len(agreed) == 1 else None,
        alert=_ALERTS.get(alert[1][0], "_OTHER") if alert else None,
    )


def _client_extensions(hello: bytes) -> tuple[dict[int, bytes], bool]:
    """Those of a ClientHello that were captured, and whether these are all."""
    at = _behind(hello, _SESSION_ID, 1)
    at = _behind(hello, at, 2)  # cipher suites
    at = _behind(hello, at, 1)  # compression methods
    if at >= _VERSION + int.from_bytes(hello[_MESSAGE + 1 : _VERSION], "big"):
        return {}, True  # RFC 5246 7.4.1.2: there may be none
    return _extensions(hello, at)


def _answer(hello: bytes) -> tuple[str | None, tuple[str, ...]]:
    """The version of a ServerHello, and the protocol in the clear, if any. Versions from 1.3 on say that they are 1.2;
    their cipher suites are their own (RFC 8446 B.4)."""
    at = _behind(hello, _SESSION_ID, 1)
    version = hello[_VERSION : _VERSION + 2]
    if version == _TLS_1_2:
        if len(hello) < at + 2:
            return None, ()
        if hello[at] == _CIPHER_OF_TLS_1_3:
            return "1.3", ()
    extensions, _ = _extensions(hello, at + 3)
    return _VERSIONS.get(version), tuple(_protocols(extensions.get(Extension.ALPN, b"")))


def _behind(data: bytes, at: int, width: int) -> int:
    """Where a vector at ``at`` ends whose length takes ``width`` bytes; beyond the data if that was cut."""
    length = data[at : at + width]
    return at + width + int.from_bytes(length, "big") if len(length) == width else len(data) + 1


def _extensions(data: bytes, at: int) -> tuple[dict[int, bytes], bool]:
    """The extensions (RFC 8446 4.2) of the block at ``at``, the first of each type, and whether none that is
    read was cut."""
    found: dict[int, bytes] = {}
    end = _behind(data, at, 2)
    if at + 2 > len(data):
        return found, False
    at += 2
    while at < end:
        header = data[at : at + 4]
        number, behind = int.from_bytes(header[:2], "big"), at + 4 + int.from_bytes(header[2:], "big")
        if len(header) < 4 or (behind > len(data) and number in _READ):
            return found, False
        found.setdefault(number, data[at + 4 : behind])
        at = behind
    return found, True


def _server_name(extension: bytes) -> str | None:
    """RFC 6066 3: a list, of which there only ever was one kind of entry."""
    name = extension[5 : 5 + int.from_bytes(extension[3:5], "big")].lower()
    if extension[2:3] != b"\0" or len(name) > _HOST_NAME_LIMIT or not _HOST_NAME.fullmatch(name):
        return None
    return name.decode()


def _protocols(extension: bytes) -> Iterator[str]:
    """RFC 7301 3.1."""
    at = 2
    while at < len(extension):
        name = extension[at + 1 : at + 1 + extension[at]]
        if name in _PROTOCOLS:
            yield name.decode()
        at += 1 + extension[at]
