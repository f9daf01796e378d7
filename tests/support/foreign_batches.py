"""Requests of OTLP as others make them: with all that a message can have, much of which wirespan itself never emits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, EntityRef, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from support.metric_batches import SPAN_ID, START, TIME, TRACE_ID, every_kind, points, text
from wirespan.pipeline.component import Signal
from wirespan.pipeline.encoded import EncodedBatch

Request: TypeAlias = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
M = TypeVar("M", bound=Message)
REQUESTS: dict[Signal, type[Request]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"


def resource(service: str) -> Resource:
    reference = EntityRef(type="service", id_keys=["service.name"], description_keys=["service.version"])
    return Resource(attributes=[text("service.name", service)], dropped_attributes_count=1, entity_refs=[reference])


def scope(name: str) -> InstrumentationScope:
    return InstrumentationScope(name=name, version="2.0", attributes=[text("a", "b")], dropped_attributes_count=2)


def every_span(count: int = 3, size: int = 10) -> ExportTraceServiceRequest:
    """``count`` spans with events, links and all else, span i named by its number, with a text of ``size`` bytes."""
    spans = [
        Span(
            trace_id=TRACE_ID,
            span_id=(i + 1).to_bytes(8, "big"),
            trace_state="ot=th:e6",
            parent_span_id=SPAN_ID,
            flags=0x101,
            name=f"span {i}",
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=START,
            end_time_unix_nano=TIME,
            attributes=[text("täglich", "x" * size), KeyValue(key="n", value=AnyValue(int_value=-i))],
            dropped_attributes_count=3,
            events=[Span.Event(time_unix_nano=START + 1, name="exception", attributes=[text("exception.type", "E")])],
            dropped_events_count=4,
            links=[Span.Link(trace_id=TRACE_ID[::-1], span_id=SPAN_ID, trace_state="a=b", flags=1)],
            dropped_links_count=5,
            status=Status(code=Status.STATUS_CODE_ERROR, message="it failed"),
        )
        for i in range(count)
    ]
    scopes = [ScopeSpans(scope=scope("lib"), spans=spans, schema_url=SCHEMA)]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource("shop"), scope_spans=scopes, schema_url=SCHEMA)]
    )


def every_log(count: int = 3) -> ExportLogsServiceRequest:
    """``count`` records; the first has a structured body."""
    records = [
        LogRecord(
            time_unix_nano=START,
            observed_time_unix_nano=TIME,
            severity_number=17,
            severity_text="ERROR",
            body=AnyValue(string_value=f"message {i}"),
            attributes=[text("log.file.name", "app.log")],
            dropped_attributes_count=1,
            flags=1,
            trace_id=TRACE_ID,
            span_id=SPAN_ID,
            event_name="checkout",
        )
        for i in range(count)
    ]
    records[0].body.kvlist_value.values.append(text("nested", "日本"))
    scopes = [ScopeLogs(scope=scope("logger"), log_records=records, schema_url=SCHEMA)]
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=resource("shop"), scope_logs=scopes, schema_url=SCHEMA)]
    )


def every_request() -> dict[Signal, Request]:
    return {"traces": every_span(), "metrics": every_kind(), "logs": every_log()}


def count_items(request: Request) -> int:
    if isinstance(request, ExportTraceServiceRequest):
        return sum(len(scope.spans) for group in request.resource_spans for scope in group.scope_spans)
    if isinstance(request, ExportLogsServiceRequest):
        return sum(len(scope.log_records) for group in request.resource_logs for scope in group.scope_logs)
    return sum(1 for _ in points(request))


def items_of(request: Request) -> Iterator[Request]:
    """Each item in a request of its own, with its resource, its scope and, of a data point, its metric. A request that is split
    or joined with others has the same ones."""
    (resources,) = request.DESCRIPTOR.fields
    for group in getattr(request, resources.name):
        scopes = group.DESCRIPTOR.fields_by_name[resources.name.replace("resource", "scope")]
        for scope in getattr(group, scopes.name):
            items = next(field for field in scope.DESCRIPTOR.fields if field.is_repeated)
            for item in getattr(scope, items.name):
                for alone in _points_of(item) if isinstance(item, Metric) else (item,):
                    yield _only(request, resources.name, _only(group, scopes.name, _only(scope, items.name, alone)))


def _points_of(metric: Metric) -> Iterator[Metric]:
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points if kind else ():
        alone = Metric.FromString(metric.SerializeToString())
        data = getattr(alone, kind)
        del data.data_points[:]
        data.data_points.append(point)
        yield alone


def _only(owner: M, name: str, item: Message) -> M:
    """The owner with this alone in a field of many."""
    copy = type(owner)()
    for field, value in owner.ListFields():
        if field.name != name:
            copy.MergeFrom(type(owner)(**{field.name: value}))
    getattr(copy, name).append(item)
    return copy


def encoded(request: Request) -> EncodedBatch:
    signal = next(signal for signal, kind in REQUESTS.items() if isinstance(request, kind))
    return EncodedBatch(signal, request.SerializeToString(), count_items(request))
