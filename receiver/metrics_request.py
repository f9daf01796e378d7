"""Series as OTLP metrics: histograms of durations, exponential and with explicit bounds, and sums, all cumulative.

Made of protobuf classes, for this runs a few times a minute. A histogram has at most 160 buckets, as those of SDKs: beyond
that neighbours are joined, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)

from .. import __version__
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import AttributeValue
from .edges import OVERFLOW, ResourceItems, Series
from .exemplars import Exemplars
from .histogram import LOWEST, SCALE, ZERO_THRESHOLD
from .semantic_metrics import documented
from .semantic_series import SemanticCounts

MAX_BUCKETS: Final = 160

_NANOSECONDS: Final = 1e9

_Point: TypeAlias = ExponentialHistogramDataPoint | HistogramDataPoint | NumberDataPoint


class MetricsRequest:
    """now: the time of all points, Unix ns. rest: the resource of what found no room."""

    def __init__(self, now: int, rest: ResourceItems) -> None:
        self._now = now
        self._rest = rest
        self._request = ExportMetricsServiceRequest()
        self._resources: dict[ResourceItems, ResourceMetrics] = {}
        self._scopes: dict[tuple[ResourceItems, bool], ScopeMetrics] = {}
        self._metrics: dict[tuple[ResourceItems, str], Metric] = {}
        self._points = 0

    def add_histogram(
        self,
        name: str,
        series: Series,
        start: int,
        slots: npt.NDArray[np.uint64],
        total: int,
        exemplars: Exemplars | None = None,
    ) -> None:
        """slots: (SLOTS,). total: sum of the durations, ns. Nothing if none was counted."""
        if not slots.any():
            return
        point = self._metric(series, name).exponential_histogram.data_points.add()
        self._describe(point, series, start)
        point.sum = total / _NANOSECONDS
        _fill(point, slots)
        if exemplars is not None:
            point.exemplars.extend(_exemplars(exemplars))

    def add_explicit_histogram(self, counts: SemanticCounts, estimated: bool) -> None:
        """estimated: said of the scope, so that there are no more series for it."""
        metric, resource, attributes = counts.series
        found = self._metric_of(resource, metric, estimated)
        point = found.histogram.data_points.add()
        point.attributes.extend(_key_value(name, value) for name, value in attributes)
        self._time(point, counts.start)
        point.count, point.sum = int(counts.counts.sum()), counts.total
        point.bucket_counts.extend(counts.counts.tolist())
        point.explicit_bounds.extend(counts.bounds)
        point.exemplars.extend(_exemplars(counts.exemplars))

    def add_sum(
        self, name: str, series: Series, start: int, value: float, more: tuple[str, AttributeValue] | None = None
    ) -> None:
        """more: an attribute that the series does not have."""
        point = self._metric(series, name).sum.data_points.add()
        self._describe(point, series, start)
        if more is not None:
            point.attributes.append(_key_value(*more))
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value

    def add_gauge(self, name: str, series: Series, value: float) -> None:
        point = self._metric(series, name).gauge.data_points.add()
        self._describe(point, series, 0)
        point.as_double = value

    def add_gauge_of(self, resource: ResourceItems, name: str, value: float) -> None:
        """Of a resource as a whole."""
        point = self._metric_of(resource, name).gauge.data_points.add()
        self._time(point, 0)
        point.as_double = value

    def batch(self) -> EncodedBatch:
        """All that was added."""
        return EncodedBatch("metrics", self._request.SerializeToString(), self._points)

    def _describe(self, point: _Point, series: Series, start: int) -> None:
        point.attributes.extend(_attributes(series))
        self._time(point, start)

    def _time(self, point: _Point, start: int) -> None:
        point.start_time_unix_nano, point.time_unix_nano = start, self._now
        self._points += 1

    def _metric(self, series: Series, name: str) -> Metric:
        return self._metric_of(self._rest if series == OVERFLOW else series.resource, name)

    def _metric_of(self, resource: ResourceItems, name: str, estimated: bool = False) -> Metric:
        metric = self._metrics.get((resource, name))
        if metric is None:
            metric = self._metrics[resource, name] = self._scope(resource, estimated).metrics.add()
            _set_facts(metric, name)
        return metric

    def _scope(self, resource: ResourceItems, estimated: bool) -> ScopeMetrics:
        scope_metrics = self._scopes.get((resource, estimated))
        if scope_metrics is None:
            scope_metrics = self._scopes[resource, estimated] = self._resource(resource).scope_metrics.add()
            scope_metrics.scope.name, scope_metrics.scope.version = "wirespan", __version__
            if estimated:
                scope_metrics.scope.attributes.append(_key_value("wirespan.sampling.estimated", True))
        return scope_metrics

    def _resource(self, resource: ResourceItems) -> ResourceMetrics:
        resource_metrics = self._resources.get(resource)
        if resource_metrics is None:
            resource_metrics = self._resources[resource] = self._request.resource_metrics.add()
            resource_metrics.resource.attributes.extend(_key_value(name, value) for name, value in resource)
        return resource_metrics


def _set_facts(metric: Metric, name: str) -> None:
    facts = _facts()[name]
    metric.name, metric.unit, metric.description = name, facts["unit"], facts["description"]
    if facts["type"] == "histogram":
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    elif facts["type"] == "exponential histogram":
        metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    elif facts["type"] != "gauge":
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        metric.sum.is_monotonic = facts["type"] == "sum"


def _fill(point: ExponentialHistogramDataPoint, slots: npt.NDArray[np.uint64]) -> None:
    point.zero_count, point.zero_threshold = int(slots[0]), ZERO_THRESHOLD
    point.count = int(slots.sum())
    point.scale = SCALE
    used = np.flatnonzero(slots[1:])
    if not len(used):
        return
    offset, buckets = LOWEST + int(used[0]), slots[1 + used[0] : 2 + used[-1]]
    while len(buckets) > MAX_BUCKETS:
        offset, buckets = _halved(offset, buckets)
        point.scale -= 1
    point.positive.offset = offset
    point.positive.bucket_counts.extend(buckets.tolist())


def _halved(offset: int, buckets: npt.NDArray[np.uint64]) -> tuple[int, npt.NDArray[np.uint64]]:
    """The same at the next lower scale: bucket i there is what 2i and 2i + 1 were."""
    padded = np.concatenate((np.zeros(offset % 2, np.uint64), buckets))
    padded = np.concatenate((padded, np.zeros(len(padded) % 2, np.uint64)))
    return offset // 2, padded.reshape(-1, 2).sum(axis=1)


def _attributes(series: Series) -> Iterator[KeyValue]:
    if series == OVERFLOW:
        yield _key_value("otel.metric.overflow", True)
        return
    yield _key_value("span.kind", f"SPAN_KIND_{series.kind.name}")
    yield _key_value("server.port", series.server_port)
    said = {
        "network.transport": series.transport,
        "network.protocol.name": series.protocol,
        "wirespan.response.status_class": series.status,
        "error.type": series.error,
        "wirespan.peer.class": series.peer,
    }
    for name, value in said.items():
        if value:
            yield _key_value(name, value)


def _key_value(name: str, value: AttributeValue) -> KeyValue:
    if isinstance(value, bool):
        return KeyValue(key=name, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=name, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=name, value=AnyValue(double_value=value))
    if isinstance(value, str):
        return KeyValue(key=name, value=AnyValue(string_value=value))
    values = ArrayValue(values=[_key_value("", part).value for part in value])
    return KeyValue(key=name, value=AnyValue(array_value=values))


def _exemplars(found: Exemplars) -> Iterator[Exemplar]:
    """In the order of their times: what is older than the last one, some backends refuse."""
    for exemplar in np.sort(found, order="time"):
        yield Exemplar(
            time_unix_nano=int(exemplar["time"]),
            as_double=int(exemplar["duration"]) / _NANOSECONDS,
            span_id=int(exemplar["span_id"]).to_bytes(8, "big"),
            trace_id=exemplar["trace_id"].astype(">u8").tobytes(),
        )


@cache
def _facts() -> dict[str, Any]:
    """Unit, description and type of each metric, by name."""
    return {**documented()["exchange_metrics"], **documented()["semantic_metrics"]}
