"""Messages that nobody asked for, where they are wanted as spans: what is one, how large it is, and that exchanges around it
stay what they are."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from support.state_machine import CLIENT, SECOND, SENT, SERVER, Machine, Socket, sizes

MESSAGE = 32


@pytest.fixture(autouse=True)
def wanted(machine: Machine) -> Iterator[None]:
    switch = ctypes.c_int.in_dll(machine.library, "message_spans")
    switch.value = 1
    yield
    switch.value = 0


def push(socket: Socket, role: int, data: bytes) -> Any:
    return (socket.send if role == SERVER else socket.receive)(data)


def ask(socket: Socket, role: int) -> None:
    (socket.receive if role == SERVER else socket.send)(b"ask")
    push(socket, role, b"answer")


def told(socket: Socket) -> list[tuple[bool, int, tuple[int, int]]]:
    """Of each: whether it is a message, its position, its sizes."""
    return [(bool(x["flags"] & MESSAGE), int(x["position"]), sizes(x)) for x in socket.exchanges]


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_a_greeting_ends_with_the_first_request(machine: Machine, role: int) -> None:
    socket = machine.socket(role)
    for part in (b"220 mail", b".test ready\r\n"):
        push(socket, role, part)
    assert not socket.exchanges
    ask(socket, role)
    socket.end()
    assert told(socket) == [(True, 0, (0, 21)), (False, 0, (3, 6))]


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_messages_end_when_they_are_quiet_or_with_the_connection(machine: Machine, role: int) -> None:
    socket = machine.socket(role)
    ask(socket, role)
    socket.quiet(2 * SECOND)
    for _ in range(2):
        push(socket, role, b"news")
        assert not socket.quiet(SECOND // 2)["finished"]
        push(socket, role, b"flash")
        last = socket.now
        assert socket.quiet(2 * SECOND)["exchange"]["response_end"] == last
    push(socket, role, b"last")
    socket.end()
    assert told(socket) == [(False, 0, (3, 6)), (True, 6, (0, 9)), (True, 15, (0, 9)), (True, 24, (0, 4))]


def test_both_ends_number_a_message_alike(machine: Machine) -> None:
    """By where it begins in the direction that it goes; the exchange behind it by that of requests."""
    ends = {role: machine.socket(role) for role in (SERVER, CLIENT)}
    for role, socket in ends.items():
        push(socket, role, b"hello")
        ask(socket, role)
        socket.end()
    for role, socket in ends.items():
        message, exchange = socket.exchanges
        requests = 1 if role == SERVER else SENT
        assert int(message["connection"]["sequence"]) == socket.base[1 - requests]
        assert int(exchange["connection"]["sequence"]) == socket.turns["exchange"]["connection"]["sequence"][0]


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_what_comes_after_silence_is_another_message_though_nobody_looked_meanwhile(
    machine: Machine, role: int
) -> None:
    socket = machine.socket(role)
    ask(socket, role)
    for _ in range(3):
        for silence in (2 * SECOND, SECOND // 2):
            socket.now += silence
            if role == CLIENT:
                socket.arrive(socket.moved[1 - SENT] + 4)
            push(socket, role, b"news")
    socket.end()
    assert told(socket) == [(False, 0, (3, 6))] + [(True, 6 + 8 * i, (0, 8)) for i in range(3)]


def test_a_reader_that_is_late_makes_no_message(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    ask(client, CLIENT)
    client.arrive(6 + 4)
    client.now += 5 * SECOND
    client.receive(b"more")
    client.end()
    assert told(client) == [(False, 0, (3, 10))]


def test_a_response_that_goes_on_is_no_message(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    ask(client, CLIENT)
    client.receive(b"more")
    client.end()
    assert told(client) == [(False, 0, (3, 10))]


def test_what_is_passed_over_is_no_message(machine: Machine) -> None:
    client = machine.socket(CLIENT, joined=True)
    client.receive(b"the rest of something")
    client.receive(b"and more")
    assert client.counted("MESSAGES_JOINED") == 1
    client.end()
    assert not client.exchanges


def test_an_arrival_that_waited_is_when_a_message_came(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.arrive(5)
    arrived = client.now
    client.tick(1000)
    client.receive(b"hello")
    message = client.end()["exchange"]
    assert (int(message["arrived"]), int(message["request_start"])) == (arrived, client.now - 10)


def test_messages_are_counted_all_the_same(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.receive(b"hello")
    assert client.counted("MESSAGES_PUSHED") == 1
