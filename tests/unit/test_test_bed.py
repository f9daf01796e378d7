"""The test bed itself: servers start, wait, end; namespaces translate; a missing tool is a skip or a failure."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support import servers
from support.availability import unavailable
from support.namespaces import Network, network
from support.processes import Process, accepts
from support.waiting import wait_until

ECHO = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
connection, _ = socket.create_server((sys.argv[1], 4000), family=family).accept()
connection.sendall(connection.recv(9))
"""


def test_a_redis_server_answers_and_is_gone_afterwards(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        connection.sendall(b"PING\r\n")
        assert connection.recv(16) == b"+PONG\r\n"
    assert server.process.popen.returncode == 0
    assert not accepts(server.port)


def test_nginx_serves_the_folder_of_the_test(tmp_path: Path) -> None:
    with (
        servers.nginx(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200 OK")


def test_a_process_that_ends_early_fails_the_wait_with_its_output(tmp_path: Path) -> None:
    with (
        Process("early", [sys.executable, "-c", "print('no such option')"], tmp_path) as process,
        pytest.raises(AssertionError, match="no such option"),
    ):
        process.wait_for_log("ready")


def test_a_process_that_ignores_sigterm_is_killed_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.processes.STOP_TIMEOUT", 0.2)
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    with Process("stubborn", [sys.executable, "-c", script], tmp_path) as process:
        process.wait_for_log("up")
    assert process.popen.returncode == -9


@pytest.mark.parametrize("through", ["the service address", "IPv4", "IPv6"])
def test_a_connection_between_namespaces_reaches_the_server(two_nodes: Network, tmp_path: Path, through: str) -> None:
    address = {
        "the service address": two_nodes.service,
        "IPv4": two_nodes.server.address,
        "IPv6": two_nodes.server.address6,
    }[through]
    bound = two_nodes.server.address6 if through == "IPv6" else two_nodes.server.address
    listen = two_nodes.server.command(sys.executable, "-c", ECHO, bound)
    client = f"import socket; c = socket.create_connection(('{address}', 4000)); c.sendall(b'over'); print(c.recv(9))"
    with Process("echo", listen, tmp_path):
        connect = two_nodes.client.command(sys.executable, "-c", client)

        def answered() -> bool:
            return subprocess.run(connect, capture_output=True, text=True).stdout == "b'over'\n"

        wait_until(f"an answer through {through}", answered)


def test_namespaces_are_gone_after_the_test() -> None:
    with network() as joined:
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert joined.client.namespace in names
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert joined.client.namespace not in names
    assert joined.server.namespace not in names


def test_what_the_machine_could_have_is_skipped_by_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no wrk"):
        unavailable("no wrk")


def test_what_the_machine_could_have_is_a_failure_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no wrk"):
        unavailable("no wrk")


def test_what_the_machine_cannot_have_is_skipped_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception, match="no BTF"):
        unavailable("no BTF", obtainable=False)
