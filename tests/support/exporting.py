"""OTLP exporters started for a test, what their backend answers, and what they counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from sink import Answer
from support.metric_batches import points_of
from support.otlp_batches import batch_of
from wirespan.exporters.sending import SendingExporter
from wirespan.pipeline.counters import Counters

PROTOCOLS = ("otlp_grpc", "otlp_http")
QUICK_RETRY = {"initial_interval": "20ms", "max_interval": "50ms", "max_elapsed_time": "10s"}


def unavailable(delay: float = 0.0) -> Answer:
    return Answer(grpc_code=grpc.StatusCode.UNAVAILABLE, http_status=503, delay=delay)


def refused() -> Answer:
    return Answer(grpc_code=grpc.StatusCode.INVALID_ARGUMENT, http_status=400)


def partly(rejected: int, message: str = "") -> Answer:
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return Answer(body=ExportTraceServiceResponse(partial_success=partial).SerializeToString())


def partly_taken(rejected: int, message: str = "") -> Answer:
    """The same for metrics."""
    partial = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
    return Answer(body=ExportMetricsServiceResponse(partial_success=partial).SerializeToString())


@dataclass
class Running:
    """A started exporter and what it counted."""

    exporter: SendingExporter
    counters: Counters
    consumed: int = field(default=0)
    consumed_points: int = field(default=0)

    def consume_metrics(self, points: int) -> None:
        self.consumed_points += points
        self.exporter.consume_encoded(points_of(points))

    def consume(self, spans: int) -> None:
        self.consumed += spans
        self.exporter.consume(batch_of(spans))

    def consume_items(self, items: str, count: int) -> None:
        """items: as they are called in counters."""
        (self.consume if items == "spans" else self.consume_metrics)(count)

    def count(self, name: str) -> int:
        return self._sum(f"otelcol_exporter_{name}")

    def gauge(self, name: str) -> int:
        return self.counters.gauges()[(name, (("exporter", "under test"),))]

    def kept(self, items: str) -> int:
        """For the next run."""
        return self._sum(f"wirespan.exporter.kept_{items}")

    def recovered(self, items: str) -> int:
        """Of the run before."""
        return self._sum(f"wirespan.exporter.recovered_{items}")

    def _sum(self, name: str) -> int:
        return self.counters.snapshot().get((name, (("exporter", "under test"),)), 0)

    def accounted(self) -> int:
        done = self.count("sent_spans") + self.count("send_failed_spans") + self.count("enqueue_failed_spans")
        return done + self.gauge("wirespan.exporter.in_flight_spans")

    def accounted_points(self) -> int:
        names = (f"{account}_metric_points" for account in ("sent", "send_failed", "enqueue_failed"))
        return sum(map(self.count, names)) + self.gauge("wirespan.exporter.in_flight_metric_points")

    def sent(self, spans: int) -> bool:
        return self.count("sent_spans") == spans

    def shutdown(self, seconds: float = 5.0) -> None:
        self.exporter.shutdown(time.monotonic() + seconds)


class Start(Protocol):
    def __call__(
        self,
        protocol: str,
        endpoint: str | None = None,
        extensions: Mapping[str, Any] = MappingProxyType({}),
        **settings: object,
    ) -> Running: ...
