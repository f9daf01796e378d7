"""A machine that holds tens of thousands of connections."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.availability import unavailable
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.foreign import sockets_of
from support.maps import charged_bytes, stored_sockets
from support.processes import Process

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.alone("50,000 connections, and how soon the agent is ready with them"),
]

#: A process has at most 20,000 descriptors where that cannot be raised: several hold either end.
PROCESSES, CONNECTIONS = 3, 50_000
ASKING = 1_000

#: bytes of a socket's state in the kernel, rounded up
STATE = 2048


@dataclass(frozen=True)
class Crowd:
    """The processes that hold a share of the connections each."""

    servers: Sequence[Process]
    clients: Sequence[Process]

    def ask(self) -> None:
        """An exchange on ASKING connections, of each client the first ones."""
        for client in self.clients:
            client.popen.send_signal(signal.SIGUSR1)
        for client in self.clients:
            client.wait_for_log("asked")

    def stored(self) -> int:
        """Of how many of its sockets the kernel keeps state."""
        return sum(
            stored_sockets(some) for process in (*self.servers, *self.clients) for some in sockets_of(process.pid)
        )


def shares(total: int) -> list[int]:
    return [(total + number) // PROCESSES for number in range(PROCESSES)]


@contextmanager
def crowd(folder: Path, ports: Sequence[int], listening: Sequence[Process]) -> Iterator[Crowd]:
    """All connections are open, and were in use once."""
    with ExitStack() as stack:
        clients = []
        for port, count, asking in zip(ports, shares(CONNECTIONS), shares(ASKING), strict=True):
            command = [sys.executable, PROGRAMS / "idle_crowd.py", str(port), str(count), str(asking)]
            clients.append(stack.enter_context(Process(f"crowd-{port}", command, folder)))
        for client in clients:
            try:
                client.wait_for_log("all are open", timeout=40)
            except AssertionError:
                if "cannot hold" not in client.log:
                    raise
                unavailable(client.log.strip(), obtainable=False)
        yield Crowd(listening, clients)


def started(folder: Path, ports: Sequence[int]) -> tuple[Agent, float]:
    """A ready agent, and how many seconds that took."""
    begin = time.monotonic()
    agent = watch(folder, *ports)
    return agent, time.monotonic() - begin


def test_50_000_idle_connections(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listening = []
        for number in range(PROCESSES):
            folder = tmp_path / f"server-{number}"
            folder.mkdir()
            listening.append(stack.enter_context(servers.python_server(PROGRAMS / "echo_server.py", folder)))
        ports = [server.port for server in listening]
        agent, without = started(tmp_path, ports)
        agent.stop()

        held = stack.enter_context(crowd(tmp_path, ports, [server.process for server in listening]))
        agent, seconds = started(tmp_path, ports)
        with agent:
            assert known_connections(agent) >= 2 * CONNECTIONS
            idle = charged_bytes(agent.pid), held.stored()
            held.ask()
            asked = charged_bytes(agent.pid), held.stored()
            agent.wait_for_spans(2 * ASKING)
            spans = agent.stop()
            assert_all_exported(agent, 2 * ASKING)
    print(f"ready after {seconds:.2f} s, without them {without:.2f} s; maps and sockets with state: {idle}, {asked}")
    assert seconds - without <= 3.0
    for maps, stored in (idle, asked):
        assert maps + stored * STATE <= 40e6, (maps, stored)
    assert_paired(spans, ASKING)
    sizes = Counter(size for share in shares(ASKING) for size in range(1, share + 1))
    for kind in ("CLIENT", "SERVER"):
        for attribute in ("wirespan.request.size", "wirespan.response.size"):
            assert Counter(span["attributes"][attribute] for span in of_kind(spans, kind)) == sizes


def known_connections(agent: Agent) -> int:
    """What it says at its start."""
    agent.process.wait_for_log('"Watching"')
    (watching,) = (entry for entry in map(json.loads, agent.log.splitlines()) if entry["msg"] == "Watching")
    connections: int = watching["connections"]
    return connections
