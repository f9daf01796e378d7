"""Fuzzing of the keys of heads: whatever the heads are, a span says of them what the parsers say.

One translator sees them all, so that a key which leaves out something that matters would give a span what an earlier
one said. Heads are built of the parts that protocols are made of, damaged and cut at random; seeds are as in
test_fuzz_protocols.py.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from support import tls
from support.fuzzing import bounded_runs, damaged
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import Fragment, SpanBatch, SpanKind
from wirespan.receiver import operations
from wirespan.receiver.clock import Clock
from wirespan.receiver.exchanges import ExchangeTranslator
from wirespan.receiver.ids import DEFAULT_KEY, IdSource
from wirespan.receiver.kernel.btf import shortened
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import REQUEST_HEAD_SHORT, abi_of, object_path
from wirespan.receiver.process import ProcessTable
from wirespan.receiver.protocols.parser import Endpoint, Parser
from wirespan.receiver.protocols.redis_commands import COMMANDS, CONTAINERS, ERROR_CODES
from wirespan.receiver.protocols.registry import HTTP2_PARSER, TLS_PARSER, recognise

_RECORDS = 500
_SERVERS = ((SpanKind.SERVER, "10.0.0.2"), (SpanKind.CLIENT, "10.0.0.2"), (SpanKind.CLIENT, "2001:db8::2"))

_METHODS = b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY get BREW M-SEARCH *1 A$B".split()
_TARGETS = b"/ /a /a/b?c=d /a?b;c /a;b=c/d /%7Ea //x /? /# * h:1 http://h/a http://h HTTP://h?q /a?HTTP/1.1".split()
_TARGETS += ["/ä".encode(), b"/\xff", b"/\0", b"/" + b"x" * 300]
_VERSIONS = [
    b"HTTP/1.1\r\n",
    b"HTTP/1.0\r\n",
    b"HTTP/1.1\n",
    b"HTTP/2.0\r\n",
    b"HTTP/1.2\r\n",
    b"http/1.1\r\n",
    b"\r\n",
]
_STATUSES = b"200 404 503 101 100 199 99 999 000 20 2000 2x0 \xb2\xb2\xb2".split()
_WORDS = [
    *COMMANDS,
    *(word.lower() for word in CONTAINERS),
    *CONTAINERS * 9,
    b"SETNAME",
    b"Get",
    b"gEt",
    b"key:1",
    b"",
    b"a b",
]
_SUBWORDS = [*b"SETNAME getname GET HELP List NODES x".split(), b"", b"\r\n", b"a" * 40]
_REPLIES = [
    b"+OK\r\n",
    b":1\r\n",
    b"$3\r\nabc\r\n",
    b"$-1\r\n",
    b"*0\r\n",
    b"!3\r\nERR\r\n",
    b">1\r\n",
    b"",
    b"\0",
    b"_\r\n",
]
_REPLIES += [b"-%s x\r\n" % code for code in ERROR_CODES] + [
    b"-\r\n",
    b"- ERR\r\n",
    b"-ERR",
    b"-ERR\r\n",
    b"-x\r ERR\r\n",
]


_HEADERS = (
    b"Content-Length: 3",
    b"content-length:0",
    b"Content-Length: 3 ",
    b"CONTENT-LENGTH : 3",
    b"Content-Length: x",
)
_HEADERS += (b"Host: h", b"Host: h", b"X:\r\rContent-Length: 1", b"Transfer-Encoding: chunked", b"Content-Length:")
_BEHIND = (
    b"",
    b"",
    b"abc",
    b"abcGET ",
    b"GET /b HTTP/1.1\r\n\r\n",
    b"GET",
    b"{}",
    b"\r\n\nPOST /",
    b"abc\r\nHEAD",
    b"\n",
    b"\r",
)


def http_request(source: random.Random) -> bytes:
    line = b" ".join(source.choice(parts) for parts in (_METHODS, _TARGETS, _VERSIONS))
    if source.random() < 0.5:
        return line + source.choice((b"", b"Host: h\r\n\r\n"))
    line = source.choice((b"GET /a HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"CONNECT /x HTTP/1.1\r\n"))
    headers = b"".join(source.choice(_HEADERS) + b"\r\n" for _ in range(source.randrange(3)))
    return line + headers + b"\r\n" + source.choice(_BEHIND)


def http_response(source: random.Random) -> bytes:
    version = source.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.x", b"HTTP/2"))
    interim = source.choice((b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n"))
    return interim + version + b" " + source.choice(_STATUSES) + source.choice((b" OK\r\n", b"\r\n", b""))


def bulk(source: random.Random, word: bytes) -> bytes:
    length = len(word) if source.random() < 0.95 else source.randrange(40)
    return source.choice((b"$%d\r\n%s\r\n", b"$%d\r\n%s\r\n", b"$0%d\r\n%s\r\n", b"+%d\r\n%s\r\n")) % (length, word)


def redis_request(source: random.Random) -> bytes:
    words = [source.choice(_WORDS), source.choice(_SUBWORDS), b"v"][: source.randint(1, 3)]
    if source.random() < 0.1:
        return b" ".join(words) + b"\r\n"
    return b"*%d\r\n" % source.choice((len(words), 0, 12345678)) + b"".join(bulk(source, word) for word in words)


def dns_message(source: random.Random, flags: tuple[bytes, ...]) -> bytes:
    counts = source.choice((b"\0\1\0\0\0\0\0\0", b"\0\1\0\0\0\0\0\1", b"\0\1\0\1\0\0\0\0", b"\0\0\0\0\0\0\0\0"))
    question = source.choice((b"\3www\3org\0", b"\0", b"\x3f" + b"a" * 63 + b"\0", b"\xc0\x0c", b"\4a.b\xff\0"))
    ids = source.choice((b"\x12\x34", b"\x12\x34", b"GE", source.randbytes(2)))
    message = ids + source.choice(flags) + counts + question + source.choice((b"\0\1\0\1", b"\0\x1c\0\1", b"\0\1\0\7"))
    return source.choice((b"", b"", len(message).to_bytes(2, "big"), b"\0\0")) + message


def dns_request(source: random.Random) -> bytes:
    return dns_message(source, (b"\1\0", b"\0\0", b"\1\x20", b"\x28\0", b"\x81\x80", b"\1\2"))


def dns_response(source: random.Random) -> bytes:
    return dns_message(source, (b"\x81\x80", b"\x81\x83", b"\x83\x80", b"\x81\x85", b"\1\0"))


def tls_request(source: random.Random) -> bytes:
    names = (None, b"shop.test", b"Shop.Test", b"a b", b"")
    protocols = (b"h2", b"http/1.1", b"\x0a\x0a", b"other")
    others = [tls.extension(source.choice((0, 10, 16, 51)), source.randbytes(source.choice((0, 4, 60, 200))))]
    request = tls.client_hello(
        source.choice(names),
        source.choices(protocols, k=source.randrange(3)),
        source.choice((b"", bytes(32))),
        source.choice(((), others)),
        source.choice(((), others)),
    )
    return source.choice((b"", b"", b"", source.randbytes(36))) + request


def tls_response(source: random.Random) -> bytes:
    if source.random() < 0.2:
        return tls.fatal_alert(source.randrange(256))
    version, cipher = source.choice((b"\3\1", b"\3\3", b"\3\3")), source.choice((b"\x13\x01", b"\xc0\x2f"))
    return tls.server_hello(version, cipher, source.choice((b"", bytes(32))), source.choice((None, b"h2", b"other")))


def opaque_heads(source: random.Random) -> tuple[bytes, bytes]:
    """Of a connection that the kernel says is TLS."""
    if source.random() < 0.1:
        return heads(source)
    request, response = tls_request(source), tls_response(source)
    if source.random() < 0.3:
        request, response = damaged(source, request), damaged(source, response)
    if source.random() < 0.3:
        request, response = request[: source.randrange(300)], response[: source.randrange(100)]
    return request, response


def binary(source: random.Random) -> bytes:
    return source.choice((b"Q\0\0\0\x0cSELECT 1", b"\x16\x03\x01", b"user x\r\n", b"", source.randbytes(30)))


def heads(source: random.Random) -> tuple[bytes, bytes]:
    """A request and a response, mostly of one protocol, as far as they were captured."""
    requests = (http_request, redis_request, dns_request, binary)
    responses = (http_response, lambda source: source.choice(_REPLIES), dns_response, binary)
    protocol = source.randrange(4)
    other = protocol if source.random() < 0.9 else source.randrange(4)
    request, response = requests[protocol](source), responses[other](source)
    if source.random() < 0.3:
        request, response = damaged(source, request), damaged(source, response)
    if source.random() < 0.2:
        request, response = request[: source.randrange(80)], response[: source.randrange(20)]
    return request[:256], response[:64]


class Translation:
    """A translator, and what it has to say."""

    def __init__(self) -> None:
        with BpfObject.open(object_path()) as programs:
            self.dtype, abi = programs.btf.dtype("exchange"), abi_of(programs.btf)
            self.protocols = programs.btf.enum("protocol")
        counters = Counters()
        ids, processes = IdSource(DEFAULT_KEY, 1), ProcessTable(counters)
        self.translator = ExchangeTranslator(abi, Clock(counters), ids, processes, counters)

    def batch(self, exchanges: list[tuple[bytes, bytes]], protocol: str = "PROTOCOL_UNKNOWN") -> SpanBatch:
        short = all(len(request) <= REQUEST_HEAD_SHORT for request, _ in exchanges)
        records = np.zeros(len(exchanges), shortened(self.dtype, REQUEST_HEAD_SHORT) if short else self.dtype)
        connection = records["connection"]
        records["protocol"] = self.protocols[protocol]
        for row, (request, response) in enumerate(exchanges):
            kind, address = _SERVERS[row % len(_SERVERS)]
            connection[row]["cookie"] = 1 + row % len(_SERVERS)
            connection[row]["role"] = 2 if kind is SpanKind.SERVER else 1
            end = "local" if kind is SpanKind.SERVER else "remote"
            connection[row][f"{end}_address"] = packed(address)
            connection[row][f"{end}_port"] = 80
            for side, head in (("request", request), ("response", response)):
                records[row][f"{side}_head"] = 0x41  # what lies behind the captured bytes is stale
                records[row][f"{side}_head"][: len(head)] = np.frombuffer(head, np.uint8)
                records[row][f"{side}_captured"] = len(head)
        return self.translator.batch(records)


def packed(address: str) -> np.ndarray:
    mapped = bytes(10) + b"\xff\xff" + bytes(map(int, address.split("."))) if "." in address else None
    return np.frombuffer(mapped or bytes.fromhex("20010db8" + "0" * 23 + "2"), np.uint8)


def said(batch: SpanBatch, row: int) -> tuple[Any, ...]:
    """Name, status and attributes of a span, as far as they come from the heads."""
    column = batch.fragments[1]
    fragment = column.table.fragments[column.ids[row]]
    texts = {name: text for name, column in batch.texts.items() if (text := column.text(row)) is not None}
    assert not texts.keys() & dict(fragment.attributes).keys()
    return fragment.name, fragment.status, dict(fragment.attributes) | texts


def expected(request: bytes, response: bytes, row: int, told: Parser | None = None) -> tuple[Any, ...]:
    kind, address = _SERVERS[row % len(_SERVERS)]
    parser = told or recognise(request, response)
    fragment = Fragment("TCP 80")
    if parser is not None:
        fragment = parser.fragment(parser.summarise(request, response), kind, Endpoint(address, 80))
    return fragment.name, fragment.status, dict(fragment.attributes)


@pytest.mark.parametrize("ask_all", [False, True])
def test_a_span_says_what_the_parsers_say_of_its_heads(ask_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if ask_all:  # as if a package had brought a parser: nothing is unknown at a glance
        monkeypatch.setattr(operations, "PARSERS", (*operations.PARSERS, object()))
    translation = Translation()
    for source in bounded_runs():
        exchanges = [heads(source) for _ in range(_RECORDS)]
        batch = translation.batch(exchanges)
        for row, (request, response) in enumerate(exchanges):
            assert said(batch, row) == expected(request, response, row), (request, response)


def test_a_span_says_what_the_parser_says_that_the_kernel_tells() -> None:
    translation = Translation()
    for source in bounded_runs():
        exchanges = [(request[:256], response[:80]) for request, response in map(opaque_heads, [source] * _RECORDS)]
        for parser, protocol in ((TLS_PARSER, "PROTOCOL_TLS"), (HTTP2_PARSER, "PROTOCOL_HTTP2")):
            batch = translation.batch(exchanges, protocol)
            for row, (request, response) in enumerate(exchanges):
                assert said(batch, row) == expected(request, response, row, parser), (request, response)


def test_a_handshake_is_asked_for_once_however_often_its_randoms_change() -> None:
    translation, source = Translation(), random.Random(1)
    answer = tls.server_hello()[:80]
    hellos = [tls.client_hello(session=source.randbytes(32)) for _ in range(100)]
    randomised = [(hello[:11] + source.randbytes(32) + hello[43:], answer) for hello in hellos]
    translation.batch(randomised, "PROTOCOL_TLS")
    assert translation.translator.operations._by_key._table.count == len(_SERVERS)


def test_an_exchange_cut_at_any_byte_is_what_the_parsers_say() -> None:
    translation = Translation()
    whole = [
        (b"GET /shop/item?q=1 HTTP/1.1\r\nHost: h\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$1\r\nx\r\n", b"-ERR no\r\n"),
        (
            bytes.fromhex("1234010000010000000000000377777703636f6d0000010001"),
            bytes.fromhex("1234818300010000000000000377777703636f6d0000010001"),
        ),
    ]
    for request, response in whole:
        cut = [(request[:end], response) for end in range(len(request) + 1) for _ in _SERVERS]
        cut += [(request, response[:end]) for end in range(len(response) + 1) for _ in _SERVERS]
        batch = translation.batch(cut)
        for row, heads_cut in enumerate(cut):
            assert said(batch, row) == expected(*heads_cut, row), heads_cut


def test_a_request_that_fills_its_record_is_read_to_its_end_and_no_further() -> None:
    translation = Translation()
    for length in range(REQUEST_HEAD_SHORT):
        request = (b"GET /%s?q HTTP/1.1\r\nHost: h" % (b"a" * length))[:REQUEST_HEAD_SHORT]
        exchange = request.ljust(REQUEST_HEAD_SHORT, b"x"), b"HTTP/1.1 200 OK\r\n"
        assert said(translation.batch([exchange]), 0) == expected(*exchange, 0)


def test_more_captured_bytes_than_a_record_has_room_for_are_not_believed() -> None:
    translation = Translation()
    records = np.zeros(3, shortened(translation.dtype, REQUEST_HEAD_SHORT))
    records["connection"]["role"] = 2
    records["request_head"] = np.frombuffer(b"GET /".ljust(REQUEST_HEAD_SHORT, b"a"), np.uint8)
    records["response_head"] = np.frombuffer(b"HTTP/1.1 200 ".ljust(80, b"x"), np.uint8)
    records["request_captured"] = records["response_captured"] = 65_535
    fragment = translation.translator.batch(records).fragments[1]
    assert {fragment.table.fragments[index].name for index in fragment.ids.tolist()} == {"GET"}
