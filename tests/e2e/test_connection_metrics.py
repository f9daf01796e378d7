"""The agent says in a pipeline of metrics how the connections of real programs do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from support import servers
from support.agent import Agent
from support.availability import need_command
from support.metrics import read_metrics

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("redis-server", "redis-benchmark")]

CLIENTS = 5


def by_kind(request: ExportMetricsServiceRequest, name: str) -> dict[str, int]:
    """The values of sums, or the counts of histograms, by the end whose view it is."""
    counted: dict[str, int] = {}
    for group in request.resource_metrics:
        for metric in (metric for scope in group.scope_metrics for metric in scope.metrics if metric.name == name):
            points = [(point, point.as_int) for point in metric.sum.data_points]
            points += [(point, point.count) for point in metric.exponential_histogram.data_points]  # type: ignore[misc]
            for point, value in points:
                (kind,) = (one.value.string_value for one in point.attributes if one.key == "span.kind")
                counted[kind] = counted.get(kind, 0) + value
    return counted


@pytest.mark.parametrize("pipelined", [1, 16])
def test_connections_of_redis_benchmark(tmp_path: Path, pipelined: int) -> None:
    with servers.redis(tmp_path) as redis:
        ebpf = {"select": {"ports": [redis.port]}, "metrics": {"interval": "1s"}}
        service = {
            "pipelines": {"metrics": {"receivers": ["ebpf"], "exporters": ["file"]}},
            "telemetry": {"logs": {"encoding": "json"}},
        }
        exporters = {"file": {"path": str(tmp_path / "metrics.jsonl")}}
        with Agent({"receivers": {"ebpf": ebpf}, "exporters": exporters, "service": service}, tmp_path) as agent:
            benchmark = [need_command("redis-benchmark"), "-p", str(redis.port), "-c", str(CLIENTS), "-n", "20000"]
            subprocess.run([*benchmark, "-P", str(pipelined), "-t", "set", "-q"], check=True, capture_output=True)
            agent.stop()
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    connects = by_kind(last, "wirespan.tcp.connects")
    assert connects["SPAN_KIND_CLIENT"] == connects["SPAN_KIND_SERVER"] >= CLIENTS
    assert by_kind(last, "wirespan.tcp.connect.duration") == {"SPAN_KIND_CLIENT": connects["SPAN_KIND_CLIENT"]}
    assert set(by_kind(last, "wirespan.tcp.connections.open").values()) <= {0}
    assert all(count > 20 for count in by_kind(last, "wirespan.tcp.srtt").values())
    assert by_kind(last, "wirespan.tcp.srtt").keys() == connects.keys()
