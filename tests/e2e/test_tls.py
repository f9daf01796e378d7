"""TLS on a live machine: told by its clear part, timed and sized exactly, and never taken for anything else."""

from __future__ import annotations

import random
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from support import servers
from support.exchanges import assert_all_exported, assert_paired, watch
from support.processes import free_port
from support.spans import Span
from support.tls import NAME, Authority

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("openssl")]

REQUESTS = 50
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: turns that a handshake takes; in TLS 1.3 the client's last message goes with its first request
TURNS = {"1.2": 2, "1.3": 1}
CLOSE = 1  # each end says that it will send no more


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


Serve = Callable[[socket.socket], None]


@contextmanager
def serving(serve: Serve, connections: int = 1) -> Iterator[int]:
    """A port on which ``serve`` has each connection, one after the other."""

    def accept() -> None:
        for _ in range(connections):
            accepted, _ = listener.accept()
            with accepted:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(accepted)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65_536):
        connection.sendall(data)


def echoing(context: ssl.SSLContext) -> Serve:
    def serve(accepted: socket.socket) -> None:
        with context.wrap_socket(accepted, server_side=True) as secured:
            echo(secured)
            secured.unwrap()

    return serve


def talk(connection: socket.socket, requests: int = REQUESTS) -> None:
    numbers = random.Random(7)
    for _ in range(requests):
        message = numbers.randbytes(numbers.choice((1, 60, 3000)))
        connection.sendall(message)
        received = b""
        while len(received) < len(message):
            received += connection.recv(65_536)


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span["name"] == name]


def tls_attributes(span: Span) -> dict[str, object]:
    return {name: value for name, value in span["attributes"].items() if "tls." in name}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("offered", [(), ("http/1.1",)])
def test_a_handshake_says_what_is_clear_and_requests_are_counted_exactly(
    authority: Authority, tmp_path: Path, version: str, by_name: bool, offered: tuple[str, ...]
) -> None:
    context = authority.server(VERSIONS[version], offered)
    with serving(echoing(context)) as port, watch(tmp_path, port) as agent:
        client = authority.client(offered, by_name)
        with connect(port) as plain, client.wrap_socket(plain, server_hostname=NAME if by_name else None) as secured:
            assert secured.version() == f"TLSv{version}"
            talk(secured)
            secured.unwrap()
        spans = agent.stop()
        exchanges = TURNS[version] + REQUESTS + CLOSE
        assert_all_exported(agent, 2 * exchanges)
    assert_paired(spans, exchanges)
    assert {span["attributes"]["network.protocol.name"] for span in spans} == {"tls"}
    assert len(named(spans, f"TLS {port}")) == 2 * (exchanges - 1)
    handshakes = named(spans, "TLS handshake")
    expected: dict[str, object] = {"tls.protocol.name": "tls", "tls.protocol.version": version}
    if by_name:
        expected["tls.client.server_name"] = NAME
    if not (by_name and offered):  # OpenSSL's hello is longer than what is captured of a request
        expected["wirespan.tls.truncated"] = True
    if offered:
        expected["wirespan.tls.client.alpn"] = offered
    assert len(handshakes) == 2
    for span in handshakes:
        found = tls_attributes(span)
        agreed = found.pop("tls.next_protocol", None)
        assert agreed in (None, *offered) if version == "1.2" else agreed is None
        assert found == expected
    assert {span["attributes"]["wirespan.exchange.delimited"] for span in spans} == {False}
    assert {span["status"] for span in spans} == {"UNSET"}


def test_a_refused_handshake_is_an_error_that_says_why(authority: Authority, tmp_path: Path) -> None:
    def refuse(accepted: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            authority.server(VERSIONS["1.3"]).wrap_socket(accepted, server_side=True)

    with serving(refuse) as port, watch(tmp_path, port) as agent:
        client = authority.client()
        client.maximum_version = VERSIONS["1.2"]
        with connect(port) as plain, pytest.raises(ssl.SSLError):
            client.wrap_socket(plain, server_hostname=NAME)
        spans = agent.stop()
    assert_paired(spans, 1)
    for span in spans:
        assert (span["name"], span["status"]) == ("TLS handshake", "ERROR")
        assert span["attributes"]["error.type"] == "protocol_version"
        assert span["attributes"]["tls.client.server_name"] == NAME


def test_tls_begins_in_the_middle_of_a_connection(authority: Authority, tmp_path: Path) -> None:
    """SMTP's STARTTLS: the exchanges before it are plain, the next one begins the handshake."""
    lines = {b"EHLO test\r\n": b"250 STARTTLS\r\n", b"STARTTLS\r\n": b"220 go ahead\r\n"}

    def serve(accepted: socket.socket) -> None:
        for line, answer in lines.items():
            assert accepted.recv(100) == line
            accepted.sendall(answer)
        echoing(authority.server(VERSIONS["1.3"]))(accepted)

    with serving(serve) as port, watch(tmp_path, port) as agent:
        with connect(port) as plain:
            for line, answer in lines.items():
                plain.sendall(line)
                assert plain.recv(100) == answer
            with authority.client().wrap_socket(plain, server_hostname=NAME) as secured:
                talk(secured)
                secured.unwrap()
        spans = agent.stop()
    exchanges = TURNS["1.3"] + REQUESTS + CLOSE
    assert_paired(spans, len(lines) + exchanges)
    assert len(named(spans, f"TCP {port}")) == 2 * len(lines)
    assert len(named(spans, "TLS handshake")) == 2
    assert len(named(spans, f"TLS {port}")) == 2 * (exchanges - 1)


def client_hello(authority: Authority) -> bytes:
    written = ssl.MemoryBIO()
    handshake = authority.client().wrap_bio(ssl.MemoryBIO(), written, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        handshake.do_handshake()
    return written.read()


#: what ciphertext may look like
LIKENESSES = (
    (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
    (b"*1\r\n$4\r\nPING\r\n" * 3, b"+PONG\r\n" * 3),
    (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    (b"PING\r\n", b"+PONG\r\n"),
    (bytes.fromhex("0019123401000001000000000000037777770377333003636f6d0000010001"), bytes.fromhex("00191234818000")),
)


@pytest.mark.parametrize("before", [b"", b"\x20\0\0\1" + bytes(32)], ids=["at once", "behind another message"])
def test_whatever_ciphertext_looks_like_it_is_never_another_protocol(
    authority: Authority, tmp_path: Path, before: bytes
) -> None:
    """A client hello, of which the server reads the first 5 bytes on their own as OpenSSL does; MySQL has a message of its
    own before it that is not answered. Then what looks like plain protocols, with a silence in which the kernel's state of
    the connection is given back."""
    hello, rounds = client_hello(authority), 100

    def serve(accepted: socket.socket) -> None:
        for size in filter(None, (len(before), 5, len(hello) - 5)):
            assert len(accepted.recv(size, socket.MSG_WAITALL)) == size
        accepted.sendall(b"\x16\x03\x03\0\x10" + bytes(16))
        while request := accepted.recv(4096):
            accepted.sendall(dict(LIKENESSES)[request])

    def ask(connection: socket.socket) -> None:
        for _ in range(rounds):
            for request, answer in LIKENESSES:
                connection.sendall(request)
                assert len(connection.recv(len(answer), socket.MSG_WAITALL)) == len(answer)

    with serving(serve) as port, watch(tmp_path, port, ebpf={"settle": "100ms"}) as agent:
        with connect(port) as connection:
            for message in filter(None, (before, hello)):
                connection.sendall(message)
            assert connection.recv(100)
            ask(connection)
            time.sleep(6)
            ask(connection)
        spans = agent.stop()
        exchanges = 1 + 2 * rounds * len(LIKENESSES)
        assert_all_exported(agent, 2 * exchanges)
    assert_paired(spans, exchanges)
    assert len(named(spans, "TLS handshake")) == 2
    assert len(named(spans, f"TLS {port}")) == 2 * (exchanges - 1)


SECURE = """
ssl_certificate {certificate};
ssl_certificate_key {key};
ssl_session_tickets off;
ssl_protocols TLSv1.3;
listen 127.0.0.1:{port} ssl http2;
"""


@pytest.mark.requires_command("nginx")
@pytest.mark.requires_command("curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_and_nginx(authority: Authority, tmp_path: Path, version: str) -> None:
    port = free_port()
    server = SECURE.format(certificate=authority.certificate, key=authority.key, port=port)
    urls = [f"https://{NAME}:{port}/"] * 5
    with servers.nginx(tmp_path, server), watch(tmp_path, port) as agent:
        command = ["curl", "-sS", version, "--cacert", authority.certificate, "--resolve", f"{NAME}:{port}:127.0.0.1"]
        subprocess.run([*command, *urls], check=True, capture_output=True)
        spans = agent.stop()
    handshakes = named(spans, "TLS handshake")
    assert sorted(span["kind"] for span in handshakes) == ["CLIENT", "SERVER"]
    assert {span["attributes"]["network.protocol.name"] for span in spans} == {"tls"}
    for span in handshakes:
        assert span["attributes"]["tls.client.server_name"] == NAME
        assert span["attributes"]["tls.protocol.version"] == "1.3"
    for kind in ("CLIENT", "SERVER"):
        assert len([span for span in spans if span["kind"] == kind]) >= (2 if version == "--http2" else len(urls))
