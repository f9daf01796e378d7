"""TCP Fast Open (RFC 7413): the request travels with the SYN, so both ends move bytes before they are connected."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.exchanges import assert_all_exported, assert_paired, of_kind, watch
from support.namespaces import Network, dropping, run
from support.nodes import inside
from support.puppets import Puppet
from support.spans import Span
from support.waiting import wait_until

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("ip", "iptables-legacy")]

PORT = 7000
REQUEST, ANSWER = b"GET /fast HTTP/1.1\r\nHost: test\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
TCP_FASTOPEN_CONNECT = 30  # include/uapi/linux/tcp.h
TCP_SYN_RECV = 3
#: net.ipv4.tcp_fastopen: at both ends, data without a cookie, and for all listening sockets
WITHOUT_COOKIES = "1543"


def listen(sockets: list[socket.socket], address: str) -> None:
    sockets.append(socket.create_server((address, PORT)))


def accept(sockets: list[socket.socket]) -> None:
    sockets.append(sockets[0].accept()[0])


def answer(sockets: list[socket.socket]) -> int:
    """The state in which it was asked."""
    state = sockets[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    assert sockets[-1].recv(1_000) == REQUEST
    sockets[-1].sendall(ANSWER)
    return state


def ask_by_sendto(sockets: list[socket.socket], address: str) -> None:
    sockets.append(socket.socket())
    sockets[-1].sendto(REQUEST, socket.MSG_FASTOPEN, (address, PORT))


def ask_without_waiting(sockets: list[socket.socket], address: str) -> None:
    """As curl does it: connect() does nothing yet, and send() returns before there is a connection."""
    sockets.append(socket.socket())
    sockets[-1].setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sockets[-1].setblocking(False)
    sockets[-1].connect((address, PORT))
    assert sockets[-1].send(REQUEST) == len(REQUEST)


def ask_again(sockets: list[socket.socket]) -> None:
    sockets[-1].sendall(REQUEST)


def hear(sockets: list[socket.socket]) -> None:
    assert select.select(sockets[-1:], [], [], 10)[0]
    assert sockets[-1].recv(1_000) == ANSWER


def close(sockets: list[socket.socket]) -> None:
    sockets.pop().close()


@contextmanager
def fast(nodes: Network) -> Iterator[tuple[Puppet, Puppet]]:
    """Client and server, which listens, in nodes where connections open fast."""
    puppets = []
    for node in (nodes.client, nodes.server):
        run(*node.command("sysctl", "-qw", f"net.ipv4.tcp_fastopen={WITHOUT_COOKIES}"))
        with inside(node):
            puppets.append(Puppet())
    with puppets[0] as client, puppets[1] as server:
        server.run(listen, nodes.server.address)
        yield client, server


@pytest.mark.parametrize("ask", [ask_by_sendto, ask_without_waiting])
def test_a_request_in_the_syn_is_a_pair_and_so_are_those_behind_it(
    tmp_path: Path, two_nodes: Network, ask: Callable[[list[socket.socket], str], None]
) -> None:
    with fast(two_nodes) as (client, server), watch(tmp_path, PORT) as agent:
        for _ in range(5):
            server.begin(accept)
            client.run(ask, two_nodes.server.address)
            server.end()
            server.run(answer)
            client.run(hear)
            client.run(ask_again)
            server.run(answer)
            client.run(hear)
            client.run(close)
            server.run(close)
        spans = agent.wait_for_spans(20)
        agent.stop()
        assert_all_exported(agent, 20)
    assert_as_asked(spans, 10)


def test_a_server_that_answers_before_it_is_connected(tmp_path: Path, two_nodes: Network) -> None:
    with fast(two_nodes) as (client, server), watch(tmp_path, PORT) as agent:
        with dropping(two_nodes.client):
            server.begin(accept)
            client.run(ask_without_waiting, two_nodes.server.address)
            server.end()
            assert server.run(answer) == TCP_SYN_RECV
        client.run(hear)
        client.run(ask_again)
        server.run(answer)
        client.run(hear)
        spans = agent.wait_for_spans(4)
        agent.stop()
        assert_all_exported(agent, 4)
    assert_as_asked(spans, 2)


def test_a_request_in_a_syn_that_is_refused_is_one_failure(tmp_path: Path, two_nodes: Network) -> None:
    with fast(two_nodes) as (client, server), watch(tmp_path, PORT) as agent:
        server.run(close)
        client.run(ask_without_waiting, two_nodes.server.address)
        wait_until("the refusal", lambda: client.run(is_over))
        client.run(close)
        (span,) = agent.wait_for_spans(1)
        agent.stop()
        assert_all_exported(agent, 1)
    assert span["attributes"]["error.type"] == "connection_refused"


def is_over(sockets: list[socket.socket]) -> bool:
    return sockets[-1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def assert_as_asked(spans: list[Span], pairs: int) -> None:
    assert_paired(spans, pairs)
    assert {span["name"] for span in spans} == {"GET"}
    for kind in ("CLIENT", "SERVER"):
        assert len(of_kind(spans, kind)) == pairs
    for span in spans:
        assert span["attributes"]["wirespan.request.size"] == len(REQUEST)
        assert span["attributes"]["wirespan.response.size"] == len(ANSWER)
