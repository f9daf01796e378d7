"""Two nodes on one machine: network namespaces joined by a veth pair, and a Service address that is translated (DNAT)
on its way out of the client's node, as kube-proxy does it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.availability import need_command, need_root

_numbers = itertools.count()


@dataclass(frozen=True)
class Node:
    """A network namespace and its addresses."""

    namespace: str
    address: str
    address6: str

    def command(self, *words: str | Path) -> list[str]:
        """The words that run a command there."""
        return [str(need_command("ip")), "netns", "exec", self.namespace, *map(str, words)]


@dataclass(frozen=True)
class Network:
    """Two nodes. What the client sends to ``service`` arrives at the server's own IPv4 address, port unchanged."""

    client: Node
    server: Node
    service: str


@contextmanager
def network() -> Iterator[Network]:
    """Made for one test, gone after it."""
    need_root()
    ip, iptables = str(need_command("ip")), str(need_command("iptables-legacy"))
    number = f"{os.getpid()}-{next(_numbers)}"  # several runs may share the machine
    client = Node(f"wirespan-client-{number}", "10.123.0.1", "fd12:3::1")
    server = Node(f"wirespan-server-{number}", "10.123.0.2", "fd12:3::2")
    joined = Network(client, server, "10.96.0.10")
    with ExitStack() as cleanup:
        for node in (client, server):
            run(ip, "netns", "add", node.namespace)
            # The veth pair goes with the namespaces.
            cleanup.callback(run, ip, "netns", "delete", node.namespace)
        link = ["link", "add", "node", "type", "veth", "peer", "name", "node", "netns", server.namespace]
        run(ip, "-netns", client.namespace, *link)
        for node in (client, server):
            _bring_up(node)
        run(ip, "-netns", client.namespace, "route", "add", joined.service, "dev", "node")
        translate = ["-d", joined.service, "-j", "DNAT", "--to-destination", server.address]
        run(*client.command(iptables, "-t", "nat", "-A", "OUTPUT", *translate))
        yield joined


@contextmanager
def dropping(node: Node) -> Iterator[None]:
    """What reaches the node is thrown away."""
    rule = ["INPUT", "-j", "DROP"]
    iptables = need_command("iptables-legacy")
    run(*node.command(iptables, "-I", *rule))
    try:
        yield
    finally:
        run(*node.command(iptables, "-D", *rule))


def _bring_up(node: Node) -> None:
    ip = [str(need_command("ip")), "-netns", node.namespace]
    run(*ip, "link", "set", "lo", "up")
    run(*ip, "address", "add", f"{node.address}/24", "dev", "node")
    # Without nodad the address stays tentative, and unusable, for more than a second.
    run(*ip, "address", "add", f"{node.address6}/64", "dev", "node", "nodad")
    run(*ip, "link", "set", "node", "up")


def run(*command: str) -> None:
    """A command that has to succeed."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
