"""The batch that flows through a pipeline of metrics: a request of OTLP, encoded.

Metrics come once an interval, not once an exchange, so they need no columns: whoever makes them encodes them, exporters
send the bytes on, and only who shows them decodes them. Nothing here imports opentelemetry-proto, which takes 5 MB.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricsBatch:
    """data: an encoded ``opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest``. points: data points in it."""

    data: bytes
    points: int

    def __len__(self) -> int:
        return self.points
