"""What flows through a metrics pipeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricsBatch:
    """data: a serialised opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest. points: data points in it."""

    data: bytes
    points: int

    def __len__(self) -> int:
        return self.points
