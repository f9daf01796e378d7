"""Proxies that splice: what they read goes from socket to socket, and no hook of a receive runs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from support import servers
from support.availability import need_command, unavailable
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.own_metrics import own_metrics
from support.processes import Process, free_port
from support.servers import Listening
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

CONNECTIONS = 8
#: of the exchanges of a connection, each way: what a pipe holds at once (64 KiB), and what it does not
SIZES = [(10, 10), (400_000, 20), (30, 500_000), (300_000, 300_000), (8, 0)]
IDLE = 1.5

#: starts it, in a folder, in front of a port
Proxy = Callable[[Path, int], AbstractContextManager[Listening]]


@pytest.fixture(scope="session")
def go_proxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once; the standard library is all that it needs."""
    go = shutil.which("go")
    if go is None:
        unavailable("there is no go", obtainable=False)
    program = tmp_path_factory.mktemp("go") / "splicing_proxy"
    subprocess.run([go, "build", "-o", program, PROGRAMS / "splicing_proxy.go"], check=True, cwd=program.parent)
    return program


@contextmanager
def _started(name: str, command: list[str | Path], folder: Path, port: int) -> Iterator[Listening]:
    with Process(name, command, folder) as process:
        process.wait_for_port(port)
        yield Listening(process, port)


HAPROXY = """
global
    log stderr local0 warning
    maxconn 200
    nbthread 1
defaults
    mode tcp
    option splice-request
    option splice-response
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen proxy
    bind 127.0.0.1:{port}
    server the 127.0.0.1:{behind}
"""


@pytest.fixture(params=["go", "haproxy"])
def proxy(request: pytest.FixtureRequest) -> Proxy:
    if request.param == "go":
        program = request.getfixturevalue("go_proxy")

        def start(folder: Path, behind: int) -> AbstractContextManager[Listening]:
            port = free_port()
            return _started("proxy", [program, f"127.0.0.1:{port}", f"127.0.0.1:{behind}"], folder, port)
    else:
        haproxy = need_command("haproxy")

        def start(folder: Path, behind: int) -> AbstractContextManager[Listening]:
            port = free_port()
            configuration = folder / "haproxy.cfg"
            configuration.write_text(HAPROXY.format(port=port, behind=behind))
            return _started("proxy", [haproxy, "-db", "-f", configuration], folder, port)

    return start


def exchange(connection: socket.socket, size: int, response: int) -> None:
    """With a length-prefixed server: `size` bytes of content, 8 at least with the length of the response."""
    size = max(size, 8)
    connection.sendall(size.to_bytes(4, "big") + response.to_bytes(4, "big") + bytes(size - 4))
    assert len(connection.recv(response + 4, socket.MSG_WAITALL)) == response + 4


def talk(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for sizes in SIZES:
            exchange(connection, *sizes)


def hop(spans: list[Span], port: int) -> list[Span]:
    """The spans of the connections to this port, and nothing that went wrong."""
    found = [span for span in spans if span["attributes"]["server.port"] == port]
    assert Counter(span["status"] for span in found) == {"UNSET": len(found)}
    return found


def sizes_of(spans: list[Span], kind: str) -> dict[int, list[tuple[int, int]]]:
    """By connection, in their order."""
    found: dict[int, list[tuple[int, int]]] = {}
    for span in of_kind(spans, kind):
        attributes = span["attributes"]
        sizes = attributes["wirespan.request.size"], attributes["wirespan.response.size"]
        found.setdefault(attributes["client.port"], []).append(sizes)
    return found


def test_both_hops_of_a_proxy_that_splices_are_exact(tmp_path: Path, proxy: Proxy) -> None:
    with (
        servers.python_server(PROGRAMS / "length_prefixed_server.py", tmp_path) as server,
        proxy(tmp_path, server.port) as front,
        own_metrics() as metrics,
        watch(tmp_path, front.port, server.port, metrics=metrics) as agent,
    ):
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(talk, [front.port] * CONNECTIONS))
        agent.wait_for_spans(4 * CONNECTIONS * len(SIZES))
        spans = agent.stop()
        assert_all_exported(agent, 4 * CONNECTIONS * len(SIZES))
    truth = [(max(size, 8) + 4, response + 4) for size, response in SIZES]
    for port in (front.port, server.port):
        found = hop(spans, port)
        assert_paired(found, CONNECTIONS * len(SIZES))
        for kind in ("CLIENT", "SERVER"):
            assert list(sizes_of(found, kind).values()) == [truth] * CONNECTIONS
    # What was spliced in truth: otherwise nothing is shown by all this.
    assert metrics.value("wirespan.io.bytes_before_hook") > CONNECTIONS * 500_000


def test_idle_connections_of_a_proxy_that_splices_do_not_time_out(tmp_path: Path, proxy: Proxy) -> None:
    with (
        servers.python_server(PROGRAMS / "length_prefixed_server.py", tmp_path) as server,
        proxy(tmp_path, server.port) as front,
        watch(tmp_path, front.port, server.port, ebpf={"settle": "200ms", "request_timeout": "700ms"}) as agent,
        socket.create_connection(("127.0.0.1", front.port)) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, sizes in enumerate([(20, 30), (400_000, 500_000)], 1):
            exchange(connection, *sizes)
            time.sleep(IDLE)
            spans = agent.wait_for_spans(4 * number)
            assert len(spans) == 4 * number, "each is complete while its connection stays open"
        spans = agent.stop()
        assert_all_exported(agent, 8)
    for port in (front.port, server.port):
        found = hop(spans, port)
        assert_paired(found, 2)
        for kind in ("CLIENT", "SERVER"):
            assert list(sizes_of(found, kind).values()) == [[(24, 34), (400_004, 500_004)]]
        assert all(span["end"] - span["start"] < IDLE * 1e9 for span in found)
