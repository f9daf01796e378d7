"""Data points as text for human eyes, with the words of the Collector's debug exporter.

A point's line: when, which service, ``name{attributes}``, the value. Values of histograms are their count, sum and
extremes; those with explicit bounds have each bucket too, by its upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from .debug_format import SERVICE_WIDTH, Style, clock, column, printable

_TEMPORALITIES: Final[Mapping[int, str]] = {
    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA: "delta",
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}

Point: TypeAlias = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint | SummaryDataPoint


@dataclass(frozen=True, slots=True)
class PointRow:
    """One point, with its metric and its resource."""

    resource: dict[str, object]
    metric: Metric
    point: Point


def point_rows(request: ExportMetricsServiceRequest) -> Iterator[PointRow]:
    for group in request.resource_metrics:
        resource = attributes_of(group.resource.attributes)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points if kind else ():
                    yield PointRow(resource, metric, point)


def metrics_line(request: ExportMetricsServiceRequest, points: int, now: float, style: Style) -> str:
    """A batch on one line. now: Unix time, seconds."""
    metrics = sum(len(scope.metrics) for group in request.resource_metrics for scope in group.scope_metrics)
    return f"{style(clock(now), dim=True)} metrics: {metrics}, data points: {points}, resources: {len(request.resource_metrics)}"


def point_line(row: PointRow, style: Style) -> str:
    """A point on one line."""
    attributes = ",".join(f"{key}={value}" for key, value in attributes_of(row.point.attributes).items())
    parts = [
        style(clock(row.point.time_unix_nano / 1e9), dim=True),
        column(str(row.resource.get("service.name", "")), SERVICE_WIDTH),
        style(printable(row.metric.name), bold=True) + style(printable(f"{{{attributes}}}"), dim=True),
        _value(row.point),
        printable(row.metric.unit) if isinstance(row.point, NumberDataPoint) and row.metric.unit != "1" else "",
    ]
    return " ".join(parts).rstrip()


def point_paragraph(row: PointRow, style: Style) -> str:
    """A point with all that is known of it and its metric, one thing on each line below it."""
    fields = [
        ("description", row.metric.description),
        ("unit", row.metric.unit),
        ("type", _type(row.metric)),
        ("start", clock(row.point.start_time_unix_nano / 1e9) if row.point.start_time_unix_nano else ""),
        *((f"resource {key}", value) for key, value in row.resource.items()),
        *attributes_of(row.point.attributes).items(),
        *_details(row.point),
    ]
    shown = (printable(f"{key}: {value}") for key, value in fields if value != "")
    return "\n".join([point_line(row, style), *(f"    {text}" for text in shown)])


def _value(point: Point) -> str:
    if isinstance(point, NumberDataPoint):
        return _number(point)
    if isinstance(point, SummaryDataPoint):
        quantiles = [f"q{value.quantile:g}={value.value:g}" for value in point.quantile_values]
        return " ".join([f"count={point.count} sum={point.sum:g}", *quantiles])
    parts = [f"count={point.count}"]
    parts += [f"{name}={getattr(point, name):g}" for name in ("sum", "min", "max") if point.HasField(name)]
    if isinstance(point, HistogramDataPoint):
        bounds = [*map("{:g}".format, point.explicit_bounds), "inf"]
        parts += [f"le{bound}={count}" for bound, count in zip(bounds, point.bucket_counts, strict=False)]
    return " ".join(parts)


def _number(point: NumberDataPoint | Exemplar) -> str:
    kind = point.WhichOneof("value")
    return str(point.as_int) if kind == "as_int" else f"{point.as_double:g}" if kind else "no value"


def _type(metric: Metric) -> str:
    kind = metric.WhichOneof("data")
    if kind is None:
        return ""
    words = [kind.replace("_", " ")]
    if kind == "sum" and metric.sum.is_monotonic:
        words.append("monotonic")
    if kind == "sum" or kind == "histogram" or kind == "exponential_histogram":
        temporality: int = getattr(metric, kind).aggregation_temporality
        words += [_TEMPORALITIES[temporality]] if temporality in _TEMPORALITIES else []
    return ", ".join(words)


def _details(point: Point) -> Iterator[tuple[str, object]]:
    """What of a point is in no line."""
    if isinstance(point, ExponentialHistogramDataPoint):
        yield "scale", point.scale
        yield from _buckets(point)
    if isinstance(point, SummaryDataPoint):
        return
    for exemplar in point.exemplars:
        ids = [f"trace_id={exemplar.trace_id.hex()}"] if exemplar.trace_id else []
        ids += [f"span_id={exemplar.span_id.hex()}"] if exemplar.span_id else []
        attributes = [f"{key}={value}" for key, value in attributes_of(exemplar.filtered_attributes).items()]
        yield "exemplar", " ".join([_number(exemplar), *ids, *attributes])


def _buckets(point: ExponentialHistogramDataPoint) -> Iterator[tuple[str, object]]:
    """Those that are not empty, from the least values on; the data model has them open below and closed above."""
    negative = list(enumerate(point.negative.bucket_counts, point.negative.offset))
    for index, count in reversed(negative):
        if count:
            yield f"bucket [{-_bound(index + 1, point.scale):g}, {-_bound(index, point.scale):g})", count
    if point.zero_count:
        yield f"bucket [{-point.zero_threshold:g}, {point.zero_threshold:g}]", point.zero_count
    for index, count in enumerate(point.positive.bucket_counts, point.positive.offset):
        if count:
            yield f"bucket ({_bound(index, point.scale):g}, {_bound(index + 1, point.scale):g}]", count


def _bound(index: int, scale: int) -> float:
    """The lower bound of an exponential bucket: base ** index, where base is 2 ** (2 ** -scale)."""
    try:
        return math.pow(2.0, math.ldexp(index, -scale))
    except OverflowError:
        return math.inf


def attributes_of(attributes: Iterable[KeyValue]) -> dict[str, object]:
    return {attribute.key: value_of(attribute.value) for attribute in attributes}


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return getattr(value, kind) if kind else ""
