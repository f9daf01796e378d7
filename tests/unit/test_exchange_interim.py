"""Interim responses of HTTP/1.1 (RFC 9110, 15.2): they answer nothing, but the answer may follow in the same I/O."""

from __future__ import annotations

import pytest

from support.state_machine import CLIENT, REQUEST, SECOND, Machine, heads, sizes

BARE = b"HTTP/1.1 100 Continue\r\n\r\n"
SHORT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
LONG = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload; as=style\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HEAD = 64


@pytest.mark.parametrize("interim", [BARE, SHORT])
def test_an_interim_response_alone_is_no_answer(machine: Machine, interim: bytes) -> None:
    client = machine.socket(CLIENT)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.receive(interim)
    assert (client.counted("MESSAGES_INTERIM"), client.phase) == (1, REQUEST)
    client.receive(FINAL)
    exchange = client.end()["exchange"]
    assert heads(exchange)[1] == FINAL[:HEAD]
    assert sizes(exchange)[1] == len(FINAL)


@pytest.mark.parametrize("interim", [BARE, SHORT])
def test_an_answer_behind_an_interim_response_in_one_io_is_the_answer(machine: Machine, interim: bytes) -> None:
    client = machine.socket(CLIENT)
    for _ in range(2):
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.receive(interim + FINAL)
    client.end()
    assert [sizes(exchange)[1] for exchange in client.exchanges] == [len(interim + FINAL)] * 2


def test_one_that_is_longer_than_its_head_may_have_been_the_answer(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    for _ in range(2):
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.receive((LONG + FINAL)[:HEAD], len(LONG + FINAL))
    client.end()
    assert [sizes(exchange)[1] for exchange in client.exchanges] == [len(LONG + FINAL)] * 2


def test_what_comes_behind_a_long_one_is_the_answer(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.receive(LONG[:HEAD], len(LONG))
    assert not client.quiet(2 * SECOND)["finished"]
    client.receive(FINAL)
    exchange = client.quiet(2 * SECOND)["exchange"]
    assert heads(exchange)[1] == FINAL[:HEAD]
    assert sizes(exchange)[1] == len(FINAL)
    assert exchange["response_end"] - exchange["response_start"] < SECOND
