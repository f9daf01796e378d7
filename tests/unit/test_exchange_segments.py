"""When a connection of Redis changes to segments."""

from __future__ import annotations

import ctypes

import pytest

from support.state_machine import CLIENT, GET, SERVER, Machine, heads, sizes


def test_single_redis_commands_stay_in_turns(machine: Machine) -> None:
    server = machine.socket(SERVER)
    for _ in range(3):
        assert not server.receive(GET)["segment"]
        server.send(b"$-1\r\n")
    assert len(server.exchanges) == 2


def test_a_pipeline_in_one_io_changes_to_segments_from_its_first_byte(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(GET)
    server.send(b"$-1\r\n")
    out = server.receive(GET * 2)
    assert (out["finished"], out["segment"], out["pending"], out["segment_position"]) == (1, 1, 0, len(GET))
    assert server.send(b"$-1\r\n$-1\r\n")["segment_position"] == 5
    assert server.receive(GET)["segment_position"] == 3 * len(GET)


def test_a_second_command_before_the_answer_brings_the_first_along(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(GET)
    out = client.send(GET)
    assert (out["segment"], out["segment_position"]) == (1, len(GET))
    assert heads(out["pending_exchange"])[0] == GET
    assert not client.exchanges


def test_a_large_value_over_several_ios_is_one_command(machine: Machine) -> None:
    head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n"
    server = machine.socket(SERVER)
    server.receive(head, 16384)
    rest = len(head) + 100_002 - 16384
    assert not server.receive(b"v" * 256, rest - 1)["segment"]
    assert not server.receive(b"\n")["segment"]
    server.send(b"+OK\r\n")
    assert sizes(server.end()["exchange"]) == (16384 + rest, 5)


def test_arrivals_travel_with_segments(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(2 * len(GET))
    time = server.now
    out = server.receive(GET * 2)
    assert out["arrivals"].tolist()[0] == (time, 0, 2 * len(GET))
    assert [entry[0] for entry in out["arrivals"].tolist()[1:]] == [0, 0, 0]


@pytest.mark.parametrize(
    ("request_bytes", "size"),
    [
        (GET, len(GET)),
        (GET * 3, len(GET)),
        (b"*1\r\n$4\r\nPING\r\n", 14),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n", 32 + 536870912 + 2),
        (b"*2\r\n$3\r\nGET\r\n$1", 2**64 - 1),  # cut by the capture
        (b"*" + b"9" * 20, 0),
        (b"*2\r\nxxxxxxxx", 2**64 - 1),
        (b"*-1\r\n$3\r\n", 0),
        (b"*\r\n$3\r\nGET", 0),
        (b"*2\n$3\r\nGET", 0),
        (b"GET / HTTP/1.1\r\n", 0),
        (b"PING\r\n", 0),
        (b"*2\r\n", 2**64 - 1),  # the rest is read on its own
        (b"*2\r", 0),
        (b"*40\r\n" + b"$1\r\nk\r\n" * 40, 2**64 - 1),
        (b"", 0),
    ],
)
def test_the_size_of_a_command_is_told_by_its_headers(machine: Machine, request_bytes: bytes, size: int) -> None:
    assert machine.library.command_size(request_bytes, ctypes.c_uint32(min(len(request_bytes), 256))) == size
