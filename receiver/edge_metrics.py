"""Series of exchanges as OTLP metrics: exponential histograms of durations, and sums of bytes, all cumulative.

Made of protobuf classes, for this runs a few times a minute. A histogram has at most 160 buckets, as those of SDKs: beyond
that neighbours are joined, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    ExponentialHistogramDataPoint,
    Metric,
    ResourceMetrics,
)

from .. import __version__
from ..pipeline.metrics import MetricsBatch
from ..pipeline.spans import AttributeValue, SpanKind
from .edges import OVERFLOW, ResourceItems, Series, SeriesCounts
from .histogram import LOWEST, SCALE, ZERO_THRESHOLD
from .kernel.edges import HISTOGRAMS, SUMS

MAX_BUCKETS: Final = 160

#: histogram of the kernel, metric, and the sum that belongs to it
_DURATIONS: Final = (
    ("duration", "wirespan.exchange.duration", "duration_sum"),
    ("queue", "wirespan.exchange.queue.duration", "queue_sum"),
    ("processing", "wirespan.exchange.processing.duration", "processing_sum"),
)
_BYTES: Final = "wirespan.exchange.io"
_NANOSECONDS: Final = 1e9


def encode_series(series: Iterable[SeriesCounts], now: int, rest: ResourceItems) -> MetricsBatch:
    """All series at a time (Unix ns). rest: the resource of what found no room."""
    request = ExportMetricsServiceRequest()
    resources: dict[ResourceItems, dict[str, Metric]] = {}
    points = 0
    for counts in series:
        resource = rest if counts.series == OVERFLOW else counts.series.resource
        if resource not in resources:
            resources[resource] = _metrics_of(request.resource_metrics.add(), resource)
        points += _add_points(resources[resource], counts, now)
    return MetricsBatch(request.SerializeToString(), points)


def _metrics_of(resource_metrics: ResourceMetrics, resource: ResourceItems) -> dict[str, Metric]:
    resource_metrics.resource.attributes.extend(_key_value(name, value) for name, value in resource)
    scope_metrics = resource_metrics.scope_metrics.add()
    scope_metrics.scope.name, scope_metrics.scope.version = "wirespan", __version__
    metrics = {}
    for name, facts in _documented().items():
        metric = metrics[name] = scope_metrics.metrics.add()
        metric.name, metric.unit, metric.description = name, facts["unit"], facts["description"]
        if name == _BYTES:
            metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.sum.is_monotonic = True
        else:
            metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    return metrics


def _add_points(metrics: dict[str, Metric], counts: SeriesCounts, now: int) -> int:
    attributes = list(_attributes(counts.series))
    added = 0
    for histogram, name, total in _DURATIONS:
        slots = counts.slots[HISTOGRAMS.index(histogram)]
        if not slots.any():  # of a client the server's times
            continue
        point = metrics[name].exponential_histogram.data_points.add()
        point.attributes.extend(attributes)
        point.start_time_unix_nano, point.time_unix_nano = counts.start, now
        point.sum = int(counts.sums[SUMS.index(total)]) / _NANOSECONDS
        _fill(point, slots)
        added += 1
    is_server = counts.series.kind is SpanKind.SERVER
    for name, direction in (("request_bytes", is_server), ("response_bytes", not is_server)):
        moved = metrics[_BYTES].sum.data_points.add()
        moved.attributes.extend(attributes)
        moved.attributes.append(_key_value("network.io.direction", "receive" if direction else "transmit"))
        moved.start_time_unix_nano, moved.time_unix_nano = counts.start, now
        moved.as_int = int(counts.sums[SUMS.index(name)])
        added += 1
    return added


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


@cache
def _documented() -> dict[str, Any]:
    """Unit and description of each metric, by name."""
    loaded: dict[str, Any] = yaml.safe_load((files("wirespan") / "receiver" / "metadata.yaml").read_text("utf-8"))
    return dict(loaded["exchange_metrics"])
