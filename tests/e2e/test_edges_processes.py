"""Whoever holds a socket, and through whichever descriptor: a connection is one, and the process of an exchange is who
read, or wrote, its request."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import asking, servers
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.processes import free_port
from support.servers import Listening
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

REQUESTS = 20
CONNECTIONS = 40
SCANNED = 500


@contextmanager
def answering(folder: Path, mode: str) -> Iterator[Listening]:
    with servers.python_server(PROGRAMS / "handing_server.py", folder, mode) as server:
        yield server


def ask(connection: socket.socket) -> int:
    """The process that answered."""
    connection.sendall(b"who?")
    return int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")


def processes(spans: list[Span], kind: str) -> list[int]:
    return [span["attributes"]["process.pid"] for span in of_kind(spans, kind)]


@pytest.mark.parametrize(("mode", "answerers"), [("passing", 2), ("duplicating", 1)])
def test_requests_of_a_connection_that_is_handed_on(tmp_path: Path, mode: str, answerers: int) -> None:
    with answering(tmp_path, mode) as server, watch(tmp_path, server.port) as agent:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            answered = [ask(connection) for _ in range(REQUESTS)]
        agent.wait_for_spans(2 * REQUESTS)
        spans = agent.stop()
        assert_all_exported(agent, 2 * REQUESTS)
    assert_paired(spans, REQUESTS)
    assert sorted(Counter(answered).values()) == [REQUESTS // answerers] * answerers
    assert processes(spans, "SERVER") == answered
    assert processes(spans, "CLIENT") == [os.getpid()] * REQUESTS
    assert len({span["attributes"]["client.port"] for span in spans}) == 1


def test_a_client_that_uses_duplicates(tmp_path: Path) -> None:
    """Each request is sent on a new one and its response read from another; the first one is closed early."""
    with answering(tmp_path, "forking") as server, watch(tmp_path, server.port) as agent:
        connection = socket.create_connection(("127.0.0.1", server.port))
        for _ in range(REQUESTS):
            with connection.dup() as sending:
                sending.sendall(b"who?")
            old, connection = connection, connection.dup()
            old.close()
            assert len(connection.recv(4, socket.MSG_WAITALL)) == 4
        connection.close()
        agent.wait_for_spans(2 * REQUESTS)
        spans = agent.stop()
        assert_all_exported(agent, 2 * REQUESTS)
    assert_paired(spans, REQUESTS)


@pytest.mark.parametrize(("mode", "answerers"), [("forking", CONNECTIONS), ("reuse-port", 2)])
def test_each_connection_has_the_process_that_serves_it(tmp_path: Path, mode: str, answerers: int) -> None:
    with answering(tmp_path, mode) as server, watch(tmp_path, server.port) as agent:
        answered = []
        for _ in range(CONNECTIONS):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                answered += [ask(connection), ask(connection)]
        agent.wait_for_spans(4 * CONNECTIONS)
        spans = agent.stop()
        assert_all_exported(agent, 4 * CONNECTIONS)
    assert_paired(spans, 2 * CONNECTIONS)
    assert len(set(answered)) == answerers
    assert processes(spans, "SERVER") == answered


@pytest.mark.parametrize("mode", ["exec-half", "exec-unanswered"])
def test_a_server_that_becomes_another_program_in_the_middle_of_an_exchange(tmp_path: Path, mode: str) -> None:
    """The exchange is that of the program which read its first byte."""
    before, after = (asking.interpreter(tmp_path / "bin", name) for name in ("before", "after"))
    with (
        asking.answering(tmp_path, "changing", mode, after, executable=before) as server,
        watch(tmp_path, server.port, ebpf={"settle": "50ms"}) as agent,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        ask(connection)
        agent.wait_for_spans(2)  # nobody could tell afterwards what it was
        for _ in range(2):
            assert ask(connection) == server.process.pid
        agent.wait_for_spans(6)
        spans = agent.stop()
        assert_all_exported(agent, 6)
    assert_paired(spans, 3)
    served = of_kind(spans, "SERVER")
    assert [span["resource"]["process.executable.name"] for span in served] == ["before", "before", "after"]
    assert processes(spans, "SERVER") == [server.process.pid] * 3


def scan(port: int) -> int:
    """The errno of a connect, 0 for an open port; as scanners do it: without waiting in connect(), and closed by a
    reset."""
    with socket.socket() as probe:
        probe.setblocking(False)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        error = probe.connect_ex(("127.0.0.1", port))
        if error == errno.EINPROGRESS:
            select.select([], [probe], [], 5)
            error = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return error


def test_a_port_scan_is_a_span_for_each_closed_port_alone(tmp_path: Path) -> None:
    closed = free_port()
    with socket.create_server(("127.0.0.1", 0), backlog=2 * SCANNED) as listening:
        opened = listening.getsockname()[1]
        with watch(tmp_path, closed, opened) as agent:
            for _ in range(SCANNED):
                assert scan(closed) == errno.ECONNREFUSED
                assert scan(opened) == 0
                socket.create_connection(("127.0.0.1", opened)).close()
            agent.wait_for_spans(SCANNED)
            spans = agent.stop()
            assert_all_exported(agent, SCANNED)
    attributes = [span["attributes"] for span in of_kind(spans, "CLIENT")]
    assert Counter((one["server.port"], one["error.type"]) for one in attributes) == {
        (closed, "connection_refused"): SCANNED
    }
