"""Connections that cannot be read: TLS by its clear part, HTTP/2 by its preface. Counts and pairs are exact all the same."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import servers
from support.availability import need_command
from support.certificates import certificate
from support.exchanges import assert_all_exported, of_kind, watch
from support.processes import free_port
from support.spans import Span

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("openssl")]

NAME = "shop.example"
REQUESTS = 50
SECRET = b"GET /hunter2 HTTP/1.1\r\n\r\n"


@contextmanager
def answering(folder: Path, version: ssl.TLSVersion, start: bytes = b"") -> Iterator[int]:
    """The port of a server of one TLS connection. start: what the client says before it changes to TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder, NAME))
    context.minimum_version = context.maximum_version = version

    def serve(listening: socket.socket) -> None:
        plain, _ = listening.accept()
        if start:
            assert plain.recv(len(start), socket.MSG_WAITALL) == start
            plain.sendall(b"go ahead")
        with context.wrap_socket(plain, server_side=True) as connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def ask(port: int, start: bytes = b"") -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", port))
    if start:
        plain.sendall(start)
        assert plain.recv(8, socket.MSG_WAITALL) == b"go ahead"
    with context.wrap_socket(plain, server_hostname=NAME) as connection:
        for _ in range(REQUESTS):
            connection.sendall(SECRET)
            assert connection.recv(len(SECRET)) == SECRET


def names(spans: list[Span], kind: str) -> Counter[str]:
    return Counter(span["name"] for span in of_kind(spans, kind))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_named_by_its_handshake_and_never_read(tmp_path: Path, version: ssl.TLSVersion) -> None:
    with answering(tmp_path, version) as port, watch(tmp_path, port) as agent:
        ask(port)
        spans = agent.stop()
        assert_all_exported(agent, len(spans))
    # What a server sends unasked, session tickets and its goodbye, may be in another turn at the other end.
    clients = {span["span_id"] for span in spans if span["kind"] == "CLIENT"}
    assert sum(span["parent_span_id"] in clients for span in of_kind(spans, "SERVER")) >= REQUESTS
    for kind in ("CLIENT", "SERVER"):
        found = names(spans, kind)
        assert found["TLS handshake"] == 1
        # In 1.3 the client's last flight of the handshake may go with its first request, or be an exchange of its own.
        assert found[f"TLS {port}"] in range(REQUESTS, REQUESTS + 3)
        assert found.total() == 1 + found[f"TLS {port}"], "something was taken for another protocol"
    for span in spans:
        assert span["attributes"]["network.protocol.name"] == "tls"
        assert span["attributes"]["wirespan.exchange.delimited"] is False
        assert span["attributes"].get("tls.client.server_name") == (NAME if span["name"] == "TLS handshake" else None)
    assert b"hunter2" not in (tmp_path / "spans.jsonl").read_bytes()


def test_a_connection_that_changes_to_tls_is_followed(tmp_path: Path) -> None:
    start = b"\x00\x00\x00\x08STARTTLS"
    with answering(tmp_path, ssl.TLSVersion.TLSv1_3, start) as port, watch(tmp_path, port) as agent:
        ask(port, start)
        spans = agent.stop()
        assert_all_exported(agent, len(spans))
    for kind in ("CLIENT", "SERVER"):
        found = names(spans, kind)
        assert (found[f"TCP {port}"], found["TLS handshake"]) == (1, 1)
        assert found[f"TLS {port}"] in range(REQUESTS, REQUESTS + 3)


@pytest.mark.requires_command("nginx", "h2load")
def test_http2_is_recognised_by_its_preface_and_not_guessed_at(tmp_path: Path) -> None:
    port = free_port()
    with (
        servers.nginx(tmp_path, f"listen 127.0.0.1:{port} http2;"),
        watch(tmp_path, port) as agent,
    ):
        subprocess.run(
            [need_command("h2load"), "-n", "500", "-c", "4", "-m", "10", f"http://127.0.0.1:{port}/"],
            check=True,
            capture_output=True,
        )
        spans = agent.stop()
        assert_all_exported(agent, len(spans))
    assert len(of_kind(spans, "SERVER")) >= 4
    for span in spans:
        assert span["name"] == "HTTP"
        assert span["attributes"]["network.protocol.name"] == "http"
        assert span["attributes"]["network.protocol.version"] == "2"
        assert span["attributes"]["wirespan.exchange.delimited"] is False
        assert "http.request.method" not in span["attributes"]
