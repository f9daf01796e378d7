"""DNS heads: the question, the outcome, and what is no DNS; whole, cut at any byte, over UDP and TCP."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespan.pipeline.spans import Fragment, SpanKind, StatusCode
from wirespan.receiver.protocols.parser import Endpoint
from wirespan.receiver.protocols.registry import DNS_PARSER, PARSERS, recognise

SERVER = Endpoint("10.0.0.53", 53)
A, NS, SOA, AAAA, CH, IN = 1, 2, 6, 28, 3, 1
QUERY, RESPONSE, TRUNCATED = 0x0100, 0x8180, 0x0200
#: OPT of EDNS, which most resolvers add to a query (RFC 6891)
OPT = bytes.fromhex("0000291000000000000000")


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in text.encode().split(b".") if label) + b"\0"


def message(
    flags: int,
    question: str = "www.example.org",
    kind: int = A,
    *,
    group: int = IN,
    answers: int = 0,
    behind: bytes = b"",
    identity: int = 0x1234,
) -> bytes:
    header = struct.pack("!6H", identity, flags, 1, answers, 0, 1 if behind == OPT else 0)
    return header + name(question) + struct.pack("!2H", kind, group) + behind


def over_tcp(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def fragment(request: bytes, response: bytes, kind: SpanKind = SpanKind.CLIENT) -> Fragment:
    assert recognise(request, response) is DNS_PARSER
    return DNS_PARSER.fragment(DNS_PARSER.summarise(request, response), kind, SERVER)


@pytest.mark.parametrize("framed", [bytes, over_tcp], ids=["udp", "tcp"])
def test_a_span_is_named_by_the_type_and_has_the_name_asked_for(framed: type[bytes]) -> None:
    found = fragment(framed(message(QUERY, kind=AAAA, behind=OPT)), framed(message(RESPONSE, kind=AAAA, answers=1)))
    assert (found.name, found.status) == ("DNS AAAA", StatusCode.UNSET)
    assert dict(found.attributes) == {
        "network.protocol.name": "dns",
        "dns.question.name": "www.example.org",
        "wirespan.dns.question.type": "AAAA",
        "wirespan.dns.response.code": "NOERROR",
    }


@pytest.mark.parametrize(
    ("rcode", "name", "error", "servers_fault"),
    [
        (1, "FORMERR", "no_recovery", False),
        (2, "SERVFAIL", "try_again", True),
        (3, "NXDOMAIN", "host_not_found", False),
        (4, "NOTIMP", "no_recovery", False),
        (5, "REFUSED", "no_recovery", False),
        (13, "RCODE13", "no_recovery", False),
    ],
)
def test_a_failure_is_an_error_of_the_client_and_of_the_server_that_is_to_blame(
    rcode: int, name: str, error: str, servers_fault: bool
) -> None:
    for kind in SpanKind.CLIENT, SpanKind.SERVER:
        found = fragment(message(QUERY), message(RESPONSE | rcode), kind)
        attributes = dict(found.attributes)
        assert attributes["wirespan.dns.response.code"] == name
        is_error = kind is SpanKind.CLIENT or servers_fault
        assert found.status is (StatusCode.ERROR if is_error else StatusCode.UNSET)
        assert attributes.get("error.type") == (error if is_error else None)


def test_a_truncated_answer_is_marked() -> None:
    assert ("wirespan.dns.truncated", True) in fragment(message(QUERY), message(RESPONSE | TRUNCATED)).attributes


def test_a_query_without_an_answer_tells_its_question() -> None:
    found = fragment(message(QUERY), b"")
    assert found.name == "DNS A"
    assert "wirespan.dns.response.code" not in dict(found.attributes)


@pytest.mark.parametrize(("opcode", "expected"), [(4, "DNS NOTIFY"), (5, "DNS UPDATE"), (2, "DNS A")])
def test_other_operations(opcode: int, expected: str) -> None:
    assert fragment(message(opcode << 11), message(0x8000 | opcode << 11)).name == expected


@pytest.mark.parametrize("kind", [0, 99, 65400])
def test_a_type_that_is_seldom_asked_for_is_in_no_name(kind: int) -> None:
    found = fragment(message(QUERY, kind=kind), b"")
    assert found.name == "DNS"
    assert dict(found.attributes)["wirespan.dns.question.type"] == f"TYPE{kind}"


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (b"WwW", "WwW"),
        (b"_sip", "_sip"),
        (b"a.b", r"a\.b"),
        (b'q"\\', r"q\"\\"),
        (b"\0\x7f\xff ", r"\000\127\255\032"),
    ],
)
def test_a_label_is_written_as_in_zone_files(label: bytes, text: str) -> None:
    query = message(QUERY, "X").replace(b"\1X\0", bytes([len(label)]) + label + b"\0")
    assert dict(fragment(query, b"").attributes)["dns.question.name"] == text


def test_the_root_and_the_longest_name_are_names() -> None:
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    for question in (".", longest):
        assert dict(fragment(message(QUERY, question), b"").attributes)["dns.question.name"] == question
    assert not DNS_PARSER.recognises(message(QUERY, longest + "d"), b"")


@pytest.mark.parametrize("framed", [bytes, over_tcp], ids=["udp", "tcp"])
def test_of_a_query_that_the_capture_cuts_no_part_of_its_name_is_told(framed: type[bytes]) -> None:
    request, response = framed(message(QUERY)), framed(message(RESPONSE | 3))
    least = len(request) - len(message(QUERY)) + 17
    for end in range(len(request) + 1):
        recognised = DNS_PARSER.recognises(request[:end], response)
        assert recognised == (end >= least), end
        if recognised:
            attributes = dict(fragment(request[:end], response).attributes)
            assert attributes.get("dns.question.name") == ("www.example.org" if end == len(request) else None)
            assert attributes["wirespan.dns.response.code"] == "NXDOMAIN"


@pytest.mark.parametrize("framed", [bytes, over_tcp], ids=["udp", "tcp"])
def test_the_question_does_not_depend_on_how_much_of_the_answer_was_captured(framed: type[bytes]) -> None:
    request, response = framed(message(QUERY)), framed(message(RESPONSE, answers=1, behind=b"\xc0\x0c"))
    for end in range(len(framed(b"")) + 4, len(response) + 1):
        assert fragment(request, response[:end]) == fragment(request, response)


def test_two_queries_in_one_turn_of_a_connection_are_marked() -> None:
    both = over_tcp(message(QUERY)) + over_tcp(message(QUERY, kind=AAAA))
    found = fragment(both, over_tcp(message(RESPONSE)))
    assert found.name == "DNS A"
    assert ("wirespan.exchange.pipelined", True) in found.attributes


NOT_DNS = {
    "a response without its query": (b"", message(RESPONSE)),
    "two responses": (message(RESPONSE), message(RESPONSE)),
    "two queries": (message(QUERY), message(QUERY)),
    "a response with another id": (message(QUERY), message(RESPONSE, identity=0x1235)),
    "two questions": (message(QUERY).replace(b"\0\1\0\0\0\0", b"\0\2\0\0\0\0", 1), b""),
    "an opcode that is not in use": (message(3 << 11), b""),
    "a query with a response code": (message(QUERY | 2), b""),
    "a class that does not exist": (message(QUERY, group=77), b""),
    "a compressed question": (message(QUERY).replace(name("www.example.org"), b"\xc0\x0c"), b""),
    "a length that is too short": ((5).to_bytes(2, "big") + message(QUERY), b""),
    "an echo": (message(QUERY), b"\x12\x34"),
    "NTP": (b"\x23" + bytes(47), b"\x24" + bytes(47)),
    "QUIC": (bytes.fromhex("c00000000108") + bytes(40), b""),
    "zeros": (bytes(64), bytes(64)),
}


@pytest.mark.parametrize("what", NOT_DNS)
def test_what_is_no_dns_is_not_recognised(what: str) -> None:
    assert not DNS_PARSER.recognises(*NOT_DNS[what])


def test_no_other_parser_takes_dns_for_its_own() -> None:
    request, response = message(QUERY), message(RESPONSE)
    assert [parser.name for parser in PARSERS if parser.recognises(request, response)] == ["dns"]


@given(
    st.lists(st.binary(min_size=1, max_size=63), max_size=3),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.booleans(),
)
def test_a_name_of_any_bytes_can_be_read_back(labels: list[bytes], kind: int, identity: int, tcp: bool) -> None:
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    query = struct.pack("!6H", identity, QUERY, 1, 0, 0, 0) + wire + struct.pack("!2H", kind, IN)
    query = over_tcp(query) if tcp else query
    attributes = dict(DNS_PARSER.fragment(DNS_PARSER.summarise(query, b""), SpanKind.CLIENT, SERVER).attributes)
    text = attributes["dns.question.name"]
    assert isinstance(text, str)
    assert text.isascii()
    assert text.isprintable()
    assert read_back(text) == labels


def read_back(text: str) -> list[bytes]:
    """The labels of a name as zone files write it."""
    labels, at = [bytearray()], 0
    while at < len(text):
        if text[at] == "\\":
            digits = text[at + 1 : at + 4]
            number = digits.isdigit()
            labels[-1].append(int(digits) if number else ord(text[at + 1]))
            at += 4 if number else 2
        elif text[at] == ".":
            labels.append(bytearray())
            at += 1
        else:
            labels[-1].append(ord(text[at]))
            at += 1
    return [bytes(label) for label in labels if label]
