"""Every interleaving of two I/Os of one socket, and bytes that move without a hook."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from support.state_machine import CLIENT, GET, NIL, PIPELINED, RECEIVED, SENT, SERVER, Machine, Socket, heads, sizes

Step = tuple[str, Callable[[Socket], Any]]


def sending(name: str, payload: bytes) -> list[Step]:
    return [
        (f"{name}.enter", lambda s: s.enter()),
        (f"{name}.move", lambda s: s.move(SENT, len(payload))),
        (f"{name}.hook", lambda s: s.hook(SENT, payload)),
    ]


def receiving(name: str, payload: bytes) -> list[Step]:
    return [
        (f"{name}.move", lambda s: s.move(RECEIVED, len(payload))),
        (f"{name}.hook", lambda s: s.hook(RECEIVED, payload)),
    ]


def interleavings(a: Sequence[Step], b: Sequence[Step], causes: tuple[str, str] | None) -> Iterator[list[Step]]:
    """Every order of the steps of two threads in which ``causes[0]`` comes before ``causes[1]``."""
    for chosen in itertools.combinations(range(len(a) + len(b)), len(a)):
        first, second = iter(a), iter(b)
        order = [next(first) if i in chosen else next(second) for i in range(len(a) + len(b))]
        names = [name for name, _ in order]
        if causes is None or names.index(causes[0]) < names.index(causes[1]):
            yield order


def play(socket: Socket, order: Sequence[Step]) -> Socket:
    for _, step in order:
        step(socket)
    return socket


def test_a_response_read_beside_the_send_of_its_request(machine: Machine) -> None:
    orders = list(interleavings(sending("w", b"ask"), receiving("r", b"answer"), ("w.move", "r.move")))
    assert len(orders) == 3
    for order in orders:
        client = play(machine.socket(CLIENT), order)
        exchange = client.end()["exchange"]
        assert len(client.exchanges) == 1
        assert sizes(exchange) == (3, 6)
        assert heads(exchange) == (b"ask", b"answer")
        assert exchange["request_start"] <= exchange["response_start"]


def test_a_request_read_beside_the_send_of_its_response(machine: Machine) -> None:
    for order in interleavings(receiving("r", b"ask"), sending("w", b"answer"), ("r.move", "w.enter")):
        server = play(machine.socket(SERVER), order)
        exchange = server.end()["exchange"]
        assert len(server.exchanges) == 1
        assert sizes(exchange) == (3, 6)
        assert heads(exchange) == (b"ask", b"answer")


def test_two_writers_of_one_request(machine: Machine) -> None:
    for order in interleavings(sending("a", b"abc"), sending("b", b"defg"), None):
        client = play(machine.socket(CLIENT), order)
        client.receive(b"ok")
        exchange = client.end()["exchange"]
        assert len(client.exchanges) == 1
        assert sizes(exchange) == (7, 2)


def test_two_readers_of_one_response(machine: Machine) -> None:
    for order in interleavings(receiving("a", b"abc"), receiving("b", b"defg"), None):
        client = machine.socket(CLIENT)
        client.send(b"ask")
        play(client, order)
        assert sizes(client.end()["exchange"]) == (3, 7)


def test_the_next_request_sent_beside_the_read_of_the_response(machine: Machine) -> None:
    for order in interleavings(receiving("r", b"answer"), sending("w", b"next"), ("r.move", "w.enter")):
        client = machine.socket(CLIENT)
        client.send(b"ask")
        play(client, order)
        client.receive(b"other")
        client.end()
        assert [sizes(exchange) for exchange in client.exchanges] == [(3, 6), (4, 5)]
        assert [int(exchange["position"]) for exchange in client.exchanges] == [0, 3]


def test_the_next_request_read_beside_the_send_of_the_response(machine: Machine) -> None:
    for order in interleavings(sending("w", b"answer"), receiving("r", b"next"), ("w.move", "r.move")):
        server = machine.socket(SERVER)
        server.receive(b"ask")
        play(server, order)
        server.send(b"other")
        server.end()
        assert [sizes(exchange) for exchange in server.exchanges] == [(3, 6), (4, 5)]


def test_an_early_response_does_not_split_the_request(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.enter()
    client.move(SENT, 1000)
    client.arrive(5)
    client.receive(b"early")
    client.move(SENT, 2000)
    client.receive(b"!")
    client.hook(SENT, b"upload", 3000)
    assert sizes(client.end()["exchange"]) == (3000, 6)
    assert len(client.exchanges) == 1


def test_arrivals_decide_which_of_two_threads_came_first(machine: Machine) -> None:
    orders = list(interleavings(receiving("r", b"second"), sending("w", b"next"), ("w.move", "r.move")))
    for order in orders:
        client = machine.socket(CLIENT)
        client.send(b"ask")
        client.receive(b"first")
        for name, step in order:
            if name == "r.move":
                client.arrive(11)
            step(client)
        client.end()
        assert [sizes(exchange) for exchange in client.exchanges] == [(3, 5), (4, 6)]


def test_bytes_that_move_without_a_hook_join_the_turn_and_disturb_nothing_after_it(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(104)
    server.receive(b"head")
    server.move(RECEIVED, 100)  # spliced into a file
    server.send(b"ok")
    for _ in range(3):
        server.receive(b"GET")
        server.send(b"done")
    server.end()
    assert [sizes(exchange) for exchange in server.exchanges] == [(104, 2), (3, 4), (3, 4), (3, 4)]
    assert [heads(exchange) for exchange in server.exchanges[1:]] == [(b"GET", b"done")] * 3
    assert [int(exchange["position"]) for exchange in server.exchanges] == [0, 104, 107, 110]


def test_a_response_that_is_spliced_away_belongs_to_its_request(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"one")
    client.receive(b"head")
    client.move(RECEIVED, 5000)
    client.send(b"two")
    client.receive(b"2")
    client.move(RECEIVED, 7)
    client.end()
    assert [sizes(exchange) for exchange in client.exchanges] == [(3, 5004), (3, 8)]
    assert [heads(exchange) for exchange in client.exchanges] == [(b"one", b"head"), (b"two", b"2")]


def test_a_lost_hook_costs_its_payload_alone(machine: Machine) -> None:
    for order in interleavings(sending("w", b"ask")[:2], receiving("r", b"answer"), ("w.move", "r.move")):
        client = play(machine.socket(CLIENT), order)
        for _ in range(2):
            client.send(b"next")
            client.receive(b"other")
        client.end()
        assert [sizes(exchange) for exchange in client.exchanges] == [(3, 6), (4, 5), (4, 5)]
        assert [heads(exchange) for exchange in client.exchanges[1:]] == [(b"next", b"other")] * 2


def test_a_pipeline_whose_hook_is_late_changes_to_segments_or_is_marked(machine: Machine) -> None:
    for order in interleavings(sending("w", GET * 2), receiving("r", NIL), ("w.move", "r.move")):
        client = play(machine.socket(CLIENT), order)
        segments = [int(out["segment_position"]) for out in client.outputs if out["segment"]]
        client.end()
        if segments:
            assert 0 in segments
        else:
            (exchange,) = client.exchanges
            assert exchange["flags"] & PIPELINED


def test_a_pipeline_sent_beside_the_read_of_an_answer_loses_no_byte(machine: Machine) -> None:
    for order in interleavings(sending("w", GET * 2), receiving("r", b"$-1\r\n"), None):
        client = machine.socket(CLIENT)
        client.send(GET)
        client.send(GET)  # overlaps: segments from here on
        play(client, order)
        segments = [(int(o["segment_position"]), int(o["segment_size"])) for o in client.outputs if o["segment"]]
        assert sorted(segments) == sorted([(len(GET), len(GET)), (2 * len(GET), 2 * len(GET)), (0, 5)])
