"""Failures are what users look for first: connections that never came to be, and requests without an answer."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.namespaces import Network, dropping
from support.nodes import inside
from support.processes import free_port
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

#: nobody has it: its neighbours are asked in vain
NOBODY = "10.123.0.77"


def connect(address: str, port: int, *, attempts: int = 0) -> float:
    """Seconds until connect() failed, as it has to. attempts: SYNs that are sent again."""
    with socket.socket() as client:
        if attempts:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, attempts)
        began = time.monotonic()
        with pytest.raises(OSError, match=r"^\[Errno"):
            client.connect((address, port))
        return time.monotonic() - began


def the_failure(agent: Agent, error: str) -> Span:
    """The only span, once it is there: a client's, with this error."""
    (span,) = agent.wait_for_spans(1)
    assert (span["kind"], span["status"], span["parent_span_id"]) == ("CLIENT", "ERROR", "")
    assert span["attributes"]["error.type"] == error
    return span


def seconds(span: Span) -> float:
    return (span["end"] - span["start"]) / 1e9


def test_a_refused_connection_is_a_client_span(tmp_path: Path) -> None:
    port = free_port()
    with watch(tmp_path, port) as agent:
        taken = connect("127.0.0.1", port)
        span = the_failure(agent, "connection_refused")
        agent.stop()
        assert_all_exported(agent, 1)
    assert span["name"] == f"TCP {port}"
    assert 0 < seconds(span) <= taken
    attributes = span["attributes"]
    assert attributes["server.address"] == attributes["network.peer.address"] == "127.0.0.1"
    assert attributes["server.port"] == port
    assert attributes["client.port"] > 0
    assert attributes["process.pid"] == os.getpid()
    assert attributes["wirespan.request.size"] == attributes["wirespan.response.size"] == 0
    assert not [name for name in attributes if name.endswith(".duration")]


def test_each_refused_connection_is_a_trace_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    with watch(tmp_path, port) as agent:
        for _ in range(1000):
            connect("127.0.0.1", port)
        agent.wait_for_spans(1000)
        spans = agent.stop()
        assert_all_exported(agent, 1000)
    assert len({span["trace_id"] for span in spans}) == len({span["span_id"] for span in spans}) == 1000


def test_a_server_that_does_not_answer_is_a_timeout(tmp_path: Path, two_nodes: Network) -> None:
    port = free_port()
    with watch(tmp_path, port) as agent, dropping(two_nodes.server), inside(two_nodes.client):
        taken = connect(two_nodes.server.address, port, attempts=1)
        span = the_failure(agent, "timeout")
    assert seconds(span) == pytest.approx(taken, abs=0.1)
    assert span["attributes"]["server.address"] == two_nodes.server.address


def test_an_application_that_gives_up_first_is_an_abort(tmp_path: Path, two_nodes: Network) -> None:
    port = free_port()
    with watch(tmp_path, port) as agent, dropping(two_nodes.server), inside(two_nodes.client):
        began = time.monotonic()
        with suppress(TimeoutError):
            socket.create_connection((two_nodes.server.address, port), timeout=0.5)
        taken = time.monotonic() - began
        span = the_failure(agent, "connection_aborted")
    assert seconds(span) == pytest.approx(taken, abs=0.1)


def test_a_host_that_nobody_is(tmp_path: Path, two_nodes: Network) -> None:
    port = free_port()
    with watch(tmp_path, port) as agent, inside(two_nodes.client):
        taken = connect(NOBODY, port)
        span = the_failure(agent, "host_unreachable")
    assert seconds(span) == pytest.approx(taken, abs=0.1)


def test_no_free_local_port(tmp_path: Path, two_nodes: Network) -> None:
    with inside(two_nodes.client), socket.create_server(("127.0.0.1", 0)) as listening:
        address, port = listening.getsockname()
        only = port + 1 if port < 65_535 else port - 1
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{only} {only}")
        with watch(tmp_path, port) as agent, socket.create_connection((address, port)):
            connect(address, port)
            span = the_failure(agent, "address_not_available")
    assert span["attributes"]["server.port"] == port


@contextmanager
def answering(then: str) -> Iterator[int]:
    """The port of a server that reads a request and then closes or resets its connection."""

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        connection.recv(100)
        if then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(("then", "error"), [("close", "connection_closed"), ("reset", "connection_reset")])
def test_a_request_whose_connection_ends_is_an_error_at_both_ends(tmp_path: Path, then: str, error: str) -> None:
    with answering(then) as port, watch(tmp_path, port) as agent:
        with socket.create_connection(("127.0.0.1", port)) as client, suppress(ConnectionResetError):
            client.sendall(b"question")
            assert client.recv(100) == b""
        agent.wait_for_spans(2)
        spans = agent.stop()
        assert_all_exported(agent, 2)
    (client_span,), (server_span,) = of_kind(spans, "CLIENT"), of_kind(spans, "SERVER")
    assert server_span["parent_span_id"] == client_span["span_id"]
    assert client_span["status"] == server_span["status"] == "ERROR"
    assert client_span["attributes"]["error.type"] == server_span["attributes"]["error.type"] == error


def test_a_socket_that_is_connected_to_another_server_ends_its_exchange(tmp_path: Path) -> None:
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as server,
        servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as other,
        watch(tmp_path, server.port, other.port) as agent,
        socket.socket() as client,
    ):
        for question, port in ((b"one", server.port), (b"three", other.port)):
            client.connect(("127.0.0.1", port))
            client.sendall(question)
            assert client.recv(len(question), socket.MSG_WAITALL) == question
            assert libc.connect(client.fileno(), unspecified, len(unspecified)) == 0
        client.close()
        agent.wait_for_spans(4)
        spans = agent.stop()
        assert_paired(spans, 2)
        assert_all_exported(agent, 4)
    assert {span["status"] for span in spans} == {"UNSET"}
    sizes = [(span["attributes"]["wirespan.response.size"], span["name"]) for span in spans]
    assert sorted(sizes) == [(3, f"TCP {server.port}")] * 2 + [(5, f"TCP {other.port}")] * 2


def test_an_unanswered_request_is_a_timeout_at_both_ends(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        watch(tmp_path, listening.getsockname()[1], ebpf={"request_timeout": "500ms", "settle": "200ms"}) as agent,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as server,
    ):
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        spans = agent.wait_for_spans(2)
        agent.stop()
        assert_all_exported(agent, 2)
    assert {span["kind"] for span in spans} == {"CLIENT", "SERVER"}
    for span in spans:
        assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "timeout")
        assert 0.5 <= seconds(span) < 1.0
