"""OTLP JSON → the same request in protobuf.

Protobuf's JSON mapping but for trace and span ids, which are hex where the mapping has base64
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). opentelemetry-proto is imported with the first request: it
takes 5 MB. What Python makes of JSON takes up to fifty times its size, so one request at a time is decoded, and of so many
values at most.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any, Final

from ...pipeline.component import Signal
from ...pipeline.protobuf import MalformedMessage
from .intake import TooLarge

_IDS: Final = ("traceId", "spanId", "parentSpanId")
#: values in a request, about: what is between commas, and what has braces or brackets
VALUES: Final = 1_000_000
#: the members of a metric that hold its points
_DATA: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")

_one_at_a_time = Lock()


def encoded(signal: Signal, text: bytes) -> bytes:
    """Raises MalformedMessage for what is no request of the signal, or TooLarge."""
    from google.protobuf.json_format import ParseDict, ParseError

    if sum(map(text.count, (b",", b"{", b"["))) > VALUES:
        raise TooLarge(f"the JSON has more than {VALUES} values")
    with _one_at_a_time:
        try:
            tree = json.loads(text)
            if not isinstance(tree, dict):
                raise MalformedMessage("not a JSON object")
            _rewrite_ids(tree)
            request = ParseDict(tree, _message_of(signal)(), ignore_unknown_fields=True)
            data: bytes = request.SerializeToString()
        except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise MalformedMessage("not OTLP JSON") from error
    return data


def _message_of(signal: Signal) -> Any:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    requests: Mapping[Signal, Any] = {
        "traces": ExportTraceServiceRequest,
        "metrics": ExportMetricsServiceRequest,
        "logs": ExportLogsServiceRequest,
    }
    return requests[signal]


def _rewrite_ids(request: dict[str, Any]) -> None:
    """Hex to base64, wherever ids may stand; raises ValueError where there is no hex."""
    for owner in (*_spans(request), *_log_records(request), *_exemplars(request)):
        for key in owner.keys() & set(_IDS):
            owner[key] = base64.b64encode(bytes.fromhex(owner[key])).decode()


def _below(owners: Iterator[dict[str, Any]], key: str) -> Iterator[dict[str, Any]]:
    """The objects in the lists under a key. What is of another shape is left for the decoder to refuse."""
    for owner in owners:
        found = owner.get(key)
        yield from (item for item in found if isinstance(item, dict)) if isinstance(found, list) else ()


def _scopes(request: dict[str, Any], resources: str, scopes: str) -> Iterator[dict[str, Any]]:
    return _below(_below(iter((request,)), resources), scopes)


def _spans(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for span in _below(_scopes(request, "resourceSpans", "scopeSpans"), "spans"):
        yield span
        yield from _below(iter((span,)), "links")


def _log_records(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return _below(_scopes(request, "resourceLogs", "scopeLogs"), "logRecords")


def _exemplars(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for metric in _below(_scopes(request, "resourceMetrics", "scopeMetrics"), "metrics"):
        data = (metric[key] for key in _DATA if isinstance(metric.get(key), dict))
        yield from _below(_below(data, "dataPoints"), "exemplars")
