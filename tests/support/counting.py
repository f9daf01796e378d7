"""An agent that counts what load generators do, and the metrics that it writes into a file."""

from __future__ import annotations

import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from support.agent import Agent
from support.availability import need_command
from support.metrics import read_metrics
from support.own_metrics import OwnMetrics

Attributes = dict[str, Any]


def counting(
    folder: Path,
    *ports: int,
    signals: tuple[str, ...] = ("traces", "metrics"),
    own: OwnMetrics | None = None,
    **ebpf: Any,
) -> Agent:
    """An agent with a pipeline of each signal, into files. own: where its own metrics go."""
    exporters = {"traces": ("file", {}), "metrics": ("file/metrics", {"path": str(folder / "metrics.jsonl")})}
    pipelines = {signal: {"receivers": ["ebpf"], "exporters": [exporters[signal][0]]} for signal in signals}
    receiver = {"select": {"ports": list(ports)}, "metrics": {"interval": "1s"}, **ebpf}
    telemetry = {"logs": {"encoding": "json"}, **({} if own is None else {"metrics": own.telemetry})}
    service = {"pipelines": pipelines, "telemetry": telemetry}
    configured = dict(exporters[signal] for signal in signals)
    return Agent({"receivers": {"ebpf": receiver}, "exporters": configured, "service": service}, folder)


def points(folder: Path, name: str = "wirespan.exchange.duration") -> list[tuple[Attributes, Any]]:
    """Attributes and points of a metric as it was said last."""
    found = []
    for _, metric in metrics(folder):
        if metric.name == name:
            data = metric.exponential_histogram, metric.histogram, metric.sum, metric.gauge
            found += [(attributes_of(point.attributes), point) for kind in data for point in kind.data_points]
    return found


def counts(folder: Path, *names: str) -> Counter[tuple[Any, ...]]:
    """How many exchanges, by these attributes."""
    found: Counter[tuple[Any, ...]] = Counter()
    for attributes, point in points(folder):
        found[tuple(attributes.get(name) for name in names)] += point.count
    return found


def metrics(folder: Path, batch: int = -1) -> Iterator[tuple[InstrumentationScope, Metric]]:
    """All of them as they were said last, with their scopes."""
    for group in read_metrics(folder / "metrics.jsonl")[batch].resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                yield scope.scope, metric


def attributes_of(attributes: Any) -> Attributes:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in attributes}


def generate(name: str, *words: object) -> str:
    """What a load generator says."""
    result = subprocess.run([str(need_command(name)), *map(str, words)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def redis_calls(port: int) -> dict[str, int]:
    """How often Redis has executed each command."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"INFO commandstats\r\nQUIT\r\n")
        answer = connection.makefile().read()
    return {name: int(calls) for name, calls in re.findall(r"^cmdstat_(\S+):calls=(\d+)", answer, re.MULTILINE)}
