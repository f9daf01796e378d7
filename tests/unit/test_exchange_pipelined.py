"""Requests of an unknown protocol that were sent without waiting: what the accepting end can know for certain."""

from __future__ import annotations

from support.state_machine import PIPELINED, RECEIVED, SEND_START_UNKNOWN, SERVER, Machine, Socket


def marks(socket: Socket) -> list[bool]:
    return [bool(exchange["flags"] & PIPELINED) for exchange in socket.exchanges]


def test_a_request_that_waited_behind_an_unanswered_one_marks_both(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(3)
    server.arrive(6)
    for request in (b"one", b"two"):
        server.receive(request)
        server.send(b"answer")
    server.arrive(11)
    server.receive(b"three")
    server.send(b"answer")
    server.end()
    assert marks(server) == [True, True, False]


def test_a_request_that_arrives_while_its_predecessor_is_being_answered_is_not_certain(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(3)
    server.receive(b"one")
    server.enter()
    server.arrive(6)
    server.move(0, 6)
    server.hook(0, b"answer")
    server.receive(b"two")
    server.send(b"answer")
    server.end()
    assert marks(server) == [False, False]


def test_a_request_of_many_arrivals_is_one(machine: Machine) -> None:
    server = machine.socket(SERVER)
    for received_to in (4, 100, 2000):
        server.arrive(received_to)
    for part in (b"\0\0\7\xcc", bytes(96), bytes(1900)):
        server.receive(part)
    server.send(b"answer")
    server.arrive(2004)
    server.receive(b"next")
    server.send(b"answer")
    server.end()
    assert marks(server) == [False, False]


def test_where_the_answers_beginning_is_not_known_nothing_is_marked(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(3)
    server.receive(b"one")
    server.turns["exchange"]["flags"] |= SEND_START_UNKNOWN
    server.arrive(6)
    server.send(b"answer")
    server.receive(b"two")
    server.end()
    assert marks(server) == [False, False]


def test_requests_one_after_the_other_are_not_marked(machine: Machine) -> None:
    server = machine.socket(SERVER)
    for number in range(1, 6):
        server.arrive(3 * number)
        server.receive(b"ask")
        server.send(b"answer")
    server.end()
    assert marks(server) == [False] * 5
    assert server.moved[RECEIVED] == 15
