"""Requests of OTLP as messages of opentelemetry-proto, for processors that change them in place.

Imported with the first request that needs it: opentelemetry-proto takes 5 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..pipeline.component import Signal
from ..pipeline.encoded import EncodedBatch

_REQUESTS: Final[Mapping[Signal, Any]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
#: the fields that lead to spans, metrics and log records
_PATHS: Final[Mapping[Signal, tuple[str, str, str]]] = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}


class ScopeGroup(NamedTuple):
    """What is of one resource and one scope. records: spans, metrics or log records."""

    resource: Any
    scope: Any
    records: Iterable[Any]


def decoded(batch: EncodedBatch) -> Any:
    """The request. What came here has been checked (:mod:`wirespan.pipeline.scanning`), so it is one."""
    return _REQUESTS[batch.signal].FromString(batch.data)


def encoded(batch: EncodedBatch, request: Any) -> EncodedBatch:
    """The request, changed, of the same items."""
    return replace(batch, data=request.SerializeToString())


def resources(signal: Signal, request: Any) -> Iterator[Any]:
    for group in getattr(request, _PATHS[signal][0]):
        yield group.resource


def groups(signal: Signal, request: Any) -> Iterator[ScopeGroup]:
    resources, scopes, records = _PATHS[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            yield ScopeGroup(resource.resource, scope.scope, getattr(scope, records))


def data_points(metric: Any) -> Iterable[Any]:
    data = metric.WhichOneof("data")
    points: Iterable[Any] = () if data is None else getattr(metric, data).data_points
    return points
