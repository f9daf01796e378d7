"""HTTP/2 in the clear on a live machine: told by its preface, and never said to be delimited by turns."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from support import servers
from support.exchanges import assert_all_accounted, assert_paired, of_kind, watch
from support.processes import free_port
from support.spans import Span

pytestmark = pytest.mark.requires_bpf


def assert_http2(spans: list[Span]) -> None:
    assert {span["name"] for span in spans} == {"HTTP"}
    for span in spans:
        attributes = span["attributes"]
        assert (attributes["network.protocol.name"], attributes["network.protocol.version"]) == ("http", "2")
        assert attributes["wirespan.exchange.delimited"] is False
        assert not attributes.keys() & {"http.request.method", "url.path", "url.full"}


@pytest.mark.requires_command("nginx")
@pytest.mark.requires_command("h2load")
def test_interleaved_streams_are_turns_of_http2(tmp_path: Path) -> None:
    port, connections = free_port(), 4
    with servers.nginx(tmp_path, f"listen 127.0.0.1:{port} http2;"), watch(tmp_path, port) as agent:
        words = ["h2load", "-n", "400", "-c", str(connections), "-m", "10", f"http://127.0.0.1:{port}/"]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        assert "400 succeeded" in done.stdout
        spans = agent.stop()
        assert_all_accounted(agent)
    assert_http2(spans)
    for kind in ("CLIENT", "SERVER"):
        assert len({span["attributes"]["client.port"] for span in of_kind(spans, kind)}) == connections
    sent, received = (
        sum(span["attributes"]["wirespan.request.size"] for span in of_kind(spans, kind))
        for kind in ("CLIENT", "SERVER")
    )
    assert sent == received


@pytest.mark.requires_command("nginx")
@pytest.mark.requires_command("curl")
def test_curl_with_prior_knowledge(tmp_path: Path) -> None:
    port = free_port()
    with servers.nginx(tmp_path, f"listen 127.0.0.1:{port} http2;"), watch(tmp_path, port) as agent:
        url = f"http://127.0.0.1:{port}/"
        subprocess.run(["curl", "-sS", "--http2-prior-knowledge", url], check=True, capture_output=True)
        spans = agent.stop()
    assert_http2(spans)
    assert {span["kind"] for span in spans} == {"CLIENT", "SERVER"}


def test_a_stream_that_is_older_than_the_agent_is_not_guessed(tmp_path: Path) -> None:
    """Frames of HEADERS and DATA as gRPC sends them, whose preface nobody saw."""
    headers = bytes.fromhex("00000a010400000005") + bytes.fromhex("83868d0f0f0f0f0f0f0f")
    data = bytes.fromhex("000007000100000005") + b"\0\0\0\0\2ab"

    def serve() -> None:
        accepted, _ = listener.accept()
        with accepted:
            while request := accepted.recv(4096):
                accepted.sendall(request)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = Thread(target=serve)
        thread.start()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for _ in range(2):  # before the agent
                connection.sendall(headers + data)
                connection.recv(100)
            with watch(tmp_path, port) as agent:
                for _ in range(20):
                    connection.sendall(headers + data)
                    assert connection.recv(100)
                spans = agent.stop()
        thread.join()
    assert_paired(spans, 20)
    assert {span["name"] for span in spans} == {f"TCP {port}"}
    assert not any("network.protocol.name" in span["attributes"] for span in spans)
