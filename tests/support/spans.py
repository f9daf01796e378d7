"""Spans of OTLP as flat dictionaries, which tests select from and compare.

The file exporter's lines, a decoded protobuf request and the answer of Jaeger's query API hold the same messages; all
become :class:`Span` s. Numbers of 64 bits are integers here, ids lower-case hex.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.resource.v1 import resource_pb2 as messages_resource
from opentelemetry.proto.trace.v1 import trace_pb2 as messages_trace

from wirespan.pipeline.spans import SpanKind, StatusCode


class Span(TypedDict):
    """kind: SERVER, CLIENT, …; parent_span_id: empty for a root; start, end: ns since the Unix epoch; status: UNSET,
    OK or ERROR."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_span_id: str
    start: int
    end: int
    status: str
    trace_state: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


def count_in_file(path: Path) -> int:
    """How many spans read_file() would find there, by a scan: a wait that decodes what it has decoded before takes the
    time of those it waits for."""
    if not path.exists():
        return 0
    written = path.read_bytes()
    return written.count(b'"kind":', 0, written.rfind(b"\n") + 1)


def read_file(path: Path) -> list[Span]:
    """The spans of a file that the file exporter writes; no file means none, a line without an end is not there yet."""
    if not path.exists():
        return []
    return [span for line in path.read_text().split("\n")[:-1] for span in from_json(json.loads(line))]


def from_json(request: Mapping[str, Any]) -> Iterator[Span]:
    """The spans of an ExportTraceServiceRequest in the OTLP JSON encoding."""
    for resource_spans in request.get("resourceSpans", ()):
        resource = _attributes(resource_spans.get("resource", {}))
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                yield _span(span, resource)


def from_messages(messages: Iterable[tuple[messages_resource.Resource, messages_trace.Span]]) -> Iterator[Span]:
    """The spans of decoded protobuf messages, each given with its resource."""
    for resource, span in messages:
        yield Span(
            name=span.name,
            kind=SpanKind(span.kind).name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_span_id=span.parent_span_id.hex(),
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            status=StatusCode(span.status.code).name,
            trace_state=span.trace_state,
            attributes=_attributes(MessageToDict(span)),
            resource=_attributes(MessageToDict(resource)),
        )


def sort(spans: Iterable[Span]) -> list[Span]:
    """In the order of their ids, which no two of them share."""
    return sorted(spans, key=lambda span: (span["trace_id"], span["span_id"]))


def _span(span: Mapping[str, Any], resource: dict[str, Any]) -> Span:
    return Span(
        name=span.get("name", ""),
        kind=SpanKind(span.get("kind", 0)).name,
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_span_id=span.get("parentSpanId", ""),
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        status=StatusCode(span.get("status", {}).get("code", 0)).name,
        trace_state=span.get("traceState", ""),
        attributes=_attributes(span),
        resource=resource,
    )


def _attributes(message: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a span or a resource in JSON."""
    attributes = message.get("attributes", ())
    found = {attribute["key"]: _value(attribute["value"]) for attribute in attributes}
    assert len(found) == len(attributes), f"an attribute twice: {attributes}"
    return found


def _value(value: Mapping[str, Any]) -> Any:
    """An AnyValue; 64-bit integers are strings in JSON."""
    ((kind, content),) = value.items()
    match kind:
        case "intValue":
            return int(content)
        case "doubleValue":
            return float(content)
        case "arrayValue":
            return tuple(_value(item) for item in content.get("values", ()))
        case "bytesValue":
            return base64.b64decode(content)
        case _:
            return content
