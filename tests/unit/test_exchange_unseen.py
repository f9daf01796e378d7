"""Bytes that no hook tells of (splice from a socket): their sizes come from positions, their times from arrivals."""

from __future__ import annotations

from support.state_machine import CLIENT, RECEIVED, RESPONSE, SECOND, SENT, SERVER, Machine, Socket, sizes

HEADER = b"header of a response"
BODY = 5_000_000


def asked(machine: Machine) -> Socket:
    client = machine.socket(CLIENT)
    client.send(b"question")
    return client


def test_a_body_that_is_spliced_ends_when_it_arrived(machine: Machine) -> None:
    client = asked(machine)
    client.receive(HEADER)
    client.arrive(len(HEADER) + BODY)
    arrived = client.now
    client.move(RECEIVED, BODY)
    client.now += 120 * SECOND
    client.send(b"another question")
    (exchange,) = client.exchanges
    assert sizes(exchange) == (8, len(HEADER) + BODY)
    assert exchange["response_end"] == arrived


def test_a_response_that_is_spliced_whole_settles(machine: Machine) -> None:
    client = asked(machine)
    client.arrive(BODY)
    arrived = client.now
    client.move(RECEIVED, BODY)
    assert not client.quiet(SECOND // 2)["finished"]
    assert client.phase == RESPONSE
    exchange = client.quiet(SECOND)["exchange"]
    assert sizes(exchange) == (8, BODY)
    assert (exchange["outcome"], exchange["response_end"]) == (0, arrived)


def test_more_than_4_gib_are_counted_when_they_are_looked_at_in_time(machine: Machine) -> None:
    client = asked(machine)
    client.receive(HEADER)
    for _ in range(5):
        client.arrive(client.moved[RECEIVED] + (1 << 30))
        client.move(RECEIVED, 1 << 30)
        assert client.quiet(SECOND // 2)["finished"] == 0
    client.send(b"another question")
    client.receive(HEADER)
    assert sizes(client.exchanges[0]) == (8, len(HEADER) + (5 << 30))
    assert sizes(client.end()["exchange"]) == (16, len(HEADER))


def test_a_request_body_that_is_spliced_is_a_part_of_its_request(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"header of a request")
    server.move(RECEIVED, BODY)
    server.quiet(SECOND)
    server.send(b"answer")
    exchange = server.end()["exchange"]
    assert sizes(exchange) == (19 + BODY, 6)


def test_a_late_hook_of_what_was_looked_at_changes_nothing(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"question")
    server.enter()
    server.move(SENT, 6)
    server.turns["send_started"] = 0  # as of an I/O that has no hook at its beginning
    server.quiet(SECOND // 2)
    server.hook(SENT, b"answer")
    assert sizes(server.end()["exchange"]) == (8, 6)
