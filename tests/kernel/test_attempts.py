"""Attempts to connect that the receiver has not seen begin, or has lost sight of, are counted when they end; so are those lost."""

from __future__ import annotations

import resource
import socket
from typing import Any

import pytest

from support.availability import unavailable
from support.edge_points import Metrics, counting
from support.namespaces import Network, dropping
from support.nodes import inside
from support.processes import free_port
from support.puppets import Puppet
from wirespan.pipeline.counters import Counters
from wirespan.receiver.ebpf import EbpfConfig, kernel_settings
from wirespan.receiver.kernel.session import KernelSession

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("ip", "iptables-legacy")]

PORT = free_port()
#: of bpf/attempts.h
ATTEMPTS_KEPT = 16_384
MANY = 19_000


def begin(sockets: list[socket.socket], address: str, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((address, PORT))
        sockets.append(client)


def give_up(sockets: list[socket.socket]) -> None:
    while sockets:
        sockets.pop().close()


def failures(metrics: Metrics, pid: int) -> int:
    return metrics.value("wirespan.tcp.connect.failures", pid, error_type="connection_aborted")


def unwatched(metrics: Metrics) -> int:
    return metrics.counters.snapshot()["wirespan.attempts.unwatched", ()]


def test_more_attempts_than_are_kept(two_nodes: Network) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < MANY + 100:
        unavailable("a process may not have so many files open", obtainable=False)
    with inside(two_nodes.client), Puppet() as client, counting(PORT) as metrics, dropping(two_nodes.server):
        client.run(begin, two_nodes.server.address, MANY)
        client.run(give_up)
        assert failures(metrics, client.pid) + unwatched(metrics) == MANY
        assert failures(metrics, client.pid) > ATTEMPTS_KEPT // 2
        assert unwatched(metrics) >= MANY - ATTEMPTS_KEPT


def test_an_attempt_that_is_older_than_the_agent(two_nodes: Network) -> None:
    with inside(two_nodes.client), Puppet() as client, dropping(two_nodes.server):
        client.run(begin, two_nodes.server.address, 1)
        with counting(PORT) as metrics:
            client.run(begin, two_nodes.server.address, 2)
            client.run(give_up)
            assert failures(metrics, client.pid) == 2
            assert unwatched(metrics) == 1


def be_refused(_: list[socket.socket], count: int) -> None:
    for _ in range(count):
        with socket.socket() as client:
            client.connect_ex(("127.0.0.1", PORT))


@pytest.mark.parametrize("select", [{}, {"exclude": {"services": ["nobody"]}}], ids=["by_port", "by_process"])
@pytest.mark.parametrize("with_metrics", [True, False])
def test_a_full_ring_loses_only_what_was_to_be_kept(select: dict[str, Any], with_metrics: bool) -> None:
    room, beyond = 1_000, 200  # of the class at its port; the ring, that nobody drains, has less
    config = EbpfConfig.model_validate(
        {
            "select": {"ports": [PORT], **select},
            "spans": {"max_per_second": room},
            "rings": {"exchanges": 65_536},
        }
    )
    counters = Counters()
    with Puppet() as client:
        session = KernelSession(kernel_settings(config, with_metrics), counters)
        try:
            client.run(be_refused, room + beyond)
            kept = session.in_flight()
        finally:
            session.close()
    counted = counters.snapshot()
    assert counted["wirespan.exchanges.observed", ()] == counted["wirespan.exchanges.failed", ()] == room + beyond
    assert counted["wirespan.exchanges.dropped", (("reason", "rate_limit"),)] == beyond
    assert counted["wirespan.exchanges.dropped", (("reason", "ring_full"),)] == room - kept
    assert 100 < kept < room // 2
