"""Metrics as OTLP JSON, on one line.

The encoding is protobuf's JSON mapping with OTLP's exceptions
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): trace and span ids, which metrics have in exemplars, are
hex where the mapping has base64, and enums are numbers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

#: the members of a metric that hold its points
_DATA = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


def metrics_json(message: ExportMetricsServiceRequest) -> str:
    """The text of a request, without an end of line in it."""
    request = MessageToDict(message, use_integers_for_enums=True)
    for exemplar in _exemplars(request):
        for key in exemplar.keys() & {"traceId", "spanId"}:
            exemplar[key] = base64.b64decode(exemplar[key]).hex()
    return json.dumps(request, ensure_ascii=False, separators=(",", ":"))


def _exemplars(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceMetrics", ()):
        for scope in resource.get("scopeMetrics", ()):
            for metric in scope.get("metrics", ()):
                for data in metric.keys() & set(_DATA):
                    for point in metric[data].get("dataPoints", ()):
                        yield from point.get("exemplars", ())
