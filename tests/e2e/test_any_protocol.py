"""A length-prefixed binary protocol that no parser knows is seen as exactly as HTTP: every exchange, its sizes, its
times, who was asked and who asked."""

from __future__ import annotations

import os
import random
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from support import servers
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

CONNECTIONS = 8
EXCHANGES = 300
LARGEST = 200_000
PARTS = ("queue", "request", "processing", "response")


@dataclass(frozen=True)
class Exchange:
    """What the client knows of one. Sizes in bytes with headers; times in ns since the epoch, around the calls."""

    request_size: int
    response_size: int
    asked: int
    answered: int


@dataclass(frozen=True)
class Run:
    """truth: the exchanges of each client port, in order."""

    port: int
    server_pid: int
    truth: dict[int, list[Exchange]]
    spans: list[Span]


def talk(port: int, seed: int) -> tuple[int, list[Exchange]]:
    numbers = random.Random(seed)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own_port: int = connection.getsockname()[1]
        return own_port, [exchange(connection, numbers) for _ in range(EXCHANGES)]


def exchange(connection: socket.socket, numbers: random.Random) -> Exchange:
    # Mostly small, some larger than a socket's buffer takes at once.
    request_size, response_size = (int(LARGEST ** numbers.random()) + 4 for _ in range(2))
    message = request_size.to_bytes(4, "big") + response_size.to_bytes(4, "big") + bytes(request_size - 4)
    asked = time.time_ns()
    # In one piece or with the header on its own.
    cut = numbers.choice((0, 4, 8))
    for piece in (message[:cut], message[cut:]):
        connection.sendall(piece)
    header = connection.recv(4, socket.MSG_WAITALL)
    assert int.from_bytes(header, "big") == response_size
    assert len(connection.recv(response_size, socket.MSG_WAITALL)) == response_size
    return Exchange(request_size + 4, response_size + 4, asked, time.time_ns())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("any_protocol")
    with (
        servers.python_server(PROGRAMS / "length_prefixed_server.py", folder) as server,
        watch(folder, server.port) as agent,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        truth = dict(pool.map(talk, [server.port] * CONNECTIONS, range(CONNECTIONS)))
        spans = agent.stop()
        assert_all_exported(agent, 2 * CONNECTIONS * EXCHANGES)
        yield Run(server.port, server.process.pid, truth, spans)


def by_exchange(run: Run, kind: str) -> Iterator[tuple[Span, Exchange]]:
    """Each span with what the client knows of its exchange."""
    of_port: dict[int, list[Span]] = defaultdict(list)
    for span in of_kind(run.spans, kind):
        of_port[span["attributes"]["client.port"]].append(span)
    assert of_port.keys() == run.truth.keys()
    for port, exchanges in run.truth.items():
        yield from zip(of_port[port], exchanges, strict=True)


def test_every_exchange_is_a_pair(run: Run) -> None:
    assert_paired(run.spans, CONNECTIONS * EXCHANGES)


@pytest.mark.parametrize("kind", ["SERVER", "CLIENT"])
def test_sizes_are_those_of_the_messages(run: Run, kind: str) -> None:
    for span, exchange in by_exchange(run, kind):
        sizes = (span["attributes"]["wirespan.request.size"], span["attributes"]["wirespan.response.size"])
        assert sizes == (exchange.request_size, exchange.response_size)


@pytest.mark.parametrize("kind", ["SERVER", "CLIENT"])
def test_times_lie_within_those_of_the_client(run: Run, kind: str) -> None:
    for span, exchange in by_exchange(run, kind):
        assert exchange.asked <= span["start"] <= span["end"]
        # The server's last send may return after the client has what it sent.
        assert span["end"] <= exchange.answered + (0 if kind == "CLIENT" else 5_000_000)


def test_the_parts_of_a_server_span_are_its_whole(run: Run) -> None:
    for span in of_kind(run.spans, "SERVER"):
        parts = sum(span["attributes"][f"wirespan.{part}.duration"] for part in PARTS)
        assert parts * 1e9 == pytest.approx(span["end"] - span["start"], abs=1000)


def test_the_ends_are_named(run: Run) -> None:
    common = {"server.address": "127.0.0.1", "server.port": run.port, "client.address": "127.0.0.1"}
    common |= {"network.peer.address": "127.0.0.1", "network.transport": "tcp", "network.type": "ipv4"}
    for span in run.spans:
        is_server = span["kind"] == "SERVER"
        own = {
            "process.pid": run.server_pid if is_server else os.getpid(),
            "network.peer.port": span["attributes"]["client.port"] if is_server else run.port,
        }
        assert span["attributes"].items() >= (common | own).items()


def test_an_unknown_protocol_has_its_servers_port_for_a_name_and_is_not_guessed(run: Run) -> None:
    assert {span["name"] for span in run.spans} == {f"TCP {run.port}"}
    assert not any("network.protocol.name" in span["attributes"] for span in run.spans)
    assert {span["status"] for span in run.spans} == {"UNSET"}
