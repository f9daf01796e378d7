"""Connections that cannot be read as requests: when the state machine knows them, and that it captures nothing then."""

from __future__ import annotations

import pytest

from support.state_machine import CLIENT, GET, SERVER, Machine, Socket, heads, sizes
from support.tls import client_hello, extension, hello, server_hello, vector
from wirespan.receiver.protocols.http2 import PREFACE

UNKNOWN, RESP, TLS, HTTP2 = range(4)
UNDELIMITED = 8
HTTP = b"GET / HTTP/1.1\r\n\r\n"


def protocols(socket: Socket) -> list[int]:
    return [int(exchange["protocol"]) for exchange in socket.exchanges]


def undelimited(socket: Socket) -> list[bool]:
    return [bool(exchange["flags"] & UNDELIMITED) for exchange in socket.exchanges]


def ask(socket: Socket, request: bytes, answer: bytes = b"+OK\r\n", role: int = SERVER) -> None:
    (socket.receive if role == SERVER else socket.send)(request)
    (socket.send if role == SERVER else socket.receive)(answer)


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_nothing_is_captured_behind_a_client_hello(machine: Machine, role: int) -> None:
    socket = machine.socket(role)
    request, answer = client_hello(protocols=[b"http/1.1"]), server_hello()
    ask(socket, request, answer, role)
    for likeness in (GET, GET * 3, HTTP, PREFACE):
        ask(socket, likeness, role=role)
    socket.end()
    assert protocols(socket) == [TLS] * 5
    assert heads(socket.exchanges[0]) == (request, answer[:80])
    assert [heads(exchange) for exchange in socket.exchanges[1:]] == [(b"", b"")] * 4
    assert [sizes(exchange)[0] for exchange in socket.exchanges[1:]] == [len(GET), 3 * len(GET), len(HTTP), 24]
    assert not any(undelimited(socket))


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_hello_is_known_however_it_is_read(machine: Machine, cut: int) -> None:
    server, request = machine.socket(SERVER), client_hello(protocols=[b"http/1.1"])
    server.receive(request[:cut])
    server.receive(request[cut:])
    server.send(server_hello())
    ask(server, GET * 2)
    server.end()
    assert protocols(server) == [TLS, TLS]
    assert not any(undelimited(server))


def test_tls_may_begin_after_plain_exchanges(machine: Machine) -> None:
    server = machine.socket(SERVER)
    for request in (b"EHLO test\r\n", b"STARTTLS\r\n", client_hello(protocols=[b"http/1.1"]), HTTP):
        ask(server, request)
    server.end()
    assert protocols(server) == [UNKNOWN, UNKNOWN, TLS, TLS]


def test_tls_may_begin_behind_a_message_that_is_not_answered(machine: Machine) -> None:
    server, request = machine.socket(SERVER), client_hello()
    for part in (b"\x20\0\0\1" + bytes(32), request[:5], request[5:]):
        server.receive(part)
    server.send(server_hello())
    ask(server, HTTP)
    server.end()
    assert protocols(server) == [TLS, TLS]


@pytest.mark.parametrize(
    "request_bytes",
    [
        client_hello()[:10],
        server_hello(),
        b"\x16\x03\x01\0\x05hello world",
        b"\x17" + client_hello()[1:],
        b"\x16\x04" + client_hello()[2:],
        PREFACE[:23],
        b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
        b"\x16" * 300,
    ],
)
def test_what_only_resembles_a_beginning_is_none(machine: Machine, request_bytes: bytes) -> None:
    server = machine.socket(SERVER)
    ask(server, request_bytes)
    ask(server, HTTP)
    server.end()
    assert protocols(server) == [UNKNOWN, UNKNOWN]
    assert heads(server.exchanges[1])[0] == HTTP


PAD = [extension(number, bytes(9)) for number in range(30, 40)]


@pytest.mark.parametrize(
    ("request_bytes", "marked"),
    [
        (client_hello(protocols=[b"h2"]), True),
        (client_hello(protocols=[b"http/1.1", b"h2"]), True),
        (client_hello(protocols=[b"http/1.1"], before=PAD), False),
        (client_hello(protocols=[b"h2c", b"h3", b"xh2"]), False),
        (client_hello(), False),
        (client_hello(session=b""), False),
        (client_hello(protocols=[b"http/1.1"], behind=[extension(51, bytes(400))]), False),
        (client_hello(behind=[extension(51, bytes(400))]), False),  # of which the end is seen to be the hello's
        # cut before it says what it offers, so that it may be HTTP/2
        (client_hello(behind=[extension(51, bytes(400)), extension(52, b"")]), True),
        (client_hello(protocols=[b"http/1.1"], before=[extension(51, bytes(400))]), True),
        (client_hello(protocols=[b"http/1.1"])[:-1], True),
        (client_hello()[:70], True),
        (client_hello(protocols=[b"http/1.1"] * 40), True),
        # lengths that lead nowhere
        (hello(1, b"\3\3", bytes(32), b"\xff\xff"), True),
        (hello(1, b"\3\3", bytes(32), vector(bytes(2), 2) + vector(b"\0", 1) + vector(b"\0\x10\xff\xff", 2)), True),
        (hello(1, b"\3\3", bytes(32), vector(bytes(2), 2) + vector(b"\0", 1) + vector(bytes(200), 2)), True),
    ],
)
def test_turns_are_marked_where_http2_cannot_be_ruled_out(machine: Machine, request_bytes: bytes, marked: bool) -> None:
    client = machine.socket(CLIENT)
    ask(client, request_bytes, server_hello(), CLIENT)
    ask(client, b"x", b"y", CLIENT)
    client.end()
    assert protocols(client) == [TLS, TLS]
    assert undelimited(client) == [marked, marked]


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_http2_is_known_by_its_preface(machine: Machine, role: int) -> None:
    socket = machine.socket(role)
    ask(socket, PREFACE + b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0", role)
    ask(socket, GET * 2, role=role)
    socket.end()
    assert protocols(socket) == [HTTP2, HTTP2]
    assert undelimited(socket) == [True, True]
    assert heads(socket.exchanges[1]) == (b"", b"")


def test_the_preface_may_follow_an_upgrade(machine: Machine) -> None:
    server = machine.socket(SERVER)
    ask(server, b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    ask(server, PREFACE)
    server.end()
    assert protocols(server) == [UNKNOWN, HTTP2]
    assert undelimited(server) == [False, True]


def test_nothing_that_arrives_is_kept_once_nothing_can_be_read(machine: Machine) -> None:
    server = machine.socket(SERVER)
    request = client_hello()
    assert server.arrive(len(request))["wants_head"]
    ask(server, request, server_hello())
    ask(server, GET)
    assert not server.arrive(len(request) + 2 * len(GET))["wants_head"]
    server.send(b"more")
    assert not server.arrive(len(request) + 3 * len(GET))["wants_head"]


def test_a_late_hook_finds_no_command_in_ciphertext(machine: Machine) -> None:
    """The hook of the request's read runs after that of the response's send."""
    server = machine.socket(SERVER)
    ask(server, client_hello(protocols=[b"http/1.1"]), server_hello())
    server.move(1, 3 * len(GET))
    server.send(b"x")
    assert not server.hook(1, GET * 3)["segment"]
    server.end()
    assert protocols(server) == [TLS, TLS]
    assert heads(server.exchanges[1])[0] == b""
