"""What moves bytes in the kernel without being a call of its own (io_uring), and what only looks like TCP (MPTCP)."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.availability import need_command, unavailable
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.own_metrics import own_metrics
from support.processes import free_port

pytestmark = pytest.mark.requires_bpf

IPPROTO_TCP, IPPROTO_MPTCP = socket.IPPROTO_TCP, 262
#: As the rest of a request, so that a receiver that took it for one would show it.
SECRET = b"/the-secret-of-the-pipe HTTP/1.1\r\nHost: hidden\r\n\r\n"
REST = b"/seen HTTP/1.1\r\nHost: test\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@contextmanager
def io_uring_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Of tests/programs/io_uring_server.c, listening."""
    if Path("/proc/sys/kernel/io_uring_disabled").read_text() != "0\n":
        unavailable("io_uring is switched off by kernel.io_uring_disabled", obtainable=False)
    program = folder / "io_uring_server"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result"]
    subprocess.run([need_command("cc"), *flags, PROGRAMS / "io_uring_server.c", "-o", program], check=True)
    with subprocess.Popen([program, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield process
        finally:
            process.kill()


def test_what_a_task_reads_while_io_uring_receives_is_not_shown(tmp_path: Path) -> None:
    port = free_port()
    exporters = {"file": {}, "debug": {"verbosity": "detailed"}}
    with (
        io_uring_server(tmp_path, port) as server,
        watch(tmp_path, port, exporters=exporters) as agent,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        client.sendall(b"GET ")
        server.stdin.write(SECRET)
        assert server.stdout.readline() == b"reading\n"
        time.sleep(0.1)  # until it is
        client.sendall(REST)
        time.sleep(0.1)
        server.stdin.write(b".")
        assert server.stdout.readline() == b"received %d\n" % len(REST)
        assert client.recv(100) == ANSWER
        agent.wait_for_spans(2)
        spans = agent.stop()
    assert_paired(spans, 1)
    for span in spans:
        assert span["attributes"]["wirespan.request.size"] == len(b"GET " + REST)
        assert span["attributes"]["wirespan.response.size"] == len(ANSWER)
    for shown in ((tmp_path / "spans.jsonl").read_text(), agent.log):
        assert f"{port}" in shown
        assert "the-secret-of-the-pipe" not in shown
        assert "hidden" not in shown


def need_mptcp() -> None:
    enabled = Path("/proc/sys/net/mptcp/enabled")
    if not enabled.exists() or enabled.read_text() != "1\n":
        unavailable("net.mptcp.enabled is not 1", obtainable=False)


@pytest.mark.parametrize(
    ("client_protocol", "server_protocol", "kinds", "dropped"),
    [
        (IPPROTO_MPTCP, IPPROTO_MPTCP, [], 2),
        (IPPROTO_MPTCP, IPPROTO_TCP, ["SERVER"], 1),
        (IPPROTO_TCP, IPPROTO_MPTCP, ["CLIENT", "SERVER"], 0),
    ],
    ids=["both", "client", "server"],
)
def test_ends_that_are_mptcp_are_counted(
    tmp_path: Path, client_protocol: int, server_protocol: int, kinds: list[str], dropped: int
) -> None:
    """Where the client does not ask for it the server's socket is one of TCP."""
    need_mptcp()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, server_protocol) as listening,
        own_metrics() as metrics,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with watch(tmp_path, port, metrics=metrics) as agent:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, client_protocol) as client:
                client.connect(("127.0.0.1", port))
                with listening.accept()[0] as server:
                    for size in (10, 20):
                        client.sendall(bytes(size))
                        assert len(server.recv(size, socket.MSG_WAITALL)) == size
                        server.sendall(bytes(size + 1))
                        assert len(client.recv(size + 1, socket.MSG_WAITALL)) == size + 1
            spans = agent.stop()
            assert_all_exported(agent, 2 * len(kinds))
    for kind in ("CLIENT", "SERVER"):
        attributes = [span["attributes"] for span in of_kind(spans, kind)]
        sizes = [(one["wirespan.request.size"], one["wirespan.response.size"]) for one in attributes]
        assert sizes == ([(10, 11), (20, 21)] if kind in kinds else [])
    if kinds == ["SERVER"]:
        assert {span["parent_span_id"] for span in spans} == {""}, "its client is not observed"
    assert metrics.value("wirespan.connections.dropped", reason="mptcp") == dropped
