"""Connections that are older than the agent: taken up with their roles right, and exact from the first whole exchange
on."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support import servers
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.maps import stored_sockets
from support.namespaces import Network
from support.nodes import inside
from support.spans import Span
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

BUSY = 20
#: beyond the numbers of the header: the n-th request of a connection has n bytes more than the first
SMALLEST = 8
LARGE = 300_000


class Talker(threading.Thread):
    """Asks without a pause until it is told to stop. The sizes of its requests are its count of them, but for each tenth,
    which is large: somewhere in the middle of one the agent will start."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.numbers = random.Random(seed)
        self.stopping = threading.Event()
        self.truth: list[tuple[int, int]] = []
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.own_port: int = self.connection.getsockname()[1]

    def run(self) -> None:
        while not self.stopping.is_set():
            number = len(self.truth)
            size = SMALLEST + number + (LARGE if number % 10 == 0 else 0)
            response = self.numbers.choice((4, 40, 100_000)) + number
            self.truth.append((size + 4, response + 4))
            exchange(self.connection, size, response)
        self.connection.close()


def exchange(connection: socket.socket, size: int, response: int) -> None:
    """Of a length-prefixed server."""
    connection.sendall(size.to_bytes(4, "big") + response.to_bytes(4, "big") + bytes(size - 4))
    assert len(connection.recv(response + 4, socket.MSG_WAITALL)) == response + 4


@contextmanager
def talking(port: int) -> Iterator[list[Talker]]:
    talkers = [Talker(port, seed) for seed in range(BUSY)]
    try:
        for talker in talkers:
            talker.start()
        yield talkers
    finally:
        for talker in talkers:
            talker.stopping.set()
        for talker in talkers:
            talker.join()


def seen_sizes(spans: list[Span], kind: str) -> dict[int, list[tuple[int, int]]]:
    found = defaultdict(list)
    for span in of_kind(spans, kind):
        attributes = span["attributes"]
        sizes = attributes["wirespan.request.size"], attributes["wirespan.response.size"]
        found[attributes["client.port"]].append(sizes)
    return found


@pytest.mark.alone("who is late to be known as a client, because the processors are busy, is no parent")
def test_20_busy_connections_are_exact_from_their_first_whole_exchange_on(tmp_path: Path) -> None:
    with (
        servers.python_server(PROGRAMS / "length_prefixed_server.py", tmp_path) as server,
        talking(server.port) as talkers,
    ):
        time.sleep(0.5)
        with watch(tmp_path, server.port) as agent:
            at_ready = {talker.own_port: len(talker.truth) for talker in talkers}
            time.sleep(2)
            for talker in talkers:
                talker.stopping.set()
            for talker in talkers:
                talker.join()
            spans = agent.stop()
            assert_all_exported(agent, len(spans))
    for kind in ("SERVER", "CLIENT"):
        seen = seen_sizes(spans, kind)
        for talker in talkers:
            sizes = seen[talker.own_port]
            # All to the last, without a gap, and none that is a part of one.
            assert sizes == talker.truth[-len(sizes) :]
            first = len(talker.truth) - len(sizes)
            assert 0 < first <= at_ready[talker.own_port] + 1, "more was passed over than what was under way"
    # A first exchange may be whole at one end only.
    clients = {span["span_id"] for span in spans if span["kind"] == "CLIENT"}
    parents = {span["parent_span_id"] for span in spans if span["kind"] == "SERVER"}
    assert len(clients ^ parents) <= BUSY


@pytest.mark.alone("who is late to be known as a client, because the processors are busy, is no parent")
def test_a_request_under_way_at_the_start_is_no_exchange(tmp_path: Path) -> None:
    """Each of four connections is in another part of an exchange, and silent while the agent starts."""
    with (
        servers.python_server(PROGRAMS / "length_prefixed_server.py", tmp_path) as server,
        ExitStack() as stack,
    ):
        idle, asking, new = (
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(3)
        )
        for connection in (idle, asking):
            exchange(connection, 10, 10)
        time.sleep(0.05)
        asking.sendall((1000).to_bytes(4, "big") + (20).to_bytes(4, "big"))  # the rest of 1,004 bytes comes later
        with watch(tmp_path, server.port) as agent:
            asking.sendall(bytes(996))
            assert len(asking.recv(24, socket.MSG_WAITALL)) == 24
            for connection in (idle, asking, new):
                exchange(connection, 30, 30)
            agent.wait_for_spans(6)
            spans = agent.stop()
    assert_paired(spans, 3)
    for kind in ("SERVER", "CLIENT"):
        assert list(seen_sizes(spans, kind).values()) == [[(34, 34)]] * 3


@contextmanager
def accepted(
    backlog: int, *options: int, bind_client: bool = False
) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    """The port, and both ends of a connection. options: of the listening socket."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        for option in options:
            listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        port = listening.getsockname()[1]
        client = stack.enter_context(socket.socket())
        if bind_client:
            client.bind(("127.0.0.1", 0))
        client.connect(("127.0.0.1", port))
        server = stack.enter_context(listening.accept()[0])
        yield port, client, server


@pytest.mark.parametrize("bind_client", [False, True], ids=["port-chosen", "client-bound"])
@pytest.mark.parametrize(
    ("backlog", "options"),
    [(16, ()), (0, ()), (0, (socket.SO_REUSEADDR,)), (16, (socket.SO_REUSEPORT,))],
    ids=["backlog", "no-backlog", "reuse-address", "reuse-port"],
)
def test_roles_are_right_however_the_sockets_were_made(
    tmp_path: Path, backlog: int, options: tuple[int, ...], bind_client: bool
) -> None:
    with (
        accepted(backlog, *options, bind_client=bind_client) as (port, client, server),
        accepted(backlog, *options, bind_client=bind_client) as (other_port, *_),
        watch(tmp_path, port, other_port) as agent,
    ):
        client.sendall(b"question")
        assert server.recv(8) == b"question"
        server.sendall(b"answer")
        assert client.recv(6) == b"answer"
        agent.wait_for_spans(2)
        spans = agent.stop()
        own_port = client.getsockname()[1]
    assert_paired(spans, 1)
    assert seen_sizes(spans, "SERVER") == seen_sizes(spans, "CLIENT") == {own_port: [(8, 6)]}
    assert {span["attributes"]["server.port"] for span in spans} == {port}


def test_connections_of_every_namespace_are_taken_up(tmp_path: Path, two_nodes: Network) -> None:
    with ExitStack() as stack:
        with inside(two_nodes.server):
            server = stack.enter_context(
                servers.python_server(
                    PROGRAMS / "fixed_server.py", tmp_path,
                    "--address", two_nodes.server.address, "--request-size", "8", "--response", b"answer".hex(),
                    address=two_nodes.server.address,
                )
            )  # fmt: skip
        with inside(two_nodes.client):
            connection = stack.enter_context(socket.create_connection((two_nodes.service, server.port)))
        for _ in range(3):
            connection.sendall(b"question")
            assert connection.recv(6, socket.MSG_WAITALL) == b"answer"
        time.sleep(0.05)
        agent = stack.enter_context(watch(tmp_path, server.port))
        for _ in range(3):
            connection.sendall(b"question")
            assert connection.recv(6, socket.MSG_WAITALL) == b"answer"
        agent.wait_for_spans(6)
        spans = agent.stop()
    assert_paired(spans, 3)


@pytest.mark.alone("whoever watches the whole machine keeps state of the same connection")
def test_a_connection_that_was_silent_for_long_has_no_state_and_is_exact_again(tmp_path: Path) -> None:
    with (
        servers.python_server(PROGRAMS / "length_prefixed_server.py", tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
        watch(tmp_path, server.port) as agent,
    ):
        exchange(connection, 10, 10)
        assert stored_sockets([connection.fileno()]) == 1
        wait_until("the state is given back", lambda: not stored_sockets([connection.fileno()]), timeout=10)
        for size in (50, 60):
            exchange(connection, size, 20)
        agent.wait_for_spans(6)
        spans = agent.stop()
        assert_paired(spans, 3)
        assert_all_exported(agent, 6)
    sizes = [(14, 14), (54, 24), (64, 24)]
    assert list(seen_sizes(spans, "SERVER").values()) == list(seen_sizes(spans, "CLIENT").values()) == [sizes]
