"""What the agent sees of real traffic arrives at a real Collector and a real Jaeger, field by field as in the file
that it writes in the same run."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from sink import Sink
from support import servers
from support.agent import Agent
from support.availability import need_command
from support.jaeger_query import query_jaeger
from support.spans import Span, from_messages, sort
from support.waiting import wait_until

REQUESTS = 100

#: Answers 4 bytes of length and that many of content by the same.
LENGTH_PREFIXED = """
import socket, struct, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    stream = connection.makefile("rwb")
    while head := stream.read(4):
        stream.write(head + stream.read(*struct.unpack(">I", head)))
        stream.flush()
"""


@dataclass(frozen=True)
class Run:
    """The same spans by way of the file, of the Collector, and of Jaeger."""

    file: list[Span]
    collector: list[Span]
    jaeger: list[Span]


@pytest.fixture(scope="module", params=["otlp_grpc", "otlp_http"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run of the agent that exports over gRPC or over HTTP, with traffic of three protocols."""
    folder = tmp_path_factory.mktemp("backends")
    protocol: str = request.param
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(grpc_port=None))
        assert sink.http_port is not None
        collector = stack.enter_context(servers.collector(folder, sink.http_port))
        jaeger = stack.enter_context(servers.jaeger(folder))
        redis = stack.enter_context(servers.redis(folder))
        nginx = stack.enter_context(servers.nginx(folder))
        script = folder / "lengths.py"
        script.write_text(LENGTH_PREFIXED)
        lengths = stack.enter_context(servers.python_server(script, folder))

        exporters: dict[str, dict[str, object]] = {"file": {}}
        for name, backend in (("collector", collector), ("jaeger", jaeger)):
            port = backend.grpc_port if protocol == "otlp_grpc" else backend.http_port
            exporters[f"{protocol}/{name}"] = {"endpoint": f"http://127.0.0.1:{port}", "tls": {"insecure": True}}
        ports = [redis.port, nginx.port, lengths.port]
        configuration = {
            "receivers": {"ebpf": {"select": {"ports": ports}, "spans": {"probability": 1}}},
            "exporters": exporters,
            "service": {"pipelines": {"traces": {"receivers": ["ebpf"], "exporters": list(exporters)}}},
        }
        agent = stack.enter_context(Agent(configuration, folder))
        make_traffic(redis.port, nginx.port, lengths.port)
        spans = agent.stop()
        wait_until(f"{len(spans)} spans behind the Collector", lambda: sink.span_count >= len(spans))
        services = {span["resource"]["service.name"] for span in spans}
        # A trace is answered whole, for the service at each of its ends.
        stored = {span["span_id"]: span for name in services for span in query_jaeger(jaeger.query_port, name)}
        yield Run(sort(spans), sort(from_messages(sink.spans)), sort(list(stored.values())))


def make_traffic(redis_port: int, nginx_port: int, lengths_port: int) -> None:
    """Requests of Redis, of HTTP (some of which fail), and of a protocol that no parser knows."""
    redis = [
        str(need_command("redis-benchmark")),
        "-p",
        str(redis_port),
        "-n",
        str(REQUESTS),
        "-c",
        "5",
        "-t",
        "set",
        "-q",
    ]
    subprocess.run(redis, check=True, capture_output=True)
    for page in ("/", "/missing"):
        url = f"http://127.0.0.1:{nginx_port}{page}"
        ab = [str(need_command("ab")), "-q", "-k", "-n", str(REQUESTS), url]
        subprocess.run(ab, check=True, capture_output=True)
    with socket.create_connection(("127.0.0.1", lengths_port)) as connection:
        for _ in range(REQUESTS):
            connection.sendall(b"\x00\x00\x00\x05hello")
            assert connection.recv(9, socket.MSG_WAITALL) == b"\x00\x00\x00\x05hello"


pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.requires_tool("otelcol", "jaeger"),
    pytest.mark.requires_command("redis-server", "redis-benchmark", "nginx", "ab"),
]


def test_every_exchange_is_in_the_file_from_both_ends(run: Run) -> None:
    for kind in ("SERVER", "CLIENT"):
        by_protocol = [span["attributes"].get("network.protocol.name") for span in run.file if span["kind"] == kind]
        # redis-benchmark asks for the server's configuration before it begins.
        assert by_protocol.count("redis") >= REQUESTS
        assert by_protocol.count("http") == 2 * REQUESTS
        assert by_protocol.count(None) == REQUESTS


def test_what_the_collector_passes_on_is_what_the_file_has(run: Run) -> None:
    assert run.collector == run.file


def test_what_jaeger_answers_is_what_the_file_has(run: Run) -> None:
    assert run.jaeger == run.file


def test_an_error_of_the_client_is_an_error_in_its_own_span_only(run: Run) -> None:
    missing = [span for span in run.jaeger if span["attributes"].get("http.response.status_code") == 404]
    assert {(span["kind"], span["status"]) for span in missing} == {("CLIENT", "ERROR"), ("SERVER", "UNSET")}
    assert len(missing) == 2 * REQUESTS
