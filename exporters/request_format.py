"""Spans and log records of decoded requests as text for human eyes; spans look as those in columns do.

A log record's line: when, which service, its severity, its body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from ..pipeline.spans import SpanKind, StatusCode
from .debug_format import SERVICE_WIDTH, SpanRow, Style, clock, column, printable
from .metrics_format import attributes_of, value_of

_SEVERITY_WIDTH = 5
_KINDS: dict[int, SpanKind] = {kind.value: kind for kind in SpanKind}
_STATUSES: dict[int, StatusCode] = {status.value: status for status in StatusCode}


def span_rows(request: ExportTraceServiceRequest) -> Iterator[SpanRow]:
    for group in request.resource_spans:
        resource = attributes_of(group.resource.attributes)
        for span in (span for scope in group.scope_spans for span in scope.spans):
            yield SpanRow(
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_span_id=span.parent_span_id.hex(),
                name=span.name,
                kind=_KINDS.get(span.kind, SpanKind.UNSPECIFIED),
                start=span.start_time_unix_nano,
                end=span.end_time_unix_nano,
                status=_STATUSES.get(span.status.code, StatusCode.UNSET),
                resource=resource,
                attributes=attributes_of(span.attributes),
            )


def spans_line(request: ExportTraceServiceRequest, spans: int, now: float, style: Style) -> str:
    """A batch on one line. now: Unix time, seconds."""
    return f"{style(clock(now), dim=True)} spans: {spans}, resources: {len(request.resource_spans)}"


@dataclass(frozen=True, slots=True)
class LogRow:
    """One record, with its resource."""

    resource: dict[str, object]
    record: LogRecord


def log_rows(request: ExportLogsServiceRequest) -> Iterator[LogRow]:
    for group in request.resource_logs:
        resource = attributes_of(group.resource.attributes)
        for scope in group.scope_logs:
            for record in scope.log_records:
                yield LogRow(resource, record)


def logs_line(request: ExportLogsServiceRequest, records: int, now: float, style: Style) -> str:
    """A batch on one line. now: Unix time, seconds."""
    return f"{style(clock(now), dim=True)} log records: {records}, resources: {len(request.resource_logs)}"


def log_line(row: LogRow, style: Style) -> str:
    """A record on one line."""
    record = row.record
    severity, colour = _severity(record)
    return " ".join(
        [
            style(clock((record.time_unix_nano or record.observed_time_unix_nano) / 1e9), dim=True),
            column(str(row.resource.get("service.name", "")), SERVICE_WIDTH),
            style(column(severity, _SEVERITY_WIDTH), fg=colour),
            printable(str(value_of(record.body))),
        ]
    ).rstrip()


def log_paragraph(row: LogRow, style: Style) -> str:
    """A record with its ids and attributes, one on each line below it."""
    record = row.record
    fields: dict[str, object] = {"event": record.event_name} if record.event_name else {}
    fields |= {"trace_id": record.trace_id.hex()} if record.trace_id else {}
    fields |= {"span_id": record.span_id.hex()} if record.span_id else {}
    fields |= {f"resource {key}": value for key, value in row.resource.items()}
    fields |= attributes_of(record.attributes)
    return "\n".join([log_line(row, style), *(f"    {printable(f'{key}: {value}')}" for key, value in fields.items())])


def _severity(record: LogRecord) -> tuple[str, str | None]:
    """The word for it, and its colour."""
    number: int = record.severity_number
    colour = (
        "red"
        if number >= SeverityNumber.SEVERITY_NUMBER_ERROR
        else "yellow"
        if number >= SeverityNumber.SEVERITY_NUMBER_WARN
        else None
    )
    if record.severity_text:
        return record.severity_text, colour
    name = SeverityNumber.Name(record.severity_number) if number in SeverityNumber.values() else ""
    return name.removeprefix("SEVERITY_NUMBER_").replace("UNSPECIFIED", ""), colour
