"""Decodes metrics, for exporters that show them. Imported with the first batch: opentelemetry-proto takes 5 MB."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from ..pipeline.metrics import MetricsBatch


def decoded(batch: MetricsBatch) -> ExportMetricsServiceRequest | None:
    """None for what is no request."""
    try:
        return ExportMetricsServiceRequest.FromString(batch.data)
    except DecodeError:
        return None
