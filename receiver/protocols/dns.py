"""DNS (RFC 1035): a question, an answer, over UDP, and over TCP with two bytes of length before each message (4.2.2).

Of a message its header and its question are read; what follows the question is not: answers are not emitted, and the first
bytes that are captured seldom hold them. The conventions for DNS have the question's name and, for what failed, the codes of
getaddrinfo; there are none for spans, so these are named by the type of the question, of which there are few.

A name that does not exist is an error of the client, as in HTTP a page that does not: its server has done its work. The
server's own failure is an error at both ends.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import IntEnum
from typing import Final, NamedTuple, cast

from ...pipeline.spans import AttributeValue, Fragment, SpanKind, StatusCode
from .parser import Endpoint, Pipelined, ProtocolName, marked_as_pipelined

_HEADER: Final = 12
_QUESTION_LEAST: Final = 5
_LABEL_LIMIT: Final = 63
_NAME_LIMIT: Final = 255  # with the root
_CACHE_FLUSH: Final = 0x8000  # of a class in multicast DNS (RFC 6762 5.4)


class Opcode(IntEnum):
    """RFC 1035 4.1.1, RFC 1996, RFC 2136."""

    QUERY = 0
    IQUERY = 1
    STATUS = 2
    NOTIFY = 4
    UPDATE = 5


class Rcode(IntEnum):
    """RFC 1035 4.1.1, RFC 2136 2.2; of what fits into the header."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    YXDOMAIN = 6
    YXRRSET = 7
    NXRRSET = 8
    NOTAUTH = 9
    NOTZONE = 10
    DSOTYPENI = 11


class Type(IntEnum):
    """Types of questions that are asked for: what a span may be named by."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    MX = 15
    TXT = 16
    AAAA = 28
    LOC = 29
    SRV = 33
    NAPTR = 35
    DS = 43
    SSHFP = 44
    RRSIG = 46
    NSEC = 47
    DNSKEY = 48
    TLSA = 52
    CDS = 59
    SVCB = 64
    HTTPS = 65
    IXFR = 251
    AXFR = 252
    ANY = 255
    CAA = 257


#: IN, CH, HS, NONE, ANY
_CLASSES: Final = frozenset((1, 3, 4, 254, 255))
#: as getaddrinfo and gethostbyname call them; every other one is no_recovery
_ERROR_TYPES: Final = {Rcode.NXDOMAIN: "host_not_found", Rcode.SERVFAIL: "try_again"}
_TYPES: Final = {member.value: member.name for member in Type}
_RCODES: Final = {member.value: member.name for member in Rcode}


class Summary(NamedTuple):
    """name: None if it was not captured whole; type, rcode: the same, or no response; truncated: the TC bit."""

    opcode: int
    name: str | None
    type: int | None
    rcode: int | None
    truncated: bool


class _Query(NamedTuple):
    """What is read of a query; behind: what its length leaves over of a TCP head."""

    id: bytes
    opcode: int
    name: str | None
    type: int | None
    behind: bool


class DnsParser:
    """See :class:`~.parser.Parser`."""

    name = ProtocolName.DNS.value

    def recognises(self, request: bytes, response: bytes) -> bool:
        return _read(request, response) is not None

    def summarise(self, request: bytes, response: bytes) -> Hashable:
        read = _read(request, response)
        if read is None:
            return Summary(Opcode.QUERY, None, None, None, False)
        query, flags = read
        rcode = None if flags is None else flags & 0xF
        summary = Summary(query.opcode, query.name, query.type, rcode, bool(flags and flags & 0x200))
        return Pipelined(summary) if query.behind else summary

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        if isinstance(summary, Pipelined):
            return marked_as_pipelined(self.fragment(summary.first, kind, server))
        opcode, name, question_type, rcode, truncated = cast(Summary, summary)
        attributes: list[tuple[str, AttributeValue]] = [("network.protocol.name", self.name)]
        if name is not None:
            attributes.append(("dns.question.name", name))
        if question_type is not None:
            attributes.append(("wirespan.dns.question.type", _TYPES.get(question_type, f"TYPE{question_type}")))
        if rcode is not None:
            attributes.append(("wirespan.dns.response.code", _RCODES.get(rcode, f"RCODE{rcode}")))
        if truncated:
            attributes.append(("wirespan.dns.truncated", True))
        is_error = bool(rcode) if kind is SpanKind.CLIENT else rcode == Rcode.SERVFAIL
        if is_error:
            attributes.append(("error.type", _ERROR_TYPES.get(cast(Rcode, rcode), "no_recovery")))
        status = StatusCode.ERROR if is_error else StatusCode.UNSET
        return Fragment(_span_name(opcode, question_type), tuple(attributes), status)


def _span_name(opcode: int, question_type: int | None) -> str:
    if opcode in (Opcode.NOTIFY, Opcode.UPDATE):
        return f"DNS {Opcode(opcode).name}"
    known = _TYPES.get(question_type) if question_type is not None else None
    return f"DNS {known}" if known else "DNS"


def _read(request: bytes, response: bytes) -> tuple[_Query, int | None] | None:
    """The query and the flags of its response, None if there is none; None altogether if these are no such messages."""
    for prefix in (0, 2):
        query = _query(request, prefix)
        if query is not None:
            answer = response[prefix:]
            if not response:
                return query, None
            if len(answer) >= 4 and answer[:2] == query.id and answer[2] & 0x80:
                return query, int.from_bytes(answer[2:4], "big")
    return None


def _query(data: bytes, prefix: int) -> _Query | None:
    """A query at `prefix` of a head: its header as bpf/datagram.h reads it, and a question that it does not belie."""
    message = data[prefix:]
    if len(message) < _HEADER + _QUESTION_LEAST:
        return None
    opcode = message[2] >> 3 & 15
    if message[2] & 0x80 or message[3] & 0x4F or opcode not in (0, 1, 2, 4, 5):
        return None
    if message[4:7] != b"\0\1\0" or message[8] or message[10] or (opcode == Opcode.QUERY and message[7] | message[9]):
        return None
    behind = False
    if prefix:
        size = int.from_bytes(data[:prefix], "big")
        if size < _HEADER + _QUESTION_LEAST:
            return None
        behind = size < len(message)
        message = message[:size]
    question = _question(message)
    return None if question is None else _Query(message[:2], opcode, *question, behind)


def _question(message: bytes) -> tuple[str | None, int | None] | None:
    """Name and type; both None if the capture cuts them, None altogether if it is no question."""
    labels: list[str] = []
    at = _HEADER
    while at < len(message) and message[at]:
        size = message[at]
        if size > _LABEL_LIMIT or at + size + 1 - _HEADER >= _NAME_LIMIT:
            return None
        labels.append(_label(message[at + 1 : at + 1 + size]))
        at += 1 + size
    end = at + _QUESTION_LEAST
    if end > len(message):
        return None, None
    kind, group = int.from_bytes(message[at + 1 : at + 3], "big"), int.from_bytes(message[at + 3 : end], "big")
    if group & ~_CACHE_FLUSH not in _CLASSES:
        return None
    return ".".join(labels) or ".", kind


def _label(label: bytes) -> str:
    """As zone files write it (RFC 1035 5.1): what is not printable by its number."""
    if label.isalnum():
        return label.decode("ascii")
    return "".join(
        f"\\{chr(byte)}" if byte in b'.\\"' else chr(byte) if 32 < byte < 127 else f"\\{byte:03d}" for byte in label
    )
