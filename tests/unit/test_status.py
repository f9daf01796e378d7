"""What the kernel tells of an exchange by its first bytes: protocol and status class, compiled for the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import binary

from support.told import (
    CLIENT_ERROR,
    DNS,
    ERROR,
    HTTP1,
    HTTP2,
    INFORMATIONAL,
    MEMCACHED,
    MYSQL,
    NONE,
    POSTGRESQL,
    REDIRECTION,
    RESP,
    SERVER_ERROR,
    SUCCESS,
    TCP,
    TLS,
    UDP,
    UNKNOWN,
    Teller,
)

QUERY = bytes.fromhex("1234010000010000000000000377777703636f6d0000010001")


@pytest.fixture(scope="module")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Teller:
    return Teller(tmp_path_factory.mktemp("host"))


@pytest.mark.parametrize(
    ("request_head", "response_head", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n", (HTTP1, SUCCESS)),
        (b"BREW /pot HTTP/1.1\r\n", b"HTTP/1.0 404 Not Found", (HTTP1, CLIENT_ERROR)),
        (b"POST /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 503 Oh no\r\n", (HTTP1, SERVER_ERROR)),
        (b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 302 Found\r\n", (HTTP1, REDIRECTION)),
        (b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 101 Switch\r\n", (HTTP1, INFORMATIONAL)),
        (b"GET /unanswered HTTP/1.1\r\n", b"", (HTTP1, NONE)),
        (b"GET /answered by something else", b"\0\1\2", (UNKNOWN, NONE)),
        (b"GET x HTTP/1.1\r\n", b"", (UNKNOWN, NONE)),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 999 OK\r\n", (UNKNOWN, NONE)),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 2", (UNKNOWN, NONE)),
        (b"\0\0\0\1x", b"\0\0\0\1y", (UNKNOWN, NONE)),
    ],
)
def test_http_is_told_by_its_status_line_or_by_an_unanswered_request(
    teller: Teller, request_head: bytes, response_head: bytes, expected: tuple[int, int]
) -> None:
    assert teller.tell(request_head, response_head) == expected


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (b"+OK\r\n", SUCCESS),
        (b"$-1\r\n", SUCCESS),
        (b"-WRONGTYPE Operation\r\n", ERROR),
        (b"!21\r\nSYNTAX", ERROR),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", REDIRECTION),
        (b"-ASK 3999 127.0.0.1:6381\r\n", REDIRECTION),
        (b"", NONE),
    ],
)
def test_redis_says_what_became_of_a_command_in_the_first_bytes(teller: Teller, response: bytes, status: int) -> None:
    assert teller.tell(b"*1\r\n$4\r\nPING\r\n", response, RESP) == (RESP, status)


@pytest.mark.parametrize("protocol", [TLS, HTTP2])
def test_what_cannot_be_read_has_no_status_whatever_it_resembles(teller: Teller, protocol: int) -> None:
    assert teller.tell(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n", protocol) == (protocol, NONE)


@pytest.mark.parametrize(("code", "status"), [(0, SUCCESS), (3, CLIENT_ERROR), (2, SERVER_ERROR), (5, SERVER_ERROR)])
def test_dns_has_a_response_code(teller: Teller, code: int, status: int) -> None:
    response = QUERY[:2] + bytes([0x81, 0x80 | code]) + QUERY[4:]
    assert teller.tell(QUERY, response, transport=UDP) == (DNS, status)
    assert teller.tell(QUERY, b"", transport=UDP) == (DNS, NONE)
    assert teller.tell(QUERY, response, transport=TCP) == (UNKNOWN, NONE)


@given(request_head=binary(max_size=256), response_head=binary(max_size=64))
def test_whatever_the_bytes_there_is_an_answer(teller: Teller, request_head: bytes, response_head: bytes) -> None:
    for transport in (TCP, UDP):
        protocol, status = teller.tell(request_head, response_head, transport=transport)
        assert protocol in (UNKNOWN, HTTP1, DNS, POSTGRESQL, MYSQL, MEMCACHED)
        assert NONE <= status <= ERROR
