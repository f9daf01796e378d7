"""What befalls connections is counted at the right end: it is made happen for real, and the system's own counts compared."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.availability import need_command
from support.edge_points import Metrics, counting
from support.namespaces import Network, Node, dropping, run
from support.nodes import inside
from support.processes import free_port
from support.puppets import Puppet
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

PORT = free_port()
#: l_onoff, l_linger of struct linger: close() resets
RESETS = struct.pack("ii", 1, 0)
#: of struct tcp_info: tcpi_total_retrans
TOTAL_RETRANSMITS = 100
#: s; the time for which small sockets wait instead, TCP_TIMEWAIT_LEN of include/net/tcp.h, is 60
LONG_LINGER = 100
MINE, OTHERS = {"network_io_direction": "transmit"}, {"network_io_direction": "receive"}


# ---- what puppets do ----------------------------------------------------------------------------------------------


def listen(sockets: list[socket.socket], address: str = "127.0.0.1", port: int = 0, backlog: int = 100) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockets.append(socket.create_server((address, port), family=family, backlog=backlog))
    return int(sockets[0].getsockname()[1])


def accept(sockets: list[socket.socket], count: int = 1) -> None:
    sockets.extend(sockets[0].accept()[0] for _ in range(count))


def connect(sockets: list[socket.socket], port: int, address: str = "127.0.0.1", count: int = 1) -> None:
    sockets.extend(socket.create_connection((address, port)) for _ in range(count))


def fail_to_connect(sockets: list[socket.socket], port: int, address: str = "127.0.0.1", attempts: int = 0) -> None:
    """attempts: SYNs that are sent again."""
    with socket.socket() as client:
        if attempts:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, attempts)
        with pytest.raises(OSError, match=r"^\[Errno"):
            client.connect((address, port))


def begin_to_connect(sockets: list[socket.socket], port: int, address: str, count: int) -> None:
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((address, port))
        sockets.append(client)


def say(sockets: list[socket.socket], data: bytes = b"question") -> None:
    sockets[-1].sendall(data)


def hear(sockets: list[socket.socket], size: int) -> None:
    assert len(sockets[-1].recv(size, socket.MSG_WAITALL)) == size


def fill(sockets: list[socket.socket]) -> None:
    """Until there is no room at either end."""
    sockets[-1].setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sockets[-1].send(bytes(1 << 16))


def hear_all(sockets: list[socket.socket]) -> None:
    """Until nothing has come for a while."""
    sockets[-1].settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sockets[-1].recv(1 << 20):
            pass


def echo(sockets: list[socket.socket], count: int) -> None:
    for _ in range(count):
        sockets[-1].sendall(sockets[-1].recv(100))


def ask(sockets: list[socket.socket], count: int) -> None:
    for _ in range(count):
        say(sockets)
        hear(sockets, 8)


def end_asking(sockets: list[socket.socket]) -> None:
    sockets[-1].shutdown(socket.SHUT_WR)
    assert sockets[-1].recv(1) == b""


def close(sockets: list[socket.socket], count: int = 1, reset: bool = False) -> None:
    """The last ones."""
    for _ in range(count):
        last = sockets.pop()
        if reset:
            last.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        last.close()


def close_whole(sockets: list[socket.socket]) -> None:
    """So that the kernel keeps the whole socket until the other end has closed too. By default it is replaced by a small one
    when the other end has acknowledged the end, which it does within 40 ms, and nobody can tell whose that was."""
    sockets[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, LONG_LINGER)
    close(sockets)


def retransmits(sockets: list[socket.socket]) -> int:
    info = sockets[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[TOTAL_RETRANSMITS:104], sys.byteorder)


# ---- connections --------------------------------------------------------------------------------------------------


@contextmanager
def connected(count: int = 1) -> Iterator[tuple[Metrics, Puppet, Puppet, int]]:
    """Metrics, client, server, port; with that many connections that nobody has used."""
    with Puppet() as server, Puppet() as client:
        port = server.run(listen)
        with counting(port) as metrics:
            client.run(connect, port, count=count)
            server.run(accept, count)
            yield metrics, client, server, port


def test_connections_are_counted_at_both_ends_and_with_their_duration() -> None:
    with connected(5) as (metrics, client, server, port):
        (at_client, at_server) = sorted(
            metrics.points("wirespan.tcp.connects"), key=lambda p: p.attributes["span.kind"]
        )
        (duration,) = metrics.points("wirespan.tcp.connect.duration")
    common = {"server.port": port, "network.transport": "tcp", "wirespan.peer.class": "machine"}
    assert (at_client.pid, at_client.value) == (client.pid, 5)
    assert at_client.attributes == {"span.kind": "SPAN_KIND_CLIENT", **common}
    assert (at_server.pid, at_server.value) == (server.pid, 5)
    assert at_server.attributes == {"span.kind": "SPAN_KIND_SERVER", **common}
    assert (duration.pid, duration.value) == (client.pid, 5)
    assert 0 < duration.total < 1


def test_open_connections_go_up_and_down() -> None:
    def now() -> list[int]:
        return [metrics.value("wirespan.tcp.connections.open", puppet.pid) for puppet in (client, server)]

    with connected(5) as (metrics, client, server, port):
        assert now() == [5, 5]
        client.run(connect, port, count=3)
        assert now() == [8, 5], "nobody has accepted them"
        server.run(accept, 3)
        assert now() == [8, 8]
        client.run(close, 6)
        assert now() == [2, 8], "the server has not closed its ends"
        server.run(close, 6)
        assert now() == [2, 2]
        client.run(close, 2)
        server.run(close, 2)
        assert now() == [0, 0]
        assert len(metrics.points("wirespan.tcp.connections.open")) == 2, "that there is none is said"


def test_connections_and_listeners_that_are_older_than_the_agent() -> None:
    with Puppet() as server, Puppet() as client:
        port = server.run(listen)
        client.run(connect, port, count=2)
        server.run(accept, 2)
        with counting(port) as metrics:
            assert metrics.value("wirespan.tcp.connections.open", server.pid) == 2
            assert metrics.value("wirespan.tcp.connects", server.pid) == 0
            client.run(connect, port, count=3)
            assert metrics.value("wirespan.tcp.connects", server.pid) == 3
            assert metrics.value("wirespan.tcp.connections.open", client.pid) == 5


def test_a_port_that_another_process_takes_over() -> None:
    with connected(2) as (metrics, client, server, port), Puppet() as successor:
        server.run(close, 3)
        successor.run(listen, "0.0.0.0", port)
        client.run(connect, port, count=3)
        assert metrics.value("wirespan.tcp.connects", server.pid) == 2
        assert metrics.value("wirespan.tcp.connects", successor.pid) == 3


def test_the_last_look_comes_when_nothing_is_attached_any_more() -> None:
    with connected(2) as (metrics, client, server, _):
        metrics.session.detach()
        for puppet in (client, server):
            assert metrics.value("wirespan.tcp.connections.open", puppet.pid) == 2


def test_connections_of_the_agent_are_counted_at_neither_end() -> None:
    with Puppet() as server:
        port = server.run(listen)
        with counting(port) as metrics, socket.create_connection(("127.0.0.1", port)):
            server.run(accept)
            for metric in ("wirespan.tcp.connects", "wirespan.tcp.connections.open"):
                assert metrics.points(metric) == []


HEIR = """
import socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
for _ in range(3):
    connection, _ = listening.accept()
    while question := connection.recv(100):
        connection.sendall(question)
    connection.close()
"""


def test_an_inherited_listener_is_that_of_its_heir() -> None:
    """Socket activation: from the second connection on; who called listen() is all that is known at the first."""
    with socket.create_server(("127.0.0.1", 0)) as listening, Puppet() as client:
        port = listening.getsockname()[1]
        with counting(port) as metrics:
            command = [sys.executable, "-c", HEIR, str(listening.fileno())]
            with subprocess.Popen(command, pass_fds=[listening.fileno()]) as heir:
                for _ in range(3):
                    client.run(connect, port)
                    client.run(ask, 1)
                    client.run(end_asking)
                heir.wait(10)
            assert metrics.value("wirespan.tcp.connects", heir.pid) == 2
            assert sum(point.value for point in metrics.points("wirespan.tcp.connects")) == 6


def counted_by(node: Node, name: str) -> int:
    """A count of the kernel's, of the network namespace."""
    command = node.command("cat", "/proc/net/snmp", "/proc/net/netstat")
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if name in names.split():
            return int(values.split()[names.split().index(name)])
    raise AssertionError(f"there is no {name}")


# ---- failures -----------------------------------------------------------------------------------------------------


def test_a_refused_connection() -> None:
    port = free_port()
    with counting(port) as metrics, Puppet() as client:
        for _ in range(3):
            client.run(fail_to_connect, port)
        (failures,) = metrics.points("wirespan.tcp.connect.failures")
        assert metrics.points("wirespan.tcp.connects") == []
        assert metrics.points("wirespan.tcp.resets") == []
    assert (failures.pid, failures.value) == (client.pid, 3)
    assert failures.attributes == {
        "span.kind": "SPAN_KIND_CLIENT",
        "server.port": port,
        "network.transport": "tcp",
        "error.type": "connection_refused",
        "wirespan.peer.class": "machine",
    }


@contextmanager
def black_hole(node: Node, address: str) -> Iterator[None]:
    """What the node sends there is thrown away."""
    route = [str(need_command("ip")), "-netns", node.namespace, "route"]
    run(*route, "add", "blackhole", f"{address}/32")
    try:
        yield
    finally:
        run(*route, "delete", "blackhole", f"{address}/32")


def test_a_server_whose_answers_get_lost(two_nodes: Network) -> None:
    with inside(two_nodes.server):
        server = Puppet()
    with inside(two_nodes.client):
        client = Puppet()
    with server, client, counting(PORT) as metrics, black_hole(two_nodes.server, two_nodes.client.address):
        server.run(listen, two_nodes.server.address, PORT)
        client.run(fail_to_connect, PORT, two_nodes.server.address, attempts=1)
        assert metrics.value("wirespan.tcp.connect.failures", client.pid, error_type="timeout") == 1
        assert metrics.value("wirespan.tcp.retransmits", client.pid) == counted_by(two_nodes.client, "RetransSegs") > 0
        assert metrics.value("wirespan.tcp.connects", client.pid) == 0
        assert metrics.value("wirespan.tcp.connects", server.pid) == 0


# ---- resets -------------------------------------------------------------------------------------------------------


def wait_for_reset(metrics: Metrics, puppet: Puppet, way: dict[str, str]) -> None:
    """Exactly one. On a processor that has much to do a packet is taken in some time after it was sent."""
    wait_until("a reset", lambda: metrics.value("wirespan.tcp.resets", puppet.pid, **way) > 0)
    assert metrics.value("wirespan.tcp.resets", puppet.pid, **way) == 1


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("by", ["client", "server"])
def test_a_reset_is_sent_by_one_end_and_received_by_the_other(by: str, used: bool) -> None:
    with connected() as (metrics, client, server, _):
        if used:
            client.run(say)
            server.run(echo, 1)
            client.run(hear, 8)
        sender, receiver = (client, server) if by == "client" else (server, client)
        sender.run(close, reset=True)
        wait_for_reset(metrics, sender, MINE)
        wait_for_reset(metrics, receiver, OTHERS)
        assert metrics.value("wirespan.tcp.resets", sender.pid, **OTHERS) == 0
        assert metrics.value("wirespan.tcp.resets", receiver.pid, **MINE) == 0


def test_who_closes_with_unread_data_resets() -> None:
    with connected() as (metrics, client, server, _):
        client.run(say)
        server.run(close)
        wait_for_reset(metrics, server, MINE)
        wait_for_reset(metrics, client, OTHERS)


def test_data_for_who_has_closed_is_a_reset_by_it() -> None:
    with connected() as (metrics, client, server, _):
        server.run(close_whole)
        client.run(say)
        wait_for_reset(metrics, server, MINE)
        wait_for_reset(metrics, client, OTHERS)
        assert metrics.value("wirespan.tcp.resets", server.pid, **OTHERS) == 0


def test_an_orderly_end_is_no_reset() -> None:
    with connected() as (metrics, client, server, _):
        client.run(close)
        server.run(close)
        assert {point.value for point in metrics.points("wirespan.tcp.resets")} == {0}


# ---- packets ------------------------------------------------------------------------------------------------------


def test_retransmissions_are_those_that_the_system_counts(two_nodes: Network) -> None:
    with inside(two_nodes.server):
        server = Puppet()
    with inside(two_nodes.client):
        client = Puppet()
    with server, client, counting(PORT) as metrics:
        server.run(listen, two_nodes.server.address, PORT)
        client.run(connect, PORT, two_nodes.server.address)
        server.run(accept)
        client.run(say)
        server.run(echo, 1)
        client.run(hear, 8)
        assert metrics.value("wirespan.tcp.retransmits", client.pid) == 0
        with dropping(two_nodes.server):
            client.run(say, bytes(20_000))
            wait_until("retransmissions", lambda: client.run(retransmits) >= 3)
        server.run(hear, 20_000)
        for puppet, node in ((client, two_nodes.client), (server, two_nodes.server)):
            ours, theirs = metrics.value("wirespan.tcp.retransmits", puppet.pid), puppet.run(retransmits)
            # Once in some 30 runs the system counts one more, for all connections that send again at that moment; why is not
            # known. What is known then is said.
            if ours != theirs:
                warnings.warn(f"{ours} retransmissions of {theirs}: {circumstances(metrics, node)}", stacklevel=1)
            assert ours <= theirs <= ours + 1
        (points,) = [p for p in metrics.points("wirespan.tcp.retransmits") if p.pid == client.pid]
        assert points.attributes["wirespan.peer.class"] == "external"


def circumstances(metrics: Metrics, node: Node) -> str:
    names = (
        "RetransSegs",
        "TCPRetransFail",
        "TCPTimeouts",
        "TCPLossProbes",
        "TCPSlowStartRetrans",
        "TCPLostRetransmit",
    )
    system = {name: counted_by(node, name) for name in names}
    counters = {key: count for key, count in metrics.counters.snapshot().items() if count}
    return f"{system}, {metrics.points('wirespan.tcp.retransmits')}, {counters}"


def test_an_accept_queue_that_is_full(two_nodes: Network) -> None:
    with inside(two_nodes.server):
        server = Puppet()
    with inside(two_nodes.client):
        client = Puppet()
    with server, client, counting(PORT) as metrics:
        server.run(listen, two_nodes.server.address, PORT, backlog=0)
        client.run(begin_to_connect, PORT, two_nodes.server.address, 6)
        wait_until("drops", lambda: counted_by(two_nodes.server, "ListenDrops") >= 10)
        client.run(close, 6)
        dropped = counted_by(two_nodes.server, "ListenDrops")
        assert metrics.value("wirespan.tcp.accept_queue.overflows", server.pid, server_port=PORT) == dropped
        client.run(begin_to_connect, PORT, two_nodes.server.address, 6)
        wait_until("more drops", lambda: counted_by(two_nodes.server, "ListenDrops") > dropped)
        client.run(close, 6)
        server.run(close)  # between two looks
        assert metrics.value("wirespan.tcp.accept_queue.overflows", server.pid) == counted_by(
            two_nodes.server, "ListenDrops"
        )


def test_a_sender_that_waits_for_a_full_window() -> None:
    def seen() -> float:
        metrics.session.finish_quiet()
        return metrics.value("wirespan.tcp.window.wait_time", client.pid)

    with connected() as (metrics, client, server, _):
        client.run(say)  # it has state from its first byte on
        server.run(hear, 8)
        assert seen() == 0
        client.run(fill)
        wait_until("the window is seen to be full", lambda: seen() > 0.5)
        begin, before, began = time.monotonic(), seen(), time.monotonic()
        time.sleep(1)
        end, after, ended = time.monotonic(), seen(), time.monotonic()
        assert end - began <= after - before <= ended - begin
        server.run(hear_all)
        last = seen()
        time.sleep(0.5)
        assert seen() == last, "there is room again"
        assert metrics.value("wirespan.tcp.window.wait_time", server.pid) == 0


def test_round_trips_are_those_of_one_exchange_in_sixteen() -> None:
    exchanges = 4_000
    with Puppet() as server, Puppet() as client:
        port = server.run(listen)
        with counting(port) as metrics:
            client.run(connect, port)
            server.run(accept)
            server.begin(echo, exchanges)
            client.run(ask, exchanges)
            server.end()
            for puppet in (client, server):
                (srtt,) = [p for p in metrics.points("wirespan.tcp.srtt") if p.pid == puppet.pid]
                (least,) = [p for p in metrics.points("wirespan.tcp.min_rtt") if p.pid == puppet.pid]
                assert srtt.value == least.value
                assert abs(srtt.value - exchanges / 16) < 80, "five standard deviations"
                assert 0 < least.total <= srtt.total < srtt.value * 0.01
