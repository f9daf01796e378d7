"""What deploy/compose.yaml puts together, without its containers: the agent by config/collector.yaml, a real Collector by
deploy/collector.yaml, a real Jaeger, and a real Prometheus with the rules in deploy/."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support import servers
from support.agent import COMMAND, READY
from support.alerting import DEPLOY, impatient
from support.availability import need_tool
from support.exchanges import PROGRAMS
from support.jaeger_query import query_jaeger
from support.processes import Process, free_port
from support.prometheus_query import query
from support.servers import Jaeger, Prometheus
from support.waiting import wait_until

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_tool("otelcol", "jaeger", "prometheus")]

CONFIGURATION = DEPLOY.parent / "config" / "collector.yaml"
EXCHANGES = 5


@dataclass(frozen=True)
class Composition:
    agent: Process
    collector: Process
    jaeger: Jaeger
    prometheus: Prometheus
    port: int


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    """After some exchanges with a server at ``port``."""
    folder = tmp_path_factory.mktemp("composition")
    with ExitStack() as stack:
        jaeger = stack.enter_context(servers.jaeger(folder))
        prometheus = stack.enter_context(
            servers.prometheus(folder, impatient("UnderscoreEscapingWithSuffixes", folder))
        )
        collector_port = free_port()
        path = folder / "collector.yaml"
        path.write_text(collector_configuration(collector_port, jaeger, prometheus))
        collector = stack.enter_context(Process("otelcol", [need_tool("otelcol"), "--config", path], folder))
        collector.wait_for_log("Everything is ready")
        server = stack.enter_context(servers.python_server(PROGRAMS / "echo_server.py", folder))
        agent = stack.enter_context(started_agent(folder, server.port, collector_port))
        agent.wait_for_log(READY)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            for _ in range(EXCHANGES):
                connection.sendall(b"hello")
                assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
        yield Composition(agent, collector, jaeger, prometheus, server.port)


def collector_configuration(port: int, jaeger: Jaeger, prometheus: Prometheus) -> str:
    """That of deploy/, with the addresses that there are here, and without a port for the Collector's own metrics."""
    text = (DEPLOY / "collector.yaml").read_text()
    places = {
        "0.0.0.0:4317": f"127.0.0.1:{port}",
        "jaeger:4317": f"127.0.0.1:{jaeger.grpc_port}",
        "prometheus:9090": f"127.0.0.1:{prometheus.port}",
    }
    for written, here in places.items():
        assert written in text
        text = text.replace(written, here)
    loaded = yaml.safe_load(text)
    loaded["service"]["telemetry"] = {"metrics": {"level": "none"}}
    return yaml.safe_dump(loaded)


def started_agent(folder: Path, port: int, collector_port: int) -> Process:
    assignments = [
        f"receivers.ebpf.select.ports=[{port}]",
        "receivers.ebpf.metrics.interval=1s",
        "service.telemetry.metrics.readers="
        "[{periodic: {interval: 1000, exporter: {otlp: {protocol: grpc, insecure: true, "
        f'endpoint: "localhost:{collector_port}"}}}}}}}}]',
    ]
    sets = [word for assignment in assignments for word in ("--set", assignment)]
    environment = {"COLLECTOR_ENDPOINT": f"localhost:{collector_port}"}
    return Process("wirespan", [COMMAND, "run", "--config", CONFIGURATION, *sets], folder, environment)


def test_spans_of_both_ends_are_in_jaeger(composition: Composition) -> None:
    def kinds() -> list[str]:
        spans = query_jaeger(composition.jaeger.query_port, "echo_server")
        return [span["kind"] for span in spans if span["attributes"]["server.port"] == composition.port]

    wait_until("spans in Jaeger", lambda: len(kinds()) == 2 * EXCHANGES)
    assert kinds().count("SERVER") == EXCHANGES


@pytest.mark.parametrize("metric", ["wirespan_exchange_duration_seconds", "wirespan_exchanges_observed_total"])
def test_metrics_of_exchanges_and_of_the_agent_are_in_prometheus(composition: Composition, metric: str) -> None:
    wait_until(f"{metric} in Prometheus", lambda: bool(query(composition.prometheus, metric)))


def test_the_agents_log_is_in_the_collectors(composition: Composition) -> None:
    composition.collector.wait_for_log("Watching processes=")
