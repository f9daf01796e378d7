"""Programs that make 32-bit system calls: their registers mean something else, so no memory of theirs is looked at. The
exchanges are exact, and what is shown of them is right or absent."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.availability import need_command, unavailable
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.own_metrics import own_metrics
from support.processes import Process, free_port
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

EXCHANGES = 40
REQUEST = b"GET /compat HTTP/1.1\r\nHost: test\r\n\r\n"
RESPONSE = b"HTTP/1.1 204 No Content\r\n\r\n"

#: It has no C library around it, and its addresses fit into 32 bits.
FLAGS = [
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-nostdlib", "-static", "-no-pie", "-fno-pie"),
    *("-ffreestanding", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns", "-mgeneral-regs-only"),
]


def compiled(folder: Path, bits: str, port: int, *, serve: bool, datagrams: bool) -> Path:
    program = folder / "compat_calls"
    values = {"PORT": port, "EXCHANGES": EXCHANGES, "SERVE": int(serve), "DATAGRAMS": int(datagrams)}
    defined = [f"-D{name}={value}" for name, value in values.items()]
    command = [need_command("gcc"), f"-m{bits}", *FLAGS, *defined, PROGRAMS / "compat_calls.c", "-o", program]
    subprocess.run(command, check=True)
    return program


@contextmanager
def serving(folder: Path, program: Path) -> Iterator[None]:
    with Process("compat_calls", [program], folder) as process:
        try:
            process.wait_for_log("listening")
        except AssertionError:
            if process.popen.returncode in (-11, -4):  # SIGSEGV, SIGILL: there is no such call
                unavailable("this kernel has no 32-bit system calls (CONFIG_IA32_EMULATION)", obtainable=False)
            raise
        yield


def ask(connection: socket.socket) -> None:
    for _ in range(EXCHANGES):
        connection.sendall(REQUEST)
        assert connection.recv(1000) == RESPONSE


def answer(connection: socket.socket) -> None:
    for _ in range(EXCHANGES):
        request, peer = connection.recvfrom(1000)
        assert request == REQUEST
        if peer:
            connection.sendto(RESPONSE, peer)
        else:
            connection.sendall(RESPONSE)


def sizes(spans: Sequence[Span], kind: str) -> list[tuple[int, int]]:
    attributes = [span["attributes"] for span in of_kind(spans, kind)]
    return [(one["wirespan.request.size"], one["wirespan.response.size"]) for one in attributes]


ALL = [(len(REQUEST), len(RESPONSE))] * EXCHANGES


def assert_right_or_absent(spans: Sequence[Span], kind: str, port: int) -> None:
    """What is shown of messages is theirs, or nothing is."""
    for span in of_kind(spans, kind):
        attributes = span["attributes"]
        assert span["name"] in ("GET", "HTTP", f"TCP {port}", f"UDP {port}")
        assert span["status"] == "UNSET"
        assert attributes.get("http.request.method") in ("GET", None)
        assert attributes.get("http.response.status_code") in (204, None)
        assert attributes.get("url.path") in ("/compat", None)
        assert attributes.get("url.full") in (f"http://127.0.0.1:{port}/compat", None)


@pytest.mark.parametrize("bits", ["32", "64"])
def test_over_tcp_a_server_is_exact_and_paired(tmp_path: Path, bits: str) -> None:
    port = free_port()
    program = compiled(tmp_path, bits, port, serve=True, datagrams=False)
    with watch(tmp_path, port) as agent, serving(tmp_path, program):
        with socket.create_connection(("127.0.0.1", port)) as client:
            ask(client)
        spans = agent.stop()
    assert_all_exported(agent, 2 * EXCHANGES)
    assert_paired(spans, EXCHANGES)
    assert sizes(spans, "SERVER") == ALL
    assert_right_or_absent(spans, "SERVER", port)


@pytest.mark.parametrize("bits", ["32", "64"])
def test_over_tcp_a_client_is_exact_and_paired(tmp_path: Path, bits: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        program = compiled(tmp_path, bits, port, serve=False, datagrams=False)
        with watch(tmp_path, port) as agent, Process("compat_calls", [program], tmp_path) as client:
            with listening.accept()[0] as connection:
                answer(connection)
            assert client.popen.wait(5) == 0
            spans = agent.stop()
    assert_all_exported(agent, 2 * EXCHANGES)
    assert_paired(spans, EXCHANGES)
    assert sizes(spans, "CLIENT") == ALL
    assert_right_or_absent(spans, "CLIENT", port)


@pytest.mark.parametrize("bits", ["32", "64"])
def test_over_udp_what_a_server_sends_has_no_known_peer_and_is_counted(tmp_path: Path, bits: str) -> None:
    """Its socket is not connected: only its memory says where it sends to."""
    port = free_port()
    program = compiled(tmp_path, bits, port, serve=True, datagrams=True)
    with (
        own_metrics() as metrics,
        watch(tmp_path, port, metrics=metrics) as agent,
        serving(tmp_path, program),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        ask(client)
        spans = agent.stop()
    assert_all_exported(agent, EXCHANGES)
    assert sizes(spans, "CLIENT") == ALL
    assert {span["name"] for span in spans} == {"GET"}
    assert metrics.value("wirespan.datagrams.unpaired", reason="peer_unknown") == EXCHANGES


@pytest.mark.parametrize("bits", ["32", "64"])
def test_over_udp_a_client_is_exact_and_nobodys_parent(tmp_path: Path, bits: str) -> None:
    """What it asked is not known at its end, so the ends cannot be put together; never to the wrong ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(5)
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        program = compiled(tmp_path, bits, port, serve=False, datagrams=True)
        with watch(tmp_path, port) as agent, Process("compat_calls", [program], tmp_path) as client:
            answer(server)
            assert client.popen.wait(5) == 0
            spans = agent.stop()
    assert_all_exported(agent, 2 * EXCHANGES)
    assert sizes(spans, "CLIENT") == sizes(spans, "SERVER") == ALL
    for kind in ("CLIENT", "SERVER"):
        assert_right_or_absent(spans, kind, port)
    assert {span["parent_span_id"] for span in spans} == {""}
