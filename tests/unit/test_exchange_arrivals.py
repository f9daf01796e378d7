"""What the state machine makes of bytes that have arrived and nobody has read."""

from __future__ import annotations

from support.state_machine import (
    CLIENT,
    GET,
    NIL,
    PIPELINED,
    SEND_START_UNKNOWN,
    SENT,
    SERVER,
    Machine,
    sizes,
)


def test_arrival_is_that_of_the_first_byte_of_the_request(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(4)
    first = server.now
    server.arrive(8)
    server.receive(b"12345678")
    server.send(b"ok")
    assert server.end()["exchange"]["arrived"] == first


def test_a_client_keeps_the_arrival_of_the_response(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    client.arrive(6)
    arrived = client.now
    client.receive(b"answer")
    assert client.end()["exchange"]["arrived"] == arrived


def test_an_arrival_that_was_not_kept_is_absent_not_wrong(machine: Machine) -> None:
    server = machine.socket(SERVER)
    full = []
    for end in (2, 4, 6, 8, 10):
        server.arrive(end)
        full.append(server.counted("ARRIVALS_FULL"))
    assert full == [0, 0, 0, 0, 1]
    server.receive(b"12345678")
    server.send(b"a")
    server.arrive(12)
    server.receive(b"90")
    assert server.exchanges[0]["arrived"] != 0
    server.send(b"b")
    assert server.end()["exchange"]["arrived"] == 0


def test_first_bytes_that_arrive_are_kept_while_a_head_may_want_them(machine: Machine) -> None:
    server = machine.socket(SERVER)
    assert server.arrive(3)["wants_head"]
    server.receive(b"ask")
    assert server.arrive(6)["wants_head"], "the head goes on"
    server.receive(b"ing" * 100, 3)
    server.arrive(1000)
    server.receive(b"x" * 994)
    assert not server.arrive(2000)["wants_head"], "the head is full"
    server.receive(b"x" * 1000)
    server.send(b"ok")
    assert server.arrive(2003)["wants_head"], "the next request"


def test_first_bytes_of_a_long_response_alone_are_kept(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    assert client.arrive(100)["wants_head"]
    client.receive(b"x" * 64, 100)
    client.arrive(5000)
    client.receive(b"x" * 64, 4900)
    assert not client.arrive(9000)["wants_head"]
    client.receive(b"x" * 64, 4000)
    client.send(b"ask")
    assert client.arrive(9100)["wants_head"], "the next response"


def test_first_bytes_that_nobody_has_read_yet_are_not_replaced(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(3)
    server.turns["arrivals"]["head_captured"] = 3
    assert not server.arrive(6)["wants_head"]
    server.receive(b"asking")
    server.send(b"ok")
    assert server.arrive(9)["wants_head"]


def test_no_first_bytes_are_kept_in_segment_mode(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(GET * 2)
    assert not server.arrive(2 * len(GET) + 3)["wants_head"]


def test_a_send_that_is_timed_by_its_packet_has_that_time_when_another_thread_tells_of_it(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.turns["send_started"] = 0
    client.move(SENT, 3)
    client.receive(b"answer")
    exchange = client.end()["exchange"]
    assert sizes(exchange) == (3, 6)
    assert exchange["request_start"] == exchange["response_end"] - 1, "what the host says of the packet"
    assert not exchange["flags"] & SEND_START_UNKNOWN


def test_two_commands_of_two_writers_whose_hooks_come_in_the_wrong_order_are_marked(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    for _ in range(2):
        client.enter()
        client.move(SENT, len(GET))
    client.hook(SENT, GET)  # of the second
    assert not client.hook(SENT, GET)["segment"]
    client.receive(NIL * 2)
    (exchange,) = [client.end()["exchange"]]
    assert sizes(exchange) == (2 * len(GET), 2 * len(NIL))
    assert exchange["flags"] & PIPELINED
