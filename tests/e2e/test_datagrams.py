"""UDP: every datagram that is answered is an exchange at both ends, and they pair; what is none is counted.

A send of UDP has the time of its return, so a server may have the request before its client's span begins.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, watch
from support.maps import stored_sockets
from support.own_metrics import own_metrics
from support.processes import Process, free_port
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

TIMEOUT = {"udp_timeout": "1s", "settle": "200ms"}


def states_of(sockets: Sequence[socket.socket]) -> int:
    """Of how many of them the agent keeps state in the kernel."""
    return stored_sockets([client.fileno() for client in sockets], "udp_sockets")


@contextmanager
def server(folder: Path, *arguments: str, address: str = "127.0.0.1") -> Iterator[int]:
    """A server of datagrams, and its port."""
    port = free_port(address)
    command = [sys.executable, PROGRAMS / "datagram_server.py", str(port), "--address", address, *arguments]
    with Process("datagram_server", command, folder) as process:
        process.wait_for_log("ready")
        yield port


def ask(port: int, *arguments: str, address: str = "127.0.0.1", clients: int = 1) -> None:
    """Run so many clients at once to their end."""
    command = [sys.executable, str(PROGRAMS / "datagram_client.py"), address, str(port), *arguments]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(clients)]
    for client in running:
        _, said = client.communicate(timeout=60)
        assert client.returncode == 0, said


UNCONNECTED = pytest.mark.alone("on a machine that is too busy one in some thousand is not paired; why is not known")
#: exchanges, clients, arguments of server and client
SITUATIONS = {
    "connected": (10_000, 1, [], ["--exchanges", "10000"]),
    "unconnected": (10_000, 1, [], ["--exchanges", "10000", "--unconnected"]),
    "all alike": (10_000, 1, [], ["--exchanges", "10000", "--constant"]),
    "four clients with four under way": (10_000, 4, [], ["--exchanges", "2500", "--window", "4"]),
    "many sockets": (10_000, 1, [], ["--exchanges", "50", "--sockets", "200", "--unconnected"]),
    "two reading threads": (10_000, 2, ["--threads", "2"], ["--exchanges", "5000", "--window", "8"]),
    "many messages a call": (10_240, 2, ["--many", "16"], ["--exchanges", "5120", "--window", "16", "--many"]),
    "the same, unconnected": (
        10_240, 2, ["--many", "16"], ["--exchanges", "5120", "--window", "16", "--many", "--unconnected"]
    ),
    "large": (500, 1, [], ["--exchanges", "500", "--size", "20000"]),
}  # fmt: skip


@pytest.mark.parametrize(
    "situation",
    [pytest.param(name, marks=UNCONNECTED if "--unconnected" in SITUATIONS[name][3] else ()) for name in SITUATIONS],
)
def test_both_ends_see_each_exchange_and_name_it_alike(tmp_path: Path, situation: str) -> None:
    exchanges, clients, serving, asking = SITUATIONS[situation]
    with server(tmp_path, *serving) as port, watch(tmp_path, port) as agent:
        ask(port, *asking, clients=clients)
        spans = agent.stop()
    assert_paired(spans, exchanges, ordered=False)
    assert_all_exported(agent, 2 * exchanges)
    assert {span["name"] for span in spans} == {f"UDP {port}"}
    assert {span["attributes"]["network.transport"] for span in spans} == {"udp"}
    assert {span["attributes"]["wirespan.timing"] for span in spans} == {"after_send"}


@pytest.mark.parametrize(
    ("listening", "address", "arguments", "network"),
    [
        ("::1", "::1", [], "ipv6"),
        ("::1", "::1", ["--unconnected"], "ipv6"),
        ("::", "127.0.0.1", [], "ipv4"),
        ("127.0.0.1", "127.0.0.1", ["--dual-stack"], "ipv4"),
        ("127.0.0.1", "127.0.0.1", ["--dual-stack", "--unconnected"], "ipv4"),
    ],
)
def test_of_both_versions_of_ip(
    tmp_path: Path, listening: str, address: str, arguments: Sequence[str], network: str
) -> None:
    with server(tmp_path, address=listening) as port, watch(tmp_path, port) as agent:
        ask(port, "--exchanges", "1000", "--window", "2", *arguments, address=address)
        spans = agent.stop()
    assert_paired(spans, 1000, ordered=False)
    attributes = [span["attributes"] for span in spans]
    assert {of["network.type"] for of in attributes} == {network}
    assert {of["server.address"] for of in attributes} == {of["client.address"] for of in attributes} == {address}


def test_a_request_that_nobody_answers_is_a_timeout_of_its_client(tmp_path: Path) -> None:
    with (
        server(tmp_path, "--silent") as port,
        watch(tmp_path, port, ebpf=TIMEOUT) as agent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.connect(("127.0.0.1", port))
        client.send(b"is anybody there?")
        (span,) = agent.wait_for_spans(1)
    assert (span["kind"], span["status"], span["attributes"]["error.type"]) == ("CLIENT", "ERROR", "timeout")
    assert span["end"] - span["start"] == 1_000_000_000


def test_a_repeated_request_is_one_exchange_and_says_so(tmp_path: Path) -> None:
    with server(tmp_path, "--delay", "1") as port, watch(tmp_path, port) as agent:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))
            for _ in range(3):
                client.send(b"the same again")
                time.sleep(0.15)
            for _ in range(3):
                assert client.recv(100) == b"the same again"
        spans = agent.stop()
    (found,) = [span for span in spans if span["kind"] == "CLIENT"]
    assert found["attributes"]["wirespan.request.resent"]
    assert found["end"] - found["start"] > 450_000_000


def test_a_request_repeated_beyond_its_timeout_is_several_exchanges(tmp_path: Path) -> None:
    """Where somebody has answered before: else it may be a message that wants no answer."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answering,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        watch(tmp_path, port := free_port(), ebpf=TIMEOUT) as agent,
    ):
        answering.bind(("127.0.0.1", port))
        client.connect(("127.0.0.1", port))
        client.send(b"good morning")
        answering.sendto(*answering.recvfrom(100))
        assert client.recv(100) == b"good morning"
        for _ in range(10):
            client.send(b"good evening")
            time.sleep(0.3)
        found = [span for span in agent.wait_for_spans(4) if span["status"] == "ERROR"]
    assert len(found) >= 2
    assert {span["attributes"]["error.type"] for span in found} == {"timeout"}
    assert {span["kind"] for span in found} == {"CLIENT"}
    assert {span["end"] - span["start"] for span in found} == {1_000_000_000}


def test_an_answer_from_another_address_than_was_asked_is_the_answer(tmp_path: Path) -> None:
    """0.0.0.0 means this machine, which answers as 127.0.0.1; so do those who are asked by multicast."""
    with (
        server(tmp_path, address="0.0.0.0") as port,
        watch(tmp_path, port, ebpf=TIMEOUT) as agent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)
        for number in range(100):
            client.sendto(b"who is there? %d" % number, ("0.0.0.0", port))
            assert client.recvfrom(100)[1] == ("127.0.0.1", port)
        time.sleep(1.5)
        spans = agent.stop()
    assert {span["status"] for span in spans} == {"UNSET"}
    assert sorted(span["kind"] for span in spans) == ["CLIENT"] * 100 + ["SERVER"] * 100


def test_idle_sockets_take_no_memory_of_the_kernel_and_work_when_they_wake(tmp_path: Path) -> None:
    with server(tmp_path) as port, watch(tmp_path, port, ebpf=TIMEOUT) as agent, ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(300)]
        for client in clients:
            client.connect(("127.0.0.1", port))
        for turn in range(2):
            for client in clients:
                client.send(b"turn %d" % turn)
                assert client.recv(100) == b"turn %d" % turn
            assert states_of(clients) == 300
            if turn == 0:
                wait_until("idle sockets are forgotten", lambda: states_of(clients) == 0, timeout=20)
        spans = agent.stop()
    assert_paired(spans, 600, ordered=False)


def test_a_socket_of_another_port_takes_no_memory_of_the_kernel(tmp_path: Path) -> None:
    with server(tmp_path) as port, watch(tmp_path, free_port()) as agent, ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        clients[0].connect(("127.0.0.1", port))
        clients[0].send(b"connected")
        clients[1].sendto(b"unconnected", ("127.0.0.1", port))
        for client in clients:
            assert client.recv(100)
        assert states_of(clients) == 0
        assert agent.stop() == []


def test_a_port_that_nobody_listens_on_refuses(tmp_path: Path) -> None:
    port = free_port()
    with watch(tmp_path, port) as agent, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", port))
        client.send(b"is anybody there?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        (span,) = agent.stop()
    assert (span["kind"], span["attributes"]["error.type"]) == ("CLIENT", "connection_refused")


def test_what_nobody_ever_answers_is_counted_as_one_way(tmp_path: Path) -> None:
    with own_metrics() as metrics:
        with (
            server(tmp_path, "--silent") as port,
            watch(tmp_path, port, ebpf=TIMEOUT, metrics=metrics) as agent,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            for number in range(100):
                client.sendto(b"<34>Oct 11 22:14:15 su: %d" % number, ("127.0.0.1", port))
            time.sleep(1.5)
            assert agent.stop() == []
        assert metrics.value("wirespan.messages", kind="one_way") == 2 * 100


def test_quic_is_counted(tmp_path: Path) -> None:
    long_header = bytes.fromhex("c0000000010888888888888888880000") + bytes(1184)
    with own_metrics() as metrics:
        with server(tmp_path) as port, watch(tmp_path, port, metrics=metrics) as agent:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(("127.0.0.1", port))
                for datagram in (long_header, b"\x40 is a short header"):
                    client.send(datagram)
                    assert client.recv(2000) == datagram
            assert agent.stop() == []
        assert metrics.value("wirespan.messages", kind="quic") == 2 * 4


def test_more_unread_datagrams_than_are_noted_down_are_counted_and_pair_all_the_same(tmp_path: Path) -> None:
    with own_metrics() as metrics:
        with (
            server(tmp_path, "--delay", "0.5") as port,
            watch(tmp_path, port, metrics=metrics) as agent,
            ExitStack() as stack,
        ):
            clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(10)]
            for client in clients:
                client.connect(("127.0.0.1", port))
                for number in range(10):
                    client.send(b"%08d" % number)
            for client in clients:
                assert [client.recv(100) for _ in range(10)] == [b"%08d" % number for number in range(10)]
            spans = agent.stop()
        assert metrics.value("wirespan.datagrams.unnoted", reason="queue_full") == 100 - 64
    assert_paired(spans, 100, ordered=False)
    servers = [span["attributes"] for span in spans if span["kind"] == "SERVER"]
    assert sum("wirespan.queue.duration" not in attributes for attributes in servers) == 100 - 64


def test_the_same_port_of_tcp_is_something_else(tmp_path: Path) -> None:
    with (
        server(tmp_path) as port,
        socket.create_server(("127.0.0.1", port)) as listener,
        watch(tmp_path, port) as agent,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        ask(port, "--exchanges", "10")
        accepted, _ = listener.accept()
        with accepted:
            for one, other in ((client, accepted), (accepted, client)):
                one.sendall(b"over TCP")
                assert other.recv(100) == b"over TCP"
        client.close()
        names = [span["name"] for span in agent.stop()]
    assert {name: names.count(name) for name in names} == {f"UDP {port}": 20, f"TCP {port}": 2}


@pytest.mark.parametrize("probability", [0.25])
def test_both_ends_keep_the_same_share(tmp_path: Path, probability: float) -> None:
    ebpf = {"spans": {"probability": probability}}
    with server(tmp_path) as port, watch(tmp_path, port, ebpf=ebpf) as agent:
        ask(port, "--exchanges", "2000")
        spans = agent.stop()
    assert 0.2 * 2000 < len(spans) / 2 < 0.3 * 2000
    assert_paired(spans, len(spans) // 2, ordered=False)


def test_without_payload_connected_sockets_have_exchanges_and_others_are_counted(tmp_path: Path) -> None:
    """The address that an unconnected socket sends to is in memory of its process, which is not read."""
    with own_metrics() as metrics:
        with server(tmp_path) as port, watch(tmp_path, port, ebpf={"payload": "none"}, metrics=metrics) as agent:
            ask(port, "--exchanges", "1000")
            spans = agent.stop()
        assert [span["kind"] for span in spans] == ["CLIENT"] * 1000
        assert {span["status"] for span in spans} == {"UNSET"}
        assert metrics.value("wirespan.datagrams.unpaired", reason="peer_unknown") == 1000
