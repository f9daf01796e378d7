"""Both ends of a connection name an exchange alike, without a word between them: pairs are exact in every situation.

Each situation carries three protocols: one that no parser knows, HTTP, and Redis with 16 requests under way.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.availability import need_command
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, watch
from support.namespaces import Network
from support.nodes import inside
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

#: 10,000 or more, in whole pipelines on each connection.
EXCHANGES = 10_240
CONNECTIONS = 4

#: Nine preludes are more than 2**32 bytes; a Redis value may have 512 MiB.
PRELUDES = 9
PRELUDE_BODY = 480 << 20


@dataclass(frozen=True)
class Messages:
    """What client and server of a protocol send. prelude: what stands before and behind the body of a large request."""

    request: bytes
    response: bytes
    prelude: tuple[bytes, bytes]
    pipeline: int = 1
    window: int = 1

    @property
    def prelude_size(self) -> int:
        return len(self.prelude[0]) + PRELUDE_BODY + len(self.prelude[1])


PROTOCOLS = {
    "unknown": Messages(b"\x00\x00\x00\x04ping", b"\x00\x00\x00\x04pong", (PRELUDE_BODY.to_bytes(4, "big"), b"")),
    "http": Messages(
        b"GET /things?secret=1 HTTP/1.1\r\nHost: there\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        (b"POST /things HTTP/1.1\r\nHost: there\r\nContent-Length: %d\r\n\r\n" % PRELUDE_BODY, b""),
    ),
    "redis": Messages(
        b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n",
        b"$5\r\nvalue\r\n",
        (b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$%d\r\n" % PRELUDE_BODY, b"\r\n"),
        pipeline=16,
        window=4,
    ),
}
NAMES = {"unknown": {"TCP {port}"}, "http": {"GET", "POST"}, "redis": {"GET", "SET"}}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def server_arguments(messages: Messages, *arguments: str) -> list[str]:
    return ["--request-size", str(len(messages.request)), "--response", messages.response.hex(), *arguments]


def ask(address: str, port: int, messages: Messages, *arguments: str, prefix: Sequence[str] = ()) -> None:
    """EXCHANGES of them, spread over the connections; later arguments win over earlier ones."""
    command = [
        *prefix,
        sys.executable,
        str(PROGRAMS / "fixed_client.py"),
        address,
        str(port),
        *("--request", messages.request.hex()),
        *("--response-size", str(len(messages.response))),
        *("--pipeline", str(messages.pipeline)),
        *("--connections", str(CONNECTIONS)),
        *("--exchanges", str(EXCHANGES // CONNECTIONS)),
        *arguments,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def assert_exact(agent: Agent, protocol: str, exchanges: int, port: int) -> list[Span]:
    spans = agent.stop()
    assert_paired(spans, exchanges)
    assert_all_exported(agent, 2 * exchanges)
    assert {span["name"] for span in spans} <= {name.format(port=port) for name in NAMES[protocol]}
    return spans


def assert_exact_on_this_machine(
    folder: Path,
    protocol: str,
    exchanges: int = EXCHANGES,
    *,
    address: str = "127.0.0.1",
    listening: str = "127.0.0.1",
    serving: Sequence[str] = (),
    asking: Sequence[str] = (),
) -> list[Span]:
    """Client and server talk over loopback. address, listening: what they connect to and listen on; serving, asking:
    further arguments of theirs."""
    messages = PROTOCOLS[protocol]
    arguments = server_arguments(messages, "--address", listening, *serving)
    with (
        servers.python_server(PROGRAMS / "fixed_server.py", folder, *arguments, address=listening) as server,
        watch(folder, server.port) as agent,
    ):
        ask(address, server.port, messages, *asking)
        return assert_exact(agent, protocol, exchanges, server.port)


def test_over_loopback(tmp_path: Path, protocol: str) -> None:
    assert_exact_on_this_machine(tmp_path, protocol)


def test_between_two_namespaces_through_a_translated_address(tmp_path: Path, protocol: str, two_nodes: Network) -> None:
    messages, address = PROTOCOLS[protocol], two_nodes.server.address
    arguments = server_arguments(messages, "--address", address)
    with ExitStack() as stack:
        with inside(two_nodes.server):
            server = stack.enter_context(
                servers.python_server(PROGRAMS / "fixed_server.py", tmp_path, *arguments, address=address)
            )
        agent = stack.enter_context(watch(tmp_path, server.port))
        ask(two_nodes.service, server.port, messages, prefix=two_nodes.client.command())
        spans = assert_exact(agent, protocol, EXCHANGES, server.port)
    peers = {span["kind"]: span["attributes"]["network.peer.address"] for span in spans}
    assert peers == {"CLIENT": two_nodes.service, "SERVER": two_nodes.client.address}


def test_from_an_ipv4_client_to_an_ipv6_server(tmp_path: Path, protocol: str) -> None:
    spans = assert_exact_on_this_machine(tmp_path, protocol, listening="::")
    assert {span["attributes"]["network.type"] for span in spans} == {"ipv4"}
    assert {span["attributes"]["client.address"] for span in spans} == {"127.0.0.1"}


def test_over_ipv6(tmp_path: Path, protocol: str) -> None:
    spans = assert_exact_on_this_machine(tmp_path, protocol, address="::1", listening="::1")
    assert {span["attributes"]["network.type"] for span in spans} == {"ipv6"}


def test_with_half_close_before_the_response(tmp_path: Path, protocol: str) -> None:
    assert_exact_on_this_machine(tmp_path, protocol, serving=["--answer-at-end"], asking=["--half-close"])


def test_with_writer_and_reader_in_two_threads(tmp_path: Path, protocol: str) -> None:
    asking = ["--two-threads", "--window", str(PROTOCOLS[protocol].window)]
    assert_exact_on_this_machine(tmp_path, protocol, serving=["--two-threads"], asking=asking)


def test_after_more_than_4_gib_on_one_connection(tmp_path: Path, protocol: str) -> None:
    size, (head, tail) = PROTOCOLS[protocol].prelude_size, PROTOCOLS[protocol].prelude
    preludes = ["--preludes", str(PRELUDES)]
    large = ["--prelude-head", head.hex(), "--prelude-tail", tail.hex(), "--prelude-body", str(PRELUDE_BODY)]
    one = ["--connections", "1", "--exchanges", str(EXCHANGES)]
    serving, asking = [*preludes, "--prelude-size", str(size)], [*preludes, *large, *one]
    spans = assert_exact_on_this_machine(tmp_path, protocol, EXCHANGES + PRELUDES, serving=serving, asking=asking)
    sizes = sorted(span["attributes"]["wirespan.request.size"] for span in spans)
    assert sizes[-2 * PRELUDES :] == [size] * 2 * PRELUDES
    assert sum(sizes) > 2 * 2**32


@pytest.mark.requires_command("redis-server", "redis-benchmark")
def test_redis_benchmark_with_16_requests_under_way(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server, watch(tmp_path, server.port) as agent:
        words = ["-p", str(server.port), "-n", str(EXCHANGES), "-c", "5", "-P", "16", "-t", "set", "-q"]
        subprocess.run([need_command("redis-benchmark"), *words], check=True, capture_output=True)
        spans = agent.stop()
    exchanges = len(spans) // 2
    assert exchanges >= EXCHANGES
    assert_paired(spans, exchanges)
    assert_all_exported(agent, 2 * exchanges)
    assert [span["name"] for span in spans].count("SET") >= 2 * EXCHANGES


@pytest.mark.requires_command("nginx", "ab")
def test_nginx_between_two_namespaces_through_a_translated_address(tmp_path: Path, two_nodes: Network) -> None:
    with ExitStack() as stack:
        with inside(two_nodes.server):
            server = stack.enter_context(servers.nginx(tmp_path, address=two_nodes.server.address))
        agent = stack.enter_context(watch(tmp_path, server.port))
        words = ["-q", "-k", "-n", str(EXCHANGES), "-c", "5", f"http://{two_nodes.service}:{server.port}/"]
        subprocess.run(two_nodes.client.command(need_command("ab"), *words), check=True, capture_output=True)
        assert_exact(agent, "http", EXCHANGES, server.port)
