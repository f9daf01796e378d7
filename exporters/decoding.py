"""Decodes requests, for exporters that show them. Imported with the first batch: opentelemetry-proto takes 5 MB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..pipeline.component import Signal
from ..pipeline.encoded import EncodedBatch

Request: TypeAlias = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest

_REQUESTS: Final[Mapping[Signal, type[Request]]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


def decoded(batch: EncodedBatch) -> Request | None:
    """None for what is no request."""
    try:
        return _REQUESTS[batch.signal].FromString(batch.data)
    except DecodeError:
        return None
