"""Turns of one socket: where exchanges begin and end, what is in them. See tests/support/state_machine.py."""

from __future__ import annotations

from support.state_machine import (
    CLIENT,
    CLOSED,
    REQUEST,
    RESPONSE,
    SECOND,
    SENT,
    SERVER,
    TIMEOUT,
    Machine,
    heads,
    sizes,
)


def test_the_next_request_ends_an_exchange(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    client.receive(b"answer")
    assert not client.exchanges
    client.send(b"again")
    (exchange,) = client.exchanges
    assert heads(exchange) == (b"ask", b"answer")
    assert sizes(exchange) == (3, 6)
    assert exchange["request_start"] < exchange["request_end"] < exchange["response_start"] <= exchange["response_end"]
    assert (exchange["position"], client.phase) == (0, REQUEST)


def test_a_message_of_many_ios_is_one_side_of_one_exchange(machine: Machine) -> None:
    server = machine.socket(SERVER)
    for part in (b"\0\0\0\x09", b"select ", b"1;"):
        server.receive(part)
    for _ in range(3):
        server.send(b"row", 1000)
    exchange = server.end()["exchange"]
    assert heads(exchange) == (b"\0\0\0\x09select 1;", b"row")
    assert sizes(exchange) == (13, 3000)


def test_a_head_stops_where_bytes_are_missing(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"abc", 5)
    server.receive(b"never")
    server.send(b"x")
    assert heads(server.end()["exchange"]) == (b"abc", b"x")


def test_a_request_head_is_kept_up_to_256_bytes(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"a" * 200)
    server.receive(b"b" * 200)
    server.send(b"c" * 100)
    request, response = heads(server.end()["exchange"])
    assert (request, response) == (b"a" * 200 + b"b" * 56, b"c" * 80)


def test_a_server_that_speaks_first_makes_no_exchange(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.receive(b"220 ready")
    assert client.counted("MESSAGES_PUSHED") == 1
    client.send(b"EHLO")
    client.receive(b"250")
    exchange = client.end()["exchange"]
    assert heads(exchange) == (b"EHLO", b"250")


def test_an_interim_response_answers_nothing(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")
    server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert server.counted("MESSAGES_INTERIM") == 1
    server.receive(b"body")
    server.send(b"HTTP/1.1 200 OK\r\n\r\n")
    exchange = server.end()["exchange"]
    assert len(server.exchanges) == 1
    assert heads(exchange)[1] == b"HTTP/1.1 200 OK\r\n\r\n"


def test_switching_protocols_is_an_answer(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"GET /chat HTTP/1.1\r\n\r\n")
    server.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert server.phase == RESPONSE


def test_a_request_without_answer_ends_with_the_connection(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    exchange = client.end(CLOSED)["exchange"]
    assert (exchange["outcome"], exchange["response_start"], sizes(exchange)) == (CLOSED, 0, (3, 0))
    assert not client.end(CLOSED)["finished"]


def test_a_quiet_response_settles_once_and_later_bytes_are_counted(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    client.receive(b"answer")
    assert not client.quiet(SECOND // 2)["finished"]
    assert not client.quiet(SECOND, unread=True)["finished"]
    exchange = client.quiet(SECOND)["exchange"]
    assert exchange["response_end"] < client.now - 2 * SECOND
    client.receive(b"more")
    assert client.counted("MESSAGES_CONTINUED") == 1
    assert not client.quiet(5 * SECOND)["finished"]
    client.send(b"next")
    client.receive(b"other")
    assert sizes(client.end()["exchange"]) == (4, 5)


def test_a_send_under_way_is_not_quiet(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"ask")
    server.send(b"part")
    server.enter()
    assert not server.quiet(5 * SECOND)["finished"]
    server.move(SENT, 4)
    server.hook(SENT, b"rest")
    assert sizes(server.quiet(2 * SECOND)["exchange"]) == (3, 8)


def test_an_unanswered_request_times_out(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    assert not client.quiet(29 * SECOND)["finished"]
    assert client.quiet(2 * SECOND)["exchange"]["outcome"] == TIMEOUT
    client.receive(b"late")
    assert client.counted("MESSAGES_CONTINUED") == 1


def test_positions_go_on_beyond_4_gib(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    for _ in range(5):
        client.receive(b"x", 1 << 30)
    client.send(b"again")
    client.receive(b"y")
    first, second = client.exchanges[0], client.end()["exchange"]
    assert sizes(first) == (3, 5 << 30)
    assert second["position"] == 3
    server = machine.socket(SERVER, received=5 << 32, sent=7)
    server.receive(b"ask")
    server.send(b"ok")
    assert server.end()["exchange"]["position"] == 5 << 32


def test_an_interim_response_of_any_length_answers_nothing(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"GET / HTTP/1.1\r\n\r\n")
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n"
    server.send(hints)
    assert server.counted("MESSAGES_INTERIM") == 1
    server.send(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    assert heads(server.end()["exchange"])[1].startswith(b"HTTP/1.1 500")


def test_an_interim_response_with_its_answer_behind_it_is_the_answer(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"PUT / HTTP/1.1\r\n\r\nbody")
    client.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    assert len(client.exchanges) == 0
    assert client.phase == RESPONSE
