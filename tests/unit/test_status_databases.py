"""PostgreSQL, MySQL and memcached told by first bytes: what is theirs, how it went, and that nothing else is taken for them."""

from __future__ import annotations

from itertools import product
from struct import pack

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, sampled_from

from support.told import (
    CLIENT_ERROR,
    ERROR,
    HEAD,
    HTTP1,
    MEMCACHED,
    MYSQL,
    NONE,
    POSTGRESQL,
    SERVER_ERROR,
    SUCCESS,
    UNKNOWN,
    Teller,
)


@pytest.fixture(scope="module")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Teller:
    return Teller(tmp_path_factory.mktemp("host"))


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + pack(">I", len(body) + 4) + body


def query(text: bytes) -> bytes:
    return message(b"Q", text + b"\0")


def error(code: bytes, severity: bytes = b"ERROR", *, before_9_6: bool = False) -> bytes:
    second = b"" if before_9_6 else b"VERROR\0"
    return message(b"E", b"S" + severity + b"\0" + second + b"C" + code + b"\0Msomething went wrong\0\0")


def row(*values: bytes) -> bytes:
    return message(b"D", pack(">H", len(values)) + b"".join(pack(">I", len(value)) + value for value in values))


def description(*names: bytes) -> bytes:
    return message(b"T", pack(">H", len(names)) + b"".join(name + bytes(19) for name in names))


READY, FAILED = message(b"Z", b"I"), message(b"Z", b"E")
EXTENDED = (
    message(b"P", b"\0SELECT $1\0\0\0")
    + message(b"B", bytes(12))
    + message(b"D", b"P\0")
    + message(b"E", bytes(5))
    + message(b"S")
)
_USER = b"user\0somebody\0database\0mine\0\0"
STARTUP = pack(">II", 8 + len(_USER), 3 << 16) + _USER

POSTGRESQL_ANSWERS = [
    (query(b"SELECT 1"), description(b"?column?") + row(b"1") + message(b"C", b"SELECT 1\0") + READY, SUCCESS),
    (query(b"SELECT abalance FROM accounts WHERE aid = 12345"), description(b"abalance") + row(b"0"), NONE),
    (query(b"SELECT a, b FROM t"), description(*[b"column"] * 9) + row(*[b"x"] * 9) + READY, NONE),
    (query(b"INSERT INTO t VALUES (1)"), message(b"C", b"INSERT 0 1\0") + READY, SUCCESS),
    (query(b"BEGIN; SELECT 1/0"), message(b"C", b"BEGIN\0") + error(b"22012") + FAILED, CLIENT_ERROR),
    (query(b"SET x = 1"), message(b"C", b"SET\0") + message(b"S", b"x\0001\0") + READY, SUCCESS),
    (query(b""), message(b"I") + READY, SUCCESS),
    (query(b"SELEC"), error(b"42601") + READY, CLIENT_ERROR),
    (query(b"SELEC"), error(b"42601", "ОШИБКА".encode()) + READY, CLIENT_ERROR),
    (query(b"SELEC"), error(b"42601", before_9_6=True) + READY, CLIENT_ERROR),
    (query(b"INSERT"), error(b"23505") + READY, CLIENT_ERROR),
    (query(b"UPDATE"), error(b"40001") + READY, ERROR),
    (query(b"SELECT"), error(b"53300") + READY, SERVER_ERROR),
    (query(b"SELECT"), error(b"57014") + READY, SERVER_ERROR),
    (query(b"SELECT"), error(b"58030") + READY, SERVER_ERROR),
    (query(b"SELECT"), error(b"XX000") + READY, SERVER_ERROR),
    (query(b"SELECT"), error(b"P0001") + READY, ERROR),
    (query(b"SELECT"), error(b"42601", b"A very long word for an error") + READY, ERROR),
    (query(b"CALL x()"), message(b"N", b"SNOTICE\0VNOTICE\0C00000\0\0") + message(b"C", b"CALL\0") + READY, SUCCESS),
    (
        EXTENDED,
        message(b"1") + message(b"2") + description(b"a") + row(b"1") + message(b"C", b"SELECT 1\0") + READY,
        SUCCESS,
    ),
    (EXTENDED, message(b"1") + message(b"2") + error(b"22P02") + READY, CLIENT_ERROR),
    (EXTENDED, error(b"42P01") + READY, CLIENT_ERROR),
    (EXTENDED[:23], message(b"1") + message(b"t", b"\0\0") + message(b"n"), NONE),
    (message(b"P", b"\0" + b"x" * 900 + b"\0\0\0") + message(b"S"), message(b"1") + READY, SUCCESS),
    (
        message(b"B", bytes(12)) + message(b"E", bytes(5)) + message(b"S"),
        message(b"2") + message(b"C", b"DELETE 3\0") + READY,
        SUCCESS,
    ),
    (message(b"S"), READY, SUCCESS),
    (STARTUP, message(b"R", bytes(4)) + message(b"S", b"application_name\0x\0") * 9 + READY, NONE),
    (STARTUP, message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"), NONE),
    (STARTUP, error(b"28000", b"FATAL"), CLIENT_ERROR),
    (message(b"p", b"SCRAM-SHA-256\0" + bytes(30)), message(b"R", b"\0\0\0\x0br=abc"), NONE),
    (message(b"p", b"c=biws,r=" + bytes(30)), error(b"28P01", b"FATAL"), CLIENT_ERROR),
    (bytes.fromhex("0000000804d2162f"), b"N", SUCCESS),
    (bytes.fromhex("0000000804d21630"), b"N", SUCCESS),
]


@pytest.mark.parametrize(("request_bytes", "response", "status"), POSTGRESQL_ANSWERS)
def test_postgresql(teller: Teller, request_bytes: bytes, response: bytes, status: int) -> None:
    assert teller.tell(request_bytes, response) == (POSTGRESQL, status)


def test_a_query_without_an_answer_is_known_by_its_length_and_its_end(teller: Teller) -> None:
    assert teller.tell(query(b"SELECT pg_sleep(100)"), b"") == (POSTGRESQL, NONE)
    assert teller.tell(query(b"SELECT " + b"x" * 1_000), b"") == (POSTGRESQL, NONE)
    assert teller.tell(query(b"SELECT 1") + b"\0", b"") == (UNKNOWN, NONE)
    assert teller.tell(message(b"Q", b"SELECT 1"), b"") == (UNKNOWN, NONE)


# ---- MySQL -----------------------------------------------------------------------------------------------------------


def packet(number: int, body: bytes) -> bytes:
    return pack("<I", len(body) | number << 24) + body


def command(number: int, body: bytes = b"") -> bytes:
    return packet(0, bytes([number]) + body)


def failure(code: int, state: bytes) -> bytes:
    return packet(1, b"\xff" + pack("<H", code) + b"#" + state + b"Something went wrong")


OK = packet(1, bytes.fromhex("00000002000000"))
ROWS = packet(1, b"\2") + packet(2, b"\3def" + bytes(30)) + packet(3, b"\3def" + bytes(30)) + packet(4, b"\1a\1b")
QUERY, PREPARE, EXECUTE, CLOSE, PING = 3, 0x16, 0x17, 0x19, 0x0E
LOGIN = packet(1, pack("<IIB", 0xA685, 1 << 24, 45) + bytes(23) + b"root\0\0mysql_native_password\0")

MYSQL_ANSWERS = [
    (command(QUERY, b"INSERT INTO t VALUES (1)"), OK, SUCCESS),
    (command(QUERY, b"SELECT a, b FROM t"), ROWS, NONE),
    (command(QUERY, b"SELECT a, b FROM t"), ROWS[:4].replace(b"\1", b"\2", 1) + b"\2\1" + ROWS[5:], NONE),
    (command(QUERY, b"SELEC"), failure(1064, b"42000"), CLIENT_ERROR),
    (command(QUERY, b"INSERT"), failure(1062, b"23000"), CLIENT_ERROR),
    (command(QUERY, b"UPDATE"), failure(1213, b"40001"), ERROR),
    (command(QUERY, b"SELECT"), failure(1028, b"HY000"), ERROR),
    (command(PREPARE, b"SELECT ?"), packet(1, bytes(12)) + packet(2, b"\3def"), SUCCESS),
    (command(EXECUTE, bytes(9)), OK, SUCCESS),
    (command(CLOSE, bytes(4)) + command(QUERY, b"SELECT 1"), ROWS, NONE),
    (command(CLOSE, bytes(4)) + command(QUERY, b"DELETE"), OK, SUCCESS),
    (command(PING), OK, SUCCESS),
    (command(2, b"database"), failure(1049, b"42000"), CLIENT_ERROR),
    (command(QUERY, b"x" * 100_000), OK, SUCCESS),
    (LOGIN, packet(2, bytes.fromhex("00000002000000")), SUCCESS),
    (LOGIN, packet(2, b"\xff\x15\x04#28000Access denied"), CLIENT_ERROR),
]


@pytest.mark.parametrize(("request_bytes", "response", "status"), MYSQL_ANSWERS)
def test_mysql(teller: Teller, request_bytes: bytes, response: bytes, status: int) -> None:
    assert teller.tell(request_bytes, response) == (MYSQL, status)


def test_frames_with_a_length_of_four_bytes_are_not_mysql(teller: Teller) -> None:
    """Little-endian, as those of many protocols: the number of the first packet would be its fourth byte."""
    for kind, size in product(range(32), (1, 7, 12, 200)):
        frame = pack("<I", size) + bytes([kind]) + bytes(size - 1)
        assert teller.tell(frame, frame) == (UNKNOWN, NONE)


# ---- memcached -------------------------------------------------------------------------------------------------------


def binary_header(magic: int, opcode: int, status: int, body: int, opaque: int) -> bytes:
    return pack(">BBHBBHIIQ", magic, opcode, 0, 0, 0, status, body, opaque, 0)


def binary_answer(status: int) -> tuple[bytes, bytes]:
    return binary_header(0x80, 0, 0, 3, 77) + b"key", binary_header(0x81, 0, status, 5, 77) + b"value"


MEMCACHED_ANSWERS = [
    (b"get key\r\n", b"VALUE key 0 1\r\nx\r\nEND\r\n", SUCCESS),
    (b"get key\r\n", b"END\r\n", SUCCESS),
    (b"gets key other\r\n", b"VALUE key 0 1 7\r\nx\r\nEND\r\n", SUCCESS),
    (b"gat 10 key\r\n", b"END\r\n", SUCCESS),
    (b"set key 0 0 1\r\nx\r\n", b"STORED\r\n", SUCCESS),
    (b"add key 0 0 1\r\nx\r\n", b"NOT_STORED\r\n", SUCCESS),
    (b"replace key 0 0 1\r\nx\r\n", b"NOT_STORED\r\n", SUCCESS),
    (b"append key 0 0 1\r\nx\r\n", b"STORED\r\n", SUCCESS),
    (b"prepend key 0 0 1\r\nx\r\n", b"STORED\r\n", SUCCESS),
    (b"cas key 0 0 1 7\r\nx\r\n", b"EXISTS\r\n", SUCCESS),
    (b"cas key 0 0 1 7\r\nx\r\n", b"NOT_FOUND\r\n", SUCCESS),
    (b"delete key\r\n", b"DELETED\r\n", SUCCESS),
    (b"delete key\r\n", b"NOT_FOUND\r\n", SUCCESS),
    (b"incr key 1\r\n", b"2\r\n", SUCCESS),
    (b"decr key 1\r\n", b"18446744073709551615\r\n", SUCCESS),
    (b"touch key 10\r\n", b"TOUCHED\r\n", SUCCESS),
    (b"incr key 1\r\n", b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n", CLIENT_ERROR),
    (b"get \r\nx\r\n", b"ERROR\r\n", CLIENT_ERROR),
    (b"set key 0 0 9999999\r\n", b"SERVER_ERROR object too large for cache\r\n", SERVER_ERROR),
    (*binary_answer(0), SUCCESS),
    (*binary_answer(1), SUCCESS),
    (*binary_answer(4), CLIENT_ERROR),
    (*binary_answer(0x81), CLIENT_ERROR),
    (*binary_answer(0x82), SERVER_ERROR),
]


@pytest.mark.parametrize(("request_bytes", "response", "status"), MEMCACHED_ANSWERS)
def test_memcached(teller: Teller, request_bytes: bytes, response: bytes, status: int) -> None:
    assert teller.tell(request_bytes, response) == (MEMCACHED, status)


@pytest.mark.parametrize(
    ("request_bytes", "response"),
    [
        (b"get key\r\n", b"STORED\r\n"),
        (b"set key 0 0 1\r\nx\r\n", b"END\r\n"),
        (b"get key\r\n", b"END of it\r\n"),
        (b"settle this\r\n", b"STORED\r\n"),
        (b"incr key\r\n", b"2 or more\r\n"),
        (b"get the paper, please\r\n", b"+OK\r\n"),
        (binary_answer(0)[0], binary_header(0x81, 0, 0, 0, 78)),
        (binary_answer(0)[0], binary_header(0x81, 1, 0, 0, 77)),
    ],
)
def test_what_only_resembles_memcached_is_unknown(teller: Teller, request_bytes: bytes, response: bytes) -> None:
    assert teller.tell(request_bytes, response) == (UNKNOWN, NONE)


# ---- all -------------------------------------------------------------------------------------------------------------

KNOWN = {
    POSTGRESQL: [(request, response) for request, response, _ in POSTGRESQL_ANSWERS],
    MYSQL: [(request, response) for request, response, _ in MYSQL_ANSWERS],
    MEMCACHED: [(request, response) for request, response, _ in MEMCACHED_ANSWERS],
}


def test_a_request_of_one_is_not_answered_by_another(teller: Teller) -> None:
    for one, other in product(KNOWN, KNOWN):
        for (request, _), (_, response) in product(KNOWN[one], KNOWN[other]):
            assert teller.tell(request, response).protocol in ({UNKNOWN, one} if one == other else {UNKNOWN})


@pytest.mark.parametrize("protocol", KNOWN)
def test_heads_may_be_cut_anywhere(teller: Teller, protocol: int) -> None:
    """A message that the capture cuts is the same protocol or unknown, and never another status than the whole."""
    for request, response in KNOWN[protocol]:
        whole = teller.tell(request, response)
        for cut in range(len(response[:HEAD])):
            told = teller.tell(request, response[:cut])
            assert told.protocol in (protocol, UNKNOWN)
        assert whole.protocol == protocol


@pytest.mark.parametrize(
    ("farewell", "expected"),
    [
        (message(b"X"), True),
        (command(1), True),
        (b"quit\r\n", True),
        (message(b"X") * 2, False),
        (command(2), False),
        (b"QUIT\r\n", False),
        (b"", False),
    ],
)
def test_a_request_to_close_the_connection_awaits_no_answer(teller: Teller, farewell: bytes, expected: bool) -> None:
    assert teller.is_farewell(farewell) is expected


def test_random_bytes_are_nothing(teller: Teller) -> None:
    """Twenty million exchanges: the rate of false positives is below 1.5e-7 with 95 % confidence."""
    found = teller.random(seed=1, count=20_000_000)
    assert found[UNKNOWN] == 20_000_000, found


@pytest.mark.parametrize(
    ("request_bytes", "response"),
    [
        (b"Q\0\0\0", b"T\0\0\0"),
        (b"P\0\0\0", b"1\0\0\0"),
        (b"\0\0\0\x29\0\3\0\0", b"R\0\0\0\0\0\0\0"),
        (b"\x20\0\0\0\3", b"\1\0\0\1\2"),
        (b"\x20\0\0\0\3", b"\7\0\0\1\0"),
        (b"\x80\0\0\0\0\0\0\0\0\0\0\1", b"\x81\0\0\0\0\0\0\0\0\0\0\1"),
        (b"get ", b"VALU"),
    ],
)
def test_what_begins_like_one_and_goes_on_at_random_is_seldom_taken_for_it(
    teller: Teller, request_bytes: bytes, response: bytes
) -> None:
    found = teller.random(7, 2_000_000, request_bytes, response)
    assert sum(found[1:]) <= 2_000_000 / 2_000, found


@given(
    request_head=binary(max_size=256),
    response_head=binary(max_size=64),
    start=sampled_from([b"", b"Q\0\0\0", b"P\0\0\0", b"\3\0\0\0\3", b"get ", b"\x80\0"]),
    more=integers(0, 1_000),
)
def test_http_is_http_whatever_is_asked(
    teller: Teller, request_head: bytes, response_head: bytes, start: bytes, more: int
) -> None:
    assert teller.tell(start + request_head + bytes(more), b"HTTP/1.1 200 OK\r\n" + response_head) == (HTTP1, SUCCESS)
