"""Fuzzing of the protocol parsers: nothing raises, nothing leaks, nothing grows.

Streams are built of the fragments that protocols are made of, damaged at random, cut at random, with gaps. Each run
draws new ones from a seed that is printed when a test fails; ``WIRESPAN_FUZZ_SEED`` repeats it and
``WIRESPAN_FUZZ_SECONDS`` lasts longer (default: 1 second a test).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.conversations import Feed
from support.fuzzing import bounded_runs, damaged
from wirespan.pipeline.spans import Fragment, SpanKind
from wirespan.receiver.protocols.ordered import PENDING_LIMIT
from wirespan.receiver.protocols.parser import Endpoint, Parser, SegmentParser, StreamExchange
from wirespan.receiver.protocols.registry import HTTP2_PARSER, RESP_PARSER
from wirespan.receiver.protocols.registry import PARSERS as ASKED
from wirespan.receiver.protocols.stream import TAIL_LIMIT

SERVER = Endpoint("10.0.0.1", 80)
KINDS = (SpanKind.SERVER, SpanKind.CLIENT)
PARSERS: tuple[Parser, ...] = (*ASKED, HTTP2_PARSER)
#: those of the protocols that have a segment mode
SEGMENT_PARSERS: tuple[SegmentParser, ...] = (RESP_PARSER,)
#: stands where only payload can stand; long enough never to come about by chance
SECRET = "sEcReT0xC0FFEE"

REQUEST_PARTS = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD /a?q HTTP/1.0\r\n\r\n",
    b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"CONNECT h:1 HTTP/1.1\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n",
    b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n",
    b"*1\r\n$11\r\nUNSUBSCRIBE\r\n",
    b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n",
    b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n",
    b"*1\r\n$7\r\nMONITOR\r\n",
    b"*1\r\n$5\r\nRESET\r\n",
    b"*1\r\n$5\r\nPSYNC\r\n",
    b"ping\r\n",
    bytes.fromhex("1234010000010000000000000377777703636f6d0000010001"),
    bytes.fromhex("00191234010000010000000000000377777703636f6d00001c0001"),
]
RESPONSE_PARTS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 X\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\nT: 1\r\n\r\n",
    b"+OK\r\n",
    b"+1.1 monitor\r\n",
    b"-ERR x\r\n",
    b":12\r\n",
    b"$3\r\nabc\r\n",
    b"$-1\r\n",
    b"*2\r\n:1\r\n*0\r\n",
    b"%1\r\n+a\r\n_\r\n",
    b"|1\r\n+a\r\n+b\r\n",
    b"*?\r\n.\r\n",
    b"$?\r\n;1\r\na\r\n;0\r\n",
    b"!3\r\nERR\r\n",
    b">2\r\n$7\r\nmessage\r\n+x\r\n",
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    bytes.fromhex("1234818300010000000000000377777703636f6d0000010001"),
    bytes.fromhex("00191234818000010000000000000377777703636f6d00001c0001"),
]


def drawn(source: random.Random, parts: list[bytes]) -> bytes:
    chosen = source.choices(parts, k=source.randint(1, 5)) if source.random() < 0.9 else [source.randbytes(50)]
    return damaged(source, b"".join(chosen))


def converse(source: random.Random, feed: Feed) -> None:
    for _ in range(source.randint(1, 30)):
        is_request = source.random() < 0.5
        data = drawn(source, REQUEST_PARTS if is_request else RESPONSE_PARTS)
        captured = None if source.random() < 0.9 else source.randrange(len(data) + 1)
        (feed.request if is_request else feed.response)(data, captured)
        if source.random() < 0.05:
            feed.connection.quiet()
        if source.random() < 0.05:
            feed.time_out()
    feed.finish()


def emitted(parser: Parser, exchange: StreamExchange) -> Iterator[Fragment]:
    for kind in KINDS:
        yield parser.fragment(exchange.summary, kind, SERVER)


def check_positions(found: list[StreamExchange]) -> None:
    """What the receiver relies on: in order, not overlapping, not empty."""
    for before, after in pairwise(found):
        assert before.request_end <= after.request_start
        assert before.response_end <= after.response_start
    for exchange in found:
        assert exchange.request_start < exchange.request_end
        assert exchange.response_start < exchange.response_end


@pytest.mark.parametrize("parser", SEGMENT_PARSERS, ids=lambda parser: parser.name)
def test_damaged_streams_raise_nothing_and_give_ordered_positions(parser: SegmentParser) -> None:
    for source in bounded_runs():
        feed = Feed(parser.connection())
        converse(source, feed)
        check_positions(feed.found)
        for exchange in feed.found:
            for fragment in emitted(parser, exchange):
                assert all(text.isprintable() for text in strings(fragment))


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_damaged_heads_raise_nothing(parser: Parser) -> None:
    for source in bounded_runs():
        for _ in range(100):
            request, response = drawn(source, REQUEST_PARTS)[:256], drawn(source, RESPONSE_PARTS)[:64]
            parser.recognises(request, response)
            summary = parser.summarise(request, response)
            hash(summary)
            for kind in KINDS:
                assert parser.fragment(summary, kind, SERVER).name


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_random_bytes_are_of_no_protocol(parser: Parser) -> None:
    for source in bounded_runs():
        for _ in range(1000):
            assert not parser.recognises(source.randbytes(64), source.randbytes(64))


@pytest.mark.parametrize("parser", SEGMENT_PARSERS, ids=lambda parser: parser.name)
def test_no_stream_makes_a_connection_grow(parser: SegmentParser) -> None:
    for source in bounded_runs():
        feed = Feed(parser.connection())
        data = drawn(source, REQUEST_PARTS) * 400
        reply = drawn(source, RESPONSE_PARTS) * 400
        for _ in range(20):
            feed.request(data)
            feed.response(reply)
            feed.found.clear()
        assert feed.connection.pending() <= 2 * PENDING_LIMIT
        streams = feed.connection._requests, feed.connection._responses  # type: ignore[attr-defined]
        assert all(len(stream._tail) <= TAIL_LIMIT for stream in streams)


def strings(fragment: Fragment) -> Iterator[str]:
    yield fragment.name or ""
    for key, value in fragment.attributes:
        yield key
        yield str(value)


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def with_secret(secret: bytes) -> list[tuple[bytes, bytes]]:
    """Exchanges with a secret wherever only payload stands."""
    http_ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    lines = [
        b"GET /p?t=%b HTTP/1.1",
        b"GET /p#%b HTTP/1.1",
        b"GET /p;jsessionid=%b/q HTTP/1.1",
        b"GET http://u:%b@h/p HTTP/1.1",
        b"GET http://%b/p HTTP/1.1",
        b"CONNECT %b:443 HTTP/1.1",
        b"%b /p HTTP/1.1",
        b"GET %b HTTP/1.1",
        b"GET /p HTTP/1.1\r\nAuthorization: Bearer %b\r\nHost: %b",
        b"POST /p HTTP/1.1\r\nContent-Length: 14\r\n\r\n%b",
    ]
    exchanges = [(line.replace(b"%b", secret) + b"\r\n\r\n", http_ok) for line in lines]
    exchanges.append((b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 500 %b\r\nSet-Cookie: %b\r\n\r\n%b" % ((secret,) * 3)))
    for words in (
        [secret],
        [b"GET", secret],
        [b"SET", b"k", secret],
        [b"AUTH", secret],
        [b"CLIENT", secret],
        [b"CLIENT", b"REPLY", secret],
        [b"SUBSCRIBE", secret],
        [secret, secret],
    ):
        request = b"*%d\r\n" % len(words) + b"".join(map(bulk, words))
        for reply in (b"+%b\r\n", b"-%b x\r\n", b"-ERR %b\r\n", b"$14\r\n%b\r\n", b"*1\r\n+%b\r\n", b"!14\r\n%b\r\n"):
            exchanges.append((request, reply.replace(b"%b", secret)))
    exchanges.append((b"%b x\r\n" % secret, b"+OK\r\n"))
    exchanges.append((b"PING %b\r\n" % secret, b"+%b\r\n" % secret))
    return exchanges


@pytest.mark.parametrize("secret", [SECRET, SECRET.upper(), SECRET.lower()])
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_no_secret_is_emitted_however_the_heads_are_cut(parser: Parser, secret: str) -> None:
    for request, response in with_secret(secret.encode()):
        for length in range(len(request) + 1):
            for head in (response, b"", response[: length // 2]):
                summary = parser.summarise(request[:length], head)
                for kind in KINDS:
                    assert not leaked(parser.fragment(summary, kind, SERVER), secret)


def leaked(fragment: Fragment, secret: str) -> bool:
    """Whether a part of the secret of more than 5 letters is in anything emitted."""
    text = "\n".join(strings(fragment)).upper()
    return any(secret[at : at + 6].upper() in text for at in range(len(secret) - 5))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(with_secret(SECRET.encode())), min_size=1, max_size=12),
    st.integers(1, 80),
    st.integers(0, 60),
)
@pytest.mark.parametrize("parser", SEGMENT_PARSERS, ids=lambda parser: parser.name)
def test_no_secret_is_emitted_in_segment_mode(
    parser: SegmentParser, exchanges: list[tuple[bytes, bytes]], size: int, captured: int
) -> None:
    feed = Feed(parser.connection())
    for request, response in exchanges:
        for at in range(0, len(request), size):
            feed.request(request[at : at + size], captured or None)
        feed.response(response)
    for exchange in feed.finish():
        for fragment in emitted(parser, exchange):
            assert not leaked(fragment, SECRET)
