"""A connection that is taken up in the middle of an exchange: that one is passed over, the next is whole."""

from __future__ import annotations

import pytest

from support.state_machine import CLIENT, IDLE, JOINED, RECEIVED, SECOND, SENT, SERVER, Machine, Socket, sizes


def ask(socket: Socket, role: int, payload: bytes) -> None:
    (socket.send if role == CLIENT else socket.receive)(payload)


def answer(socket: Socket, role: int, payload: bytes) -> None:
    (socket.receive if role == CLIENT else socket.send)(payload)


@pytest.mark.parametrize("role", [CLIENT, SERVER])
def test_what_was_under_way_is_counted_and_the_next_exchange_is_whole(machine: Machine, role: int) -> None:
    socket = machine.socket(role, 5000, 7000, joined=True)
    for _ in range(3):
        ask(socket, role, b"the rest of a request")
        assert (socket.counted("MESSAGES_JOINED"), socket.phase) == (1, JOINED)
    for _ in range(3):
        answer(socket, role, b"its response")
        assert (socket.counted("MESSAGES_JOINED"), socket.phase) == (1, IDLE)
    ask(socket, role, b"question")
    answer(socket, role, b"answer")
    (exchange,) = [socket.end()["exchange"]]
    assert sizes(exchange) == (8, 6)
    assert exchange["position"] == (5000 if role == CLIENT else 7000) + 3 * len(b"the rest of a request")
    assert len(socket.exchanges) == 1


@pytest.mark.parametrize("role", [CLIENT, SERVER])
def test_what_was_under_way_neither_times_out_nor_ends(machine: Machine, role: int) -> None:
    socket = machine.socket(role, 5000, 7000, joined=True)
    ask(socket, role, b"the rest of a request")
    assert not socket.quiet(31 * SECOND)["finished"]
    assert not socket.end()["finished"]


@pytest.mark.parametrize("role", [CLIENT, SERVER])
def test_bytes_that_moved_unseen_are_what_was_under_way(machine: Machine, role: int) -> None:
    socket = machine.socket(role, 5000, 7000, joined=True)
    socket.move(SENT if role == CLIENT else RECEIVED, 100)
    answer(socket, role, b"its response")
    assert socket.phase == IDLE
    ask(socket, role, b"question")
    answer(socket, role, b"answer")
    assert sizes(socket.end()["exchange"]) == (8, 6)


@pytest.mark.parametrize("role", [CLIENT, SERVER])
def test_whole_exchanges_that_moved_unseen_are_passed_over(machine: Machine, role: int) -> None:
    """Between the moment at which the connection was found and that at which all hooks were attached."""
    socket = machine.socket(role, 5000, 7000, joined=True)
    for direction in (SENT, RECEIVED):
        socket.move(direction, 800)
    ask(socket, role, b"the ninth question")
    answer(socket, role, b"the ninth answer")
    ask(socket, role, b"question")
    answer(socket, role, b"answer")
    assert sizes(socket.end()["exchange"]) == (8, 6)
    assert len(socket.exchanges) == 1
