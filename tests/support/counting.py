"""An agent that counts exchanges into a file, and what it says there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from support.agent import Agent
from support.metrics import read_metrics

Attributes = dict[str, Any]


def counting(folder: Path, port: int, **ebpf: Any) -> Agent:
    """An agent with a pipeline of each signal, into files."""
    exporters = {"file": {}, "file/metrics": {"path": str(folder / "metrics.jsonl")}}
    pipelines = {
        "traces": {"receivers": ["ebpf"], "exporters": ["file"]},
        "metrics": {"receivers": ["ebpf"], "exporters": ["file/metrics"]},
    }
    receiver = {"select": {"ports": [port]}, "metrics": {"interval": "1s"}, **ebpf}
    service = {"pipelines": pipelines, "telemetry": {"logs": {"encoding": "json"}}}
    return Agent({"receivers": {"ebpf": receiver}, "exporters": exporters, "service": service}, folder)


def points(folder: Path, name: str = "wirespan.exchange.duration") -> list[tuple[Attributes, Any]]:
    """Attributes and points of a metric as it was said last."""
    found = []
    for group in read_metrics(folder / "metrics.jsonl")[-1].resource_metrics:
        for metric in (metric for scope in group.scope_metrics for metric in scope.metrics if metric.name == name):
            for point in (*metric.exponential_histogram.data_points, *metric.sum.data_points):
                values = {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in point.attributes}
                found.append((values, point))
    return found


def counts(folder: Path, *names: str) -> Counter[tuple[Any, ...]]:
    """How many exchanges, by these attributes."""
    found: Counter[tuple[Any, ...]] = Counter()
    for attributes, point in points(folder):
        found[tuple(attributes.get(name) for name in names)] += point.count
    return found
