"""Connections that cannot be read as requests: when the state machine knows them, and that it captures nothing then."""

from __future__ import annotations

import pytest

from support.state_machine import CLIENT, GET, SERVER, Machine, Socket, heads, sizes
from support.tls import client_hello, server_hello
from wirespan.receiver.protocols.http2 import PREFACE

UNKNOWN, RESP, TLS, HTTP2 = range(4)
HTTP = b"GET / HTTP/1.1\r\n\r\n"


def protocols(socket: Socket) -> list[int]:
    return [int(exchange["protocol"]) for exchange in socket.exchanges]


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


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_hello_is_known_however_it_is_read(machine: Machine, cut: int) -> None:
    server, request = machine.socket(SERVER), client_hello(protocols=[b"http/1.1"])
    server.receive(request[:cut])
    server.receive(request[cut:])
    server.send(server_hello())
    ask(server, GET * 2)
    server.end()
    assert protocols(server) == [TLS, TLS]


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


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_http2_is_known_by_its_preface(machine: Machine, role: int) -> None:
    socket = machine.socket(role)
    ask(socket, PREFACE + b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0", role)
    ask(socket, GET * 2, role=role)
    socket.end()
    assert protocols(socket) == [HTTP2, HTTP2]
    assert heads(socket.exchanges[1]) == (b"", b"")


def test_the_preface_may_follow_an_upgrade(machine: Machine) -> None:
    server = machine.socket(SERVER)
    ask(server, b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    ask(server, PREFACE)
    server.end()
    assert protocols(server) == [UNKNOWN, HTTP2]


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


@pytest.mark.parametrize(("request_bytes", "protocol"), [(client_hello(), TLS), (PREFACE, HTTP2)])
def test_a_late_hook_tells_what_a_connection_is(machine: Machine, request_bytes: bytes, protocol: int) -> None:
    """The hook of the read that had the beginning runs after that of the response's send."""
    server = machine.socket(SERVER)
    server.move(1, len(request_bytes))
    server.send(server_hello())
    assert not server.hook(1, request_bytes)["segment"]
    ask(server, HTTP)
    server.end()
    assert protocols(server) == [protocol, protocol]
    assert heads(server.exchanges[1])[0] == b""
