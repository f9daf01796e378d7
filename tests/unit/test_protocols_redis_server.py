"""The Redis parser against what a real server says, in both versions of the protocol and with all its exceptions."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.conversations import Feed, in_pieces_of, whole
from support.servers import Listening, redis
from wirespan.receiver.protocols.redis_commands import command_of
from wirespan.receiver.protocols.redis_connection import RedisConnection

pytestmark = pytest.mark.requires_command("redis-server")

SESSION = """
RPUSH messages message b c
LRANGE messages 0 -1
ECHO 1
SET text value
LPUSH text wrong-type
EVAL return(redis.error_reply('SECRET')) 0
MULTI
INCR number
HSET hash a 1 b 2
EXEC
ECHO 2
CLIENT REPLY SKIP
SET skipped 1
CLIENT REPLY OFF
SET unanswered 1
SUBSCRIBE silent
UNSUBSCRIBE silent
CLIENT REPLY ON
ECHO 3
SUBSCRIBE a b a
PSUBSCRIBE p*
PING subscribed
GET refused-while-subscribed
UNSUBSCRIBE
PUNSUBSCRIBE
UNSUBSCRIBE
LRANGE messages 0 -1
ECHO 4
MONITOR
ECHO 5
RESET
ECHO 6
HELLO 3
HGETALL hash
GET missing
ZADD zset 1.5 a
ZSCORE zset a
XADD stream * field value
XINFO STREAM stream FULL
CONFIG GET maxmem*
COMMAND INFO get
CLIENT TRACKING ON
GET text
SET text changed
ECHO 7
SUBSCRIBE a b
PUBLISH a to-myself
SSUBSCRIBE shard
UNSUBSCRIBE
SUNSUBSCRIBE
ECHO 8
LPOP missing 5
BLPOP messages 1
CLIENT REPLY OFF
ECHO nobody-hears
RESET
ECHO 9
QUIT
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Listening]:
    with redis(tmp_path) as listening:
        yield listening


def commands() -> list[list[bytes]]:
    return [line.encode().split() for line in SESSION.split("\n") if line]


def encoded(words: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def answers(server: Listening, requests: bytes) -> bytes:
    """Everything the server sends until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(requests)
        received = bytearray()
        while data := connection.recv(65_536):
            received += data
        return bytes(received)


@pytest.mark.parametrize("size", [1, 7, 1000, 0])
def test_every_reply_of_a_real_server_is_its_commands(server: Listening, size: int) -> None:
    requests = b"".join(map(encoded, commands()))
    responses = answers(server, requests)
    feed, cut = Feed(RedisConnection()), in_pieces_of(size) if size else whole
    for part in cut(requests):
        feed.request(part)
    for part in cut(responses):
        feed.response(part)
    connection = feed.connection
    assert connection.pending() == connection.skipped_bytes == connection.unpaired == 0
    assert len(feed.found) + connection.one_way == len(commands())
    assert feed.found[-1].response_end == len(responses)
    for exchange in feed.found:
        request = requests[exchange.request_start : exchange.request_end]
        response = responses[exchange.response_start : exchange.response_end]
        if request.startswith(b"*2\r\n$4\r\nECHO"):
            assert response == request.partition(b"ECHO\r\n")[2]
        assert (exchange.summary[1] is not None) == response.startswith(b"-")  # type: ignore[index]
    assert "SECRET" not in repr([exchange.summary for exchange in feed.found])
    assert connection.pushes == 3  # the message to itself, an invalidation, a line of MONITOR


def test_every_command_of_a_real_server_is_known(server: Listening) -> None:
    listed = answers(server, encoded([b"COMMAND", b"LIST"]) + encoded([b"QUIT"]))
    names = [line for line in listed.split(b"\r\n") if line[:1].isalpha()]
    assert len(names) > 300
    for name in names:
        first, _, second = name.partition(b"|")
        expected = name.decode().replace("|", " ").upper()
        assert command_of(first, second).name == expected
