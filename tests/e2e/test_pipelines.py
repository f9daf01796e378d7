"""Pipelines on live connections: what becomes of requests that are not answered, or late, or seen after their answers."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from pathlib import Path
from threading import Thread

import pytest

from support import servers
from support.availability import need_command
from support.exchanges import assert_all_accounted, assert_all_exported, assert_paired, of_kind, watch
from support.processes import free_port
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

PING = b"*1\r\n$4\r\nPING\r\n"
BLPOP = b"*3\r\n$5\r\nBLPOP\r\n$4\r\nlist\r\n$1\r\n0\r\n"
RPUSH = b"*3\r\n$5\r\nRPUSH\r\n$4\r\nlist\r\n$1\r\nx\r\n"


def receive(connection: socket.socket, size: int) -> bytes:
    return connection.recv(size, socket.MSG_WAITALL)


def names_and_errors(spans: list[Span], kind: str) -> list[tuple[str, str | None]]:
    return [(span["name"], span["attributes"].get("error.type")) for span in of_kind(spans, kind)]


@pytest.mark.requires_command("redis-server")
def test_a_pipelined_command_without_an_answer_in_time_is_a_timeout_and_its_late_answer_nothing(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as redis,
        watch(tmp_path, redis.port, ebpf={"request_timeout": "500ms"}) as agent,
        socket.create_connection(("127.0.0.1", redis.port)) as connection,
        socket.create_connection(("127.0.0.1", redis.port)) as other,
    ):
        connection.sendall(PING + BLPOP)
        assert receive(connection, 7) == b"+PONG\r\n"
        spans = agent.wait_for_spans(4)
        other.sendall(RPUSH)
        assert receive(other, 4) == b":1\r\n"
        assert receive(connection, 4) == b"*2\r\n"
        connection.recv(100)
        connection.sendall(PING * 2)
        assert receive(connection, 14) == b"+PONG\r\n" * 2
        spans = agent.stop()
    assert_paired(spans, 5)
    assert_all_exported(agent, 10)
    for kind in ("CLIENT", "SERVER"):
        expected = [("PING", None), ("BLPOP", "timeout"), ("RPUSH", None), ("PING", None), ("PING", None)]
        assert sorted(names_and_errors(spans, kind), key=str) == sorted(expected, key=str)
        (overdue,) = [span for span in of_kind(spans, kind) if span["name"] == "BLPOP"]
        assert 0.5e9 <= overdue["end"] - overdue["start"] < 2e9
        assert overdue["status"] == "ERROR"
        assert overdue["attributes"]["wirespan.response.size"] == 0


@pytest.mark.parametrize("by", ["client", "server"])
def test_pipelined_commands_without_an_answer_say_that_their_connection_was_reset(tmp_path: Path, by: str) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener, watch(tmp_path, port) as agent:
        client = socket.create_connection(("127.0.0.1", port))
        server, _ = listener.accept()
        client.sendall(PING * 2)
        assert receive(server, 2 * len(PING)) == PING * 2
        server.sendall(b"+PONG\r\n")
        assert receive(client, 7) == b"+PONG\r\n"
        resetting, told = (client, server) if by == "client" else (server, client)
        resetting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        resetting.close()
        with pytest.raises(ConnectionResetError):
            told.recv(1)
        told.close()
        spans = agent.stop()
    assert_all_exported(agent, 4)
    for kind in ("CLIENT", "SERVER"):
        assert names_and_errors(spans, kind) == [("PING", None), ("PING", "connection_reset")]


def test_pipelined_commands_without_an_answer_end_when_the_end_of_the_stream_is_read_however_often(
    tmp_path: Path,
) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        watch(tmp_path, port) as agent,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        server, _ = listener.accept()
        client.sendall(PING * 2)
        assert receive(server, 2 * len(PING)) == PING * 2
        server.sendall(b"+PONG\r\n")
        server.close()
        assert receive(client, 7) == b"+PONG\r\n"
        assert [client.recv(1) for _ in range(100)] == [b""] * 100
        spans = agent.wait_for_spans(4)  # although the client's socket is open
        assert names_and_errors(spans, "CLIENT") == [("PING", None), ("PING", "connection_closed")]
        agent.stop()
    assert_all_exported(agent, 4)


@pytest.mark.requires_command("redis-server", "nginx")
def test_requests_of_one_turn_that_cannot_be_told_apart_are_one_exchange_that_says_so(tmp_path: Path) -> None:
    get, inline = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"PING\r\n"
    with (
        servers.redis(tmp_path) as redis,
        servers.nginx(tmp_path) as nginx,
        watch(tmp_path, redis.port, nginx.port) as agent,
    ):
        for port, request in ((redis.port, inline), (nginx.port, get)):
            for count in (1, 3):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(request * count)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass
        spans = agent.stop()
    assert len(spans) == 8
    for span in spans:
        requests = {"GET": len(get), "PING": len(inline)}
        several = span["attributes"]["wirespan.request.size"] > requests[span["name"]]
        assert span["attributes"].get("wirespan.exchange.pipelined", False) is several


@pytest.mark.requires_command("redis-server", "redis-cli")
def test_each_command_that_redis_cli_pipes_in_is_seen_and_a_gap_mixes_up_no_pair(tmp_path: Path) -> None:
    commands = 16_000  # fewer than may wait for their replies, see PENDING_LIMIT: redis-cli may send all at once
    sets = b"".join(b"*3\r\n$3\r\nSET\r\n$6\r\n%06d\r\n$1\r\nx\r\n" % i for i in range(commands))
    with servers.redis(tmp_path) as redis, watch(tmp_path, redis.port) as agent:
        pipe = [need_command("redis-cli"), "-p", str(redis.port), "--pipe"]
        said = subprocess.run(pipe, input=sets, capture_output=True, timeout=60, check=True).stdout
        assert b"errors: 0, replies: %d" % commands in said
        spans = agent.stop()
    clients = {span["span_id"]: span for span in of_kind(spans, "CLIENT")}
    assert sorted(span["name"] for span in clients.values()) == ["ECHO"] + ["SET"] * commands
    # Redis reads more at once than is captured, so of what it serves a part is skipped.
    for span in of_kind(spans, "SERVER"):
        client = clients[span["parent_span_id"]]
        assert (span["name"], span["trace_id"]) == (client["name"], client["trace_id"])
        for attribute in ("wirespan.request.size", "wirespan.response.size"):
            assert span["attributes"][attribute] == client["attributes"][attribute]
    assert_all_accounted(agent)


def answer_slowly(connection: socket.socket, pause: float) -> None:
    """A server of PING that takes a few at a time."""
    have = 0
    while data := connection.recv(1000):
        count, have = divmod(have + len(data), len(PING))
        connection.sendall(b"+PONG\r\n" * count)
        time.sleep(pause)


def test_replies_that_a_thread_reads_while_another_is_still_sending_their_commands_are_paired(tmp_path: Path) -> None:
    port, pings, sends = free_port(), 1_000, 4
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        # Drains are far shorter than a send, which takes 14 pauses.
        with watch(tmp_path, port, ebpf={"drain_interval": "5ms"}) as agent, socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            client.connect(("127.0.0.1", port))
            server, _ = listener.accept()
            client.sendall(PING * 2)  # from here on it is a pipeline
            threads = [Thread(target=answer_slowly, args=(server, 0.02))]
            threads.append(Thread(target=lambda: [client.sendall(PING * pings) for _ in range(sends)]))
            for thread in threads:
                thread.start()
            exchanges = 2 + pings * sends
            left = 7 * exchanges
            while left:
                left -= len(client.recv(1000))
            client.shutdown(socket.SHUT_WR)
            for thread in threads:
                thread.join()
            server.close()
            spans = agent.stop()
    assert_paired(spans, exchanges)
    assert_all_exported(agent, 2 * exchanges)
    blocked = [span for span in of_kind(spans, "CLIENT") if span["attributes"]["wirespan.request.duration"] > 0.1]
    assert len(blocked) > pings, "no send lasted for longer than a drain"
