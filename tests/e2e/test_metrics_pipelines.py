"""The agent with a pipeline of each signal: what it counts of real traffic arrives at a real Collector over both transports,
as its own file has it, and agrees with its spans."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from sink import Sink
from support import servers
from support.agent import Agent
from support.availability import need_command
from support.exchanges import accounts
from support.metrics import metrics_from_json, read_metrics
from support.spans import Span
from support.waiting import wait_until

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.requires_tool("otelcol"),
    pytest.mark.requires_command("redis-server", "redis-benchmark"),
]

REQUESTS = 500


@dataclass(frozen=True)
class Run:
    """spans, file: what the agent wrote. collector, collector_json: the requests behind a Collector."""

    protocol: str
    agent: Agent
    spans: list[Span]
    file: list[ExportMetricsServiceRequest]
    collector: list[ExportMetricsServiceRequest]
    collector_json: list[ExportMetricsServiceRequest]


@pytest.fixture(scope="module", params=["otlp_grpc", "otlp_http"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder: Path = tmp_path_factory.mktemp("metrics")
    protocol: str = request.param
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(grpc_port=None))
        assert sink.http_port is not None
        collector = stack.enter_context(servers.collector(folder, sink.http_port))
        redis = stack.enter_context(servers.redis(folder))
        port = collector.grpc_port if protocol == "otlp_grpc" else collector.http_port
        exporters = {
            protocol: {"endpoint": f"http://127.0.0.1:{port}"},
            "file": {},
            "file/metrics": {"path": str(folder / "metrics.jsonl")},
        }
        pipelines = {
            "traces": {"receivers": ["ebpf"], "exporters": [protocol, "file"]},
            "metrics": {"receivers": ["ebpf"], "exporters": [protocol, "file/metrics"]},
        }
        ebpf = {"select": {"ports": [redis.port]}, "metrics": {"interval": "1s"}}
        service = {"pipelines": pipelines, "telemetry": {"logs": {"encoding": "json"}}}
        agent = stack.enter_context(
            Agent({"receivers": {"ebpf": ebpf}, "exporters": exporters, "service": service}, folder)
        )
        benchmark = [need_command("redis-benchmark"), "-p", str(redis.port), "-n", str(REQUESTS), "-c", "5"]
        subprocess.run([*benchmark, "-t", "set", "-q"], check=True, capture_output=True)
        spans = agent.stop()
        file = read_metrics(folder / "metrics.jsonl")
        wait_until("all metrics behind the Collector", lambda: len(sink.metrics) >= len(file) <= len(sink.metrics_json))
        wait_until("all spans behind the Collector", lambda: sink.span_count >= len(spans))
        theirs = [metrics_from_json(request) for request in sink.metrics_json]
        yield Run(protocol, agent, spans, file, sink.metrics, theirs)


def in_order(requests: list[ExportMetricsServiceRequest]) -> list[bytes]:
    """A Collector may overtake itself, and says of points without values below 0 that they have no such buckets."""
    for request in requests:
        for group in request.resource_metrics:
            for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
                for point in metric.exponential_histogram.data_points:
                    point.positive.SetInParent()
                    point.negative.SetInParent()
    return sorted(request.SerializeToString(deterministic=True) for request in requests)


def test_the_collector_has_every_request_as_the_file_has_it(run: Run) -> None:
    assert run.file
    assert in_order(run.collector) == in_order(run.file)


def test_the_json_of_the_collector_says_what_the_file_says(run: Run) -> None:
    assert in_order(run.collector_json) == in_order(run.file)


def exchanges_by_kind(request: ExportMetricsServiceRequest) -> dict[str, int]:
    counted: dict[str, int] = {}
    for group in request.resource_metrics:
        for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
            if metric.name == "wirespan.exchange.duration":
                for point in metric.exponential_histogram.data_points:
                    kind = next(a.value.string_value for a in point.attributes if a.key == "span.kind")
                    counted[kind] = counted.get(kind, 0) + point.count
    return counted


def test_the_last_request_has_counted_the_exchanges_of_the_spans(run: Run) -> None:
    kinds = [span["kind"] for span in run.spans]
    assert len(kinds) >= 2 * REQUESTS
    assert exchanges_by_kind(run.file[-1]) == {f"SPAN_KIND_{kind}": kinds.count(kind) for kind in set(kinds)}


def test_the_identity_is_about_the_exporters_of_spans(run: Run) -> None:
    assert {account["exporter"] for account in accounts(run.agent)} == {"file", run.protocol}
    for account in accounts(run.agent):
        assert (account["exported"], account["unaccounted"]) == (len(run.spans), 0)


def test_an_agent_with_a_pipeline_of_metrics_alone_counts_and_has_no_spans_to_lose(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as redis:
        ebpf = {"select": {"ports": [redis.port]}, "metrics": {"interval": "1s"}}
        pipelines = {"metrics": {"receivers": ["ebpf"], "exporters": ["file"]}}
        exporters = {"file": {"path": str(tmp_path / "metrics.jsonl")}}
        service = {"pipelines": pipelines, "telemetry": {"logs": {"encoding": "json"}}}
        with Agent({"receivers": {"ebpf": ebpf}, "exporters": exporters, "service": service}, tmp_path) as agent:
            benchmark = [need_command("redis-benchmark"), "-p", str(redis.port), "-n", str(REQUESTS), "-c", "5"]
            subprocess.run([*benchmark, "-t", "set", "-q"], check=True, capture_output=True)
            agent.stop()
    counted = exchanges_by_kind(read_metrics(tmp_path / "metrics.jsonl")[-1])
    assert counted["SPAN_KIND_SERVER"] == counted["SPAN_KIND_CLIENT"] >= REQUESTS
    assert accounts(agent) == []
    assert "resourceSpans" not in (tmp_path / "metrics.jsonl").read_text()
