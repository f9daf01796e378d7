"""What parsers see in the heads of an exchange: that it is theirs, and that it holds more than one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from wirespan.pipeline.spans import Fragment, SpanKind
from wirespan.receiver.protocols.parser import Endpoint, Parser
from wirespan.receiver.protocols.registry import HTTP1_PARSER, RESP_PARSER

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GET = b"GET /path?token=secret HTTP/1.1\r\nHost: secret.example\r\n\r\n"
PLAIN = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


#: by parser: heads of a request and its response
RECOGNISED = {
    HTTP1_PARSER: [
        (GET, b""),
        (GET, OK),
        (b"GET /", b""),
        (b"POST /a", OK),
        (b"DELETE /a HTT", b"HTTP"),
        (b"CONNECT host:44", b""),
        (b"OPTIONS *", b""),
        (b"PURGE /p HTTP/1.1\r\nHost: h\r\n", b""),
        (b"GET / HTTP/1.0\n\n", b""),
        (b"rest of a body", OK),
    ],
    RESP_PARSER: [
        (command(b"GET", b"k"), b""),
        (command(b"GET", b"k"), b"$1\r\nv\r\n"),
        (b"*1\r\n$", b""),
        (b"*100\r\n$4\r\nMSE", b"+OK\r\n"),
        (b"PING\r\n", b"+PONG\r\n"),
        (b"set key value\r\n", b"+OK\r\n"),
        (b"GET /key\r\n", b"$-1\r\n"),
        (b"INFO\n", b"$3\r\nabc\r\n"),
    ],
}
REFUSED = {
    HTTP1_PARSER: [
        (b"", b""),
        (b"GET ", b""),
        (b"GET", OK[:4]),
        (b"GET /\r\n", b""),
        (b"GET /key\r\n", b"$-1\r\n"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        (b"DESCRIBE rtsp://h/ RTSP/1.0\r\n", b"RTSP/1.0 200 OK\r\n"),
        (b"INVITE sip:a@b SIP/2.0\r\n", b"SIP/2.0 200 OK\r\n"),
        (b"GET /cut", b"\x00\x01"),
        (b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x03"),
        (b"HTTP/1.1 200 OK\r\n", b""),
        (b"", b"HTTP/1.1"),
    ],
    RESP_PARSER: [
        (b"", b"+OK\r\n"),
        (b"*1\r\n", b"+OK\r\n"),
        (b"*0\r\n$1", b""),
        (b"*x\r\n$1\r\n", b""),
        (command(b"GET", b"k"), b"HTTP/1.1 400\r\n"),
        (b"PING\r\n", b""),
        (b"get key\r\n", b"END\r\n"),
        (b"QUIT\r\n", b"+OK\r\n"),
        (b"AUTH secret\r\n", b"-ERR no such\r\n"),
        (b"USER secret\r\n", b"+OK\r\n"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
}

#: by parser: heads of requests
SEVERAL = {
    HTTP1_PARSER: [
        PLAIN + PLAIN,
        PLAIN + b"\r\n" + PLAIN[:5],
        PLAIN + b"P",
        POST + PLAIN,
    ],
    RESP_PARSER: [
        b"PING\r\nPING\r\n",
        b"ping\nget k",
        b"PING\r\n" + command(b"GET", b"k"),
    ],
}
SINGLE = {
    HTTP1_PARSER: [
        POST.replace(b"hello", b"hel"),
        PLAIN,
        PLAIN[:-2],
        POST,
        PLAIN + b"\r\n",
        PLAIN + b"\x81\x05hello",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 999\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"CONNECT h:1 HTTP/1.1\r\n\r\nEHLO there\r\n",
        b"",
    ],
    RESP_PARSER: [
        b"PING\r\n",
        b"PING\r\n\r\n",
        b"GET a",
        command(b"SET", b"k", b"PING\r\nPING\r\n"),
    ],
}


def cases(table: Mapping[Any, Sequence[Any]]) -> list[Any]:
    return [
        pytest.param(parser, case, id=f"{parser.name}-{i}") for parser, of in table.items() for i, case in enumerate(of)
    ]


@pytest.mark.parametrize(("parser", "heads"), cases(RECOGNISED))
def test_a_protocol_is_recognised(parser: Parser, heads: tuple[bytes, bytes]) -> None:
    assert parser.recognises(*heads)


@pytest.mark.parametrize(("parser", "heads"), cases(REFUSED))
def test_what_is_of_another_protocol_is_not_recognised(parser: Parser, heads: tuple[bytes, bytes]) -> None:
    assert not parser.recognises(*heads)


def fragment(parser: Parser, request: bytes) -> Fragment:
    return parser.fragment(parser.summarise(request, b""), SpanKind.SERVER, Endpoint("10.0.0.1", 80))


@pytest.mark.parametrize(("parser", "request_head"), cases(SEVERAL))
def test_an_exchange_whose_head_shows_another_request_is_marked_and_named_by_the_first(
    parser: Parser, request_head: bytes
) -> None:
    found = fragment(parser, request_head)
    assert found.attributes[-1] == ("wirespan.exchange.pipelined", True)
    first = (
        POST if request_head.startswith(POST) else PLAIN if request_head.startswith(PLAIN) else request_head.split()[0]
    )
    alone = fragment(parser, first)
    assert (found.name, found.attributes[:-1]) == (alone.name, alone.attributes)


@pytest.mark.parametrize(("parser", "request_head"), cases(SINGLE))
def test_what_is_no_second_request_marks_nothing(parser: Parser, request_head: bytes) -> None:
    assert "wirespan.exchange.pipelined" not in dict(fragment(parser, request_head).attributes)
