"""Requests as OTLP JSON, on one line.

The encoding is protobuf's JSON mapping with OTLP's exceptions
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): trace and span ids are hex where the mapping has base64,
and enums are numbers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from .decoding import Request

_IDS: Final = ("traceId", "spanId", "parentSpanId")
#: the members of a metric that hold its points
_DATA: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


def request_json(message: Request) -> str:
    """The text of a request, without an end of line in it."""
    request = MessageToDict(message, use_integers_for_enums=True)
    for owner in chain(_spans_and_links(request), _log_records(request), _exemplars(request)):
        for key in owner.keys() & _IDS:
            owner[key] = base64.b64decode(owner[key]).hex()
    return json.dumps(request, ensure_ascii=False, separators=(",", ":"))


def _spans_and_links(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield span
                yield from span.get("links", ())


def _log_records(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceLogs", ()):
        for scope in resource.get("scopeLogs", ()):
            yield from scope.get("logRecords", ())


def _exemplars(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceMetrics", ()):
        for scope in resource.get("scopeMetrics", ()):
            for metric in scope.get("metrics", ()):
                for data in metric.keys() & set(_DATA):
                    for point in metric[data].get("dataPoints", ()):
                        yield from point.get("exemplars", ())
