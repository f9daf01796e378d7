"""What there is to watch on this machine, and which command is suggested to somebody who sees nothing."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from support.availability import unavailable
from support.namespaces import Network
from wirespan.receiver.machine import Listener, listeners, suggestion, survey

ALL = range(1, 65_536)


@contextmanager
def listening(*addresses: str) -> Iterator[list[socket.socket]]:
    """A listening socket at each address."""
    with ExitStack() as stack:
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        yield [
            stack.enter_context(socket.create_server((address, 0), family=family))
            for address, family in zip(addresses, families, strict=True)
        ]


def test_listening_sockets_are_found_with_their_addresses() -> None:
    with listening("127.0.0.1", "0.0.0.0", "::1", "::") as servers:
        wanted = {Listener(*server.getsockname()[:2]) for server in servers}
        assert wanted <= set(listeners())
    assert not wanted & set(listeners())


def test_processes_connections_and_ports_are_counted() -> None:
    before = survey()
    with listening("127.0.0.1") as (server,), ExitStack() as connections:
        for _ in range(50):
            connections.enter_context(closing(socket.create_connection(server.getsockname())))
            connections.enter_context(closing(server.accept()[0]))
        child = subprocess.Popen(["sleep", "60"])
        during = survey()
        child.kill()
        child.wait()
    # Others on this machine come and go meanwhile.
    assert 60 <= during.connections - before.connections <= 140
    assert during.listening_ports > before.listening_ports - 5
    assert 1 <= during.processes < 10_000


def test_kernel_threads_are_no_processes() -> None:
    if not Path("/proc/2/comm").exists() or Path("/proc/2/comm").read_text() != "kthreadd\n":
        unavailable("a pid namespace of its own has no kernel threads", obtainable=False)
    assert survey().processes < len([path for path in Path("/proc").iterdir() if path.name.isdigit()])


def test_connections_of_other_network_namespaces_count(two_nodes: Network) -> None:
    code = (
        "import socket, time\n"
        "server = socket.create_server(('127.0.0.1', 9))\n"
        "ends = [(socket.create_connection(('127.0.0.1', 9)), server.accept()) for _ in range(100)]\n"
        "print(flush=True)\n"
        "time.sleep(60)"
    )
    before = survey()
    with subprocess.Popen(two_nodes.client.command(sys.executable, "-c", code), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = survey()
        child.kill()
    assert during.connections - before.connections >= 150


def tcp_table(*listening: tuple[str, int]) -> str:
    rows = [f"   0: {address}:{port:04X} 00000000:0000 0A 00000000:00000000" for address, port in listening]
    return "\n".join(["  sl  local_address rem_address   st", *rows, "   9: 0100007F:1F90 0100007F:9999 01 0:0", ""])


@pytest.mark.parametrize(
    ("there", "watched", "command"),
    [
        ([("0100007F", 8080)], ALL, "curl http://127.0.0.1:8080/"),
        ([("00000000", 8080), ("0100007F", 80)], ALL, "curl http://127.0.0.1:80/"),
        ([("0200000A", 3000)], ALL, "curl http://10.0.0.2:3000/"),
        ([("0100007F", 8080)], (8080, 80), "curl http://127.0.0.1:8080/"),
        ([("0100007F", 4711)], (4711,), "curl http://127.0.0.1:4711/"),
        ([("0100007F", 8080)], (81,), "timeout 60 python3 -m http.server 81 & sleep 1; curl http://127.0.0.1:81/"),
    ],
)
def test_a_server_that_is_there_is_suggested_else_one_of_its_own(
    tmp_path: Path, there: list[tuple[str, int]], watched: Collection[int], command: str
) -> None:
    (tmp_path / "tcp").write_text(tcp_table(*there))
    assert suggestion(watched, tmp_path) == command


def test_redis_is_asked_by_its_own_client(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(tcp_table(("0100007F", 6379)))
    assert (suggestion(ALL, tmp_path) == "redis-cli ping") == (shutil.which("redis-cli") is not None)


def test_ipv6_is_written_as_in_a_url(tmp_path: Path) -> None:
    (tmp_path / "tcp6").write_text(tcp_table(("00000000000000000000000001000000", 8080)))
    assert suggestion(ALL, tmp_path) == "curl http://[::1]:8080/"


def test_a_suggested_server_gets_a_free_port() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another has it, which serves as well
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        found = re.search(r"http\.server (\d+) ", suggestion(ALL, Path("/none")))
        assert found
        assert 8000 < int(found[1]) < 8100
