"""Which text the debug exporter has for a decoded request: a line for all of it, or one for each item."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from . import metrics_format, request_format
from .debug_format import Style, Verbosity, line, paragraph
from .decoding import Request


def describing(request: Request, items: int, verbosity: Verbosity, style: Style) -> Callable[[int], Sequence[str]]:
    """A function that gives the text of the first so many items."""

    def lines(admitted: int) -> Sequence[str]:
        if verbosity == "basic":
            return [_summary(request, items, style)]
        rows, short, long = _rows(request)
        describe = short if verbosity == "normal" else long
        return [describe(row, style) for row in islice(rows, admitted)]

    return lines


def _summary(request: Request, items: int, style: Style) -> str:
    if isinstance(request, ExportTraceServiceRequest):
        return request_format.spans_line(request, items, time.time(), style)
    if isinstance(request, ExportLogsServiceRequest):
        return request_format.logs_line(request, items, time.time(), style)
    return metrics_format.metrics_line(request, items, time.time(), style)


def _rows(request: Request) -> tuple[Iterable[Any], Callable[[Any, Style], str], Callable[[Any, Style], str]]:
    """The items, and what describes one of them on a line and in full."""
    if isinstance(request, ExportTraceServiceRequest):
        return request_format.span_rows(request), line, paragraph
    if isinstance(request, ExportLogsServiceRequest):
        return request_format.log_rows(request), request_format.log_line, request_format.log_paragraph
    return metrics_format.point_rows(request), metrics_format.point_line, metrics_format.point_paragraph
