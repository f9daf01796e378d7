"""Beside the SDKs of applications every call is one tree and counted once, whoever traces it.

The programs export OTLP to a sink, wirespan to a file; what a backend would make of both together is looked at.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sink import Sink
from support import servers
from support.agent import Agent
from support.exchanges import PROGRAMS, assert_all_accounted, of_kind, watch
from support.namespaces import Network
from support.nodes import inside
from support.service_graph import OUTSIDE, calls, trees
from support.spans import Span, from_messages
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

CALLS = 400
SERVER = PROGRAMS / "traced_server.py"
OTLP_GRPC = 4317
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
#: ms between exports, where it is of no interest when an SDK exports: the environment has told of it already
DELAY = {"OTEL_BSP_SCHEDULE_DELAY": "1000"}


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(grpc_port=None) as listening:
        yield listening


def call(
    port: int, *arguments: str, calls: int = CALLS, address: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> None:
    words = [*prefix, sys.executable, str(PROGRAMS / "traced_client.py"), f"http://{address}:{port}/things"]
    result = subprocess.run([*words, "--calls", str(calls), *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def of_sdk(sink: Sink) -> list[Span]:
    return list(from_messages(sink.spans))


REUSE = pytest.mark.parametrize("reuse", [[], ["--close"]], ids=["kept alive", "a connection each"])


@REUSE
def test_no_sdk(tmp_path: Path, reuse: list[str]) -> None:
    with servers.python_server(SERVER, tmp_path) as server, watch(tmp_path, server.port) as agent:
        call(server.port, *reuse)
        ours = agent.stop()
    assert calls(ours) == {("traced_client", "traced_server"): CALLS}
    assert len(trees(ours)) == CALLS


@REUSE
def test_an_sdk_at_the_client_alone(tmp_path: Path, sink: Sink, reuse: list[str]) -> None:
    with servers.python_server(SERVER, tmp_path) as server, watch(tmp_path, server.port, http_port(sink)) as agent:
        call(server.port, "--exporter", exporter(sink), *reuse)
        ours = agent.stop()
    assert Counter(span["kind"] for span in ours) == {"SERVER": CALLS}
    merged = ours + of_sdk(sink)
    assert calls(merged) == {("client", "traced_server"): CALLS}
    assert len(trees(merged)) == CALLS
    assert_skipped(agent, CALLS)


@REUSE
def test_an_sdk_at_the_client_whose_exports_are_not_seen(tmp_path: Path, sink: Sink, reuse: list[str]) -> None:
    with servers.python_server(SERVER, tmp_path) as server, watch(tmp_path, server.port) as agent:
        call(server.port, "--exporter", exporter(sink), *reuse)
        ours = agent.wait_for_spans(CALLS, timeout=12)
        ours = agent.stop()
    merged = ours + of_sdk(sink)
    assert calls(merged) == {("client", "traced_server"): CALLS}
    assert len(trees(merged)) == CALLS
    assert assert_all_accounted(agent)["skipped"] == CALLS


@REUSE
@pytest.mark.parametrize("configured", ["in the environment", "in code"])
def test_an_sdk_at_both_ends(tmp_path: Path, sink: Sink, reuse: list[str], configured: str) -> None:
    """In code no environment tells that the server has one, and it exports only every five seconds."""
    with ExitStack() as stack:
        arguments = stack.enter_context(sdk(sink, configured))
        server = stack.enter_context(servers.python_server(SERVER, tmp_path, *arguments))
        agent = stack.enter_context(watch(tmp_path, server.port, http_port(sink)))
        call(server.port, *arguments, *reuse)
        wait_until("both have exported", lambda: sink.span_count == 2 * CALLS, 15)
        ours = agent.stop()
    merged = ours + of_sdk(sink)
    assert ours == []
    assert calls(merged) == {("client", "server"): CALLS}
    assert len(trees(merged)) == CALLS
    assert_skipped(agent, 2 * CALLS)


@REUSE
def test_an_sdk_at_the_server_alone(tmp_path: Path, sink: Sink, reuse: list[str]) -> None:
    """Nothing on the wire names the server's trace, so the client's side is a trace of its own."""
    with ExitStack() as stack:
        with sdk(sink, "in the environment") as arguments:
            server = stack.enter_context(servers.python_server(SERVER, tmp_path, *arguments))
        agent = stack.enter_context(watch(tmp_path, server.port, http_port(sink)))
        call(server.port, *reuse)
        server.process.stop()
        ours = agent.stop()
    merged = ours + of_sdk(sink)
    assert Counter(span["kind"] for span in ours) == {"CLIENT": CALLS}
    assert calls(merged) == {(OUTSIDE, "server"): CALLS}
    assert len(trees(merged)) == 2 * CALLS
    assert_skipped(agent, CALLS)


UPSTREAM = "upstream behind {{ server 127.0.0.1:{port}; keepalive 16; }}"
PROXY = 'location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "{connection}"; }}'


@REUSE
@pytest.mark.requires_command("nginx")
def test_a_proxy_that_passes_the_header_on(tmp_path: Path, sink: Sink, reuse: list[str]) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(servers.python_server(SERVER, tmp_path))
        proxy = PROXY.format(connection="close" if reuse else "")
        nginx = stack.enter_context(servers.nginx(tmp_path, proxy, http=UPSTREAM.format(port=server.port)))
        agent = stack.enter_context(watch(tmp_path, server.port, nginx.port, http_port(sink)))
        call(nginx.port, "--exporter", exporter(sink), *reuse)
        ours = agent.stop()
    merged = ours + of_sdk(sink)
    assert calls(merged) == {("client", "nginx"): CALLS, ("nginx", "traced_server"): CALLS}
    assert len(trees(merged)) == CALLS
    assert Counter((span["resource"]["service.name"], span["kind"]) for span in ours) == {
        ("nginx", "SERVER"): CALLS,
        ("nginx", "CLIENT"): CALLS,
        ("traced_server", "SERVER"): CALLS,
    }
    assert_skipped(agent, CALLS)


def test_exports_by_grpc_are_known_by_their_port(tmp_path: Path, two_nodes: Network) -> None:
    """Its first exchanges have spans: in code no environment tells that the server has an SDK, and no header does."""
    with ExitStack() as stack:
        with inside(two_nodes.server):
            sink = stack.enter_context(Sink(grpc_port=OTLP_GRPC, http_port=None))
            arguments = ["--exporter", f"http://127.0.0.1:{OTLP_GRPC}", "--address", two_nodes.server.address]
            server = stack.enter_context(
                servers.python_server(SERVER, tmp_path, *arguments, address=two_nodes.server.address)
            )
        agent = stack.enter_context(watch(tmp_path, server.port, OTLP_GRPC))
        call(server.port, address=two_nodes.server.address, prefix=two_nodes.client.command())
        agent.wait_for_spans(2 * CALLS)
        wait_until("the server has exported", lambda: sink.span_count == CALLS, 15)
        time.sleep(2)  # until the exchange of the export is complete and drained
        call(server.port, address=two_nodes.server.address, prefix=two_nodes.client.command())
        ours = agent.stop()
    assert Counter(span["kind"] for span in ours) == {"CLIENT": 2 * CALLS, "SERVER": CALLS}
    assert {span["attributes"]["server.port"] for span in ours} == {server.port}
    assert_skipped(agent, CALLS)


def test_both_emits_every_side_and_marks_those_that_an_sdk_speaks_for(tmp_path: Path, sink: Sink) -> None:
    with sdk(sink, "in code") as arguments, servers.python_server(SERVER, tmp_path, *arguments) as server:
        ebpf = {"instrumented": "both"}
        with watch(tmp_path, server.port, http_port(sink), ebpf=ebpf) as agent:
            call(server.port, *arguments)
            call(server.port, *arguments)
            server.process.stop()
            ours = agent.stop()
    served = [span for span in ours if span["attributes"]["server.port"] == server.port]
    assert Counter(span["kind"] for span in served) == {"CLIENT": 2 * CALLS, "SERVER": 2 * CALLS}
    assert len(trees(served + of_sdk(sink))) == 2 * CALLS
    assert len(served) < len(ours)  # exports
    assert {span["attributes"].get("wirespan.instrumented") for span in served} == {None, True}
    assert assert_all_accounted(agent)["skipped"] == 0


def test_an_unsampled_request_joins_its_trace_as_a_root(tmp_path: Path, sink: Sink) -> None:
    with servers.python_server(SERVER, tmp_path) as server, watch(tmp_path, server.port) as agent:
        call(server.port, "--exporter", exporter(sink), "--ratio", "0")
        ours = agent.stop()
    assert of_sdk(sink) == []
    assert calls(ours) == {("traced_client", "traced_server"): CALLS}
    assert len(trees(ours)) == CALLS
    assert all(span["parent_span_id"] == "" for span in of_kind(ours, "CLIENT"))


def test_what_is_sampled_says_how_though_its_trace_id_does_not(tmp_path: Path, sink: Sink) -> None:
    ebpf = {"spans": {"probability": 0.5}}
    with (
        servers.python_server(SERVER, tmp_path) as server,
        watch(tmp_path, server.port, http_port(sink), ebpf=ebpf) as agent,
    ):
        call(server.port, "--exporter", exporter(sink), calls=2 * CALLS)
        ours = agent.stop()
    assert 0.7 * CALLS < len(ours) < 1.3 * CALLS
    for span in ours:
        threshold, _, randomness = span["trace_state"].partition(";rv:")
        assert threshold == "ot=th:8"
        assert len(randomness) == 14
        assert int(randomness, 16) >= 8 << 52
    assert calls(ours + of_sdk(sink)) == {("client", "traced_server"): len(ours)}


def assert_skipped(agent: Agent, exchanges: int) -> None:
    """So many of processes that trace themselves were left out, and both ends of a few exports."""
    account = assert_all_accounted(agent)
    assert exchanges + 2 <= account["skipped"] <= exchanges + 40, account
    assert account["dropped"] == {}, account


def exporter(sink: Sink) -> str:
    return f"http://127.0.0.1:{sink.http_port}/v1/traces"


def http_port(sink: Sink) -> int:
    assert sink.http_port is not None
    return sink.http_port


@contextmanager
def sdk(sink: Sink, configured: str) -> Iterator[list[str]]:
    """Arguments of a program with an SDK, whose exporter is configured so."""
    if configured == "in code":
        yield ["--exporter", exporter(sink)]
        return
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {ENDPOINT: f"http://127.0.0.1:{sink.http_port}", **DELAY}.items():
            environment.setenv(name, value)
        yield ["--sdk"]
