"""Metrics for tests, made of opentelemetry-proto's own messages."""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Exemplar,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from wirespan.pipeline.encoded import EncodedBatch

START, TIME = 1_790_000_000 * 10**9, 1_790_000_060 * 10**9 + 123_456_789
TRACE_ID, SPAN_ID = bytes(range(16)), bytes(range(200, 208))
#: what is in :func:`every_kind`
KINDS = 7


def attribute(key: str, value: AnyValue) -> KeyValue:
    return KeyValue(key=key, value=value)


def text(key: str, value: str) -> KeyValue:
    return attribute(key, AnyValue(string_value=value))


def batch(request: ExportMetricsServiceRequest) -> EncodedBatch:
    return EncodedBatch("metrics", request.SerializeToString(), sum(1 for _ in points(request)))


def points(request: ExportMetricsServiceRequest) -> Iterator[tuple[str, str, object]]:
    """Each point with its service and the name of its metric."""
    for group in request.resource_metrics:
        service = next((a.value.string_value for a in group.resource.attributes if a.key == "service.name"), "")
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data") or "gauge").data_points:
                    yield service, metric.name, point


def points_of(count: int, size: int = 10, services: int = 1) -> EncodedBatch:
    """A counter with ``count`` points for the services in turn, point i of value i and with a text of ``size`` bytes."""
    groups = []
    for service in range(services):
        found = [
            NumberDataPoint(
                attributes=[text("edge", f"{i:0{size}}")], start_time_unix_nano=START, time_unix_nano=TIME, as_int=i
            )
            for i in range(service, count, services)
        ]
        data = Sum(data_points=found, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE, is_monotonic=True)
        groups.append(
            ResourceMetrics(
                resource=Resource(attributes=[text("service.name", f"service-{service}")]),
                scope_metrics=[ScopeMetrics(metrics=[Metric(name="exchanges", unit="{exchange}", sum=data)])],
            )
        )
    return batch(ExportMetricsServiceRequest(resource_metrics=groups))


def every_kind() -> ExportMetricsServiceRequest:
    """A request with a point of each kind, and with all that a point can have."""
    attributes = [
        text("server.address", "täglich"),
        attribute("server.port", AnyValue(int_value=6379)),
        attribute("quota", AnyValue(double_value=0.25)),
        attribute("sampled", AnyValue(bool_value=False)),
        attribute("key", AnyValue(bytes_value=b"\0\xff")),
        attribute(
            "tags", AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="ü"), AnyValue(int_value=-1)]))
        ),
        attribute("peer", AnyValue(kvlist_value=KeyValueList(values=[text("name", "redis")]))),
    ]
    times = {"start_time_unix_nano": START, "time_unix_nano": TIME}
    exemplar = Exemplar(
        filtered_attributes=[text("url.path", "/items/17")],
        time_unix_nano=TIME - 1,
        as_double=0.0123,
        span_id=SPAN_ID,
        trace_id=TRACE_ID,
    )
    gauge = Gauge(data_points=[NumberDataPoint(attributes=attributes, time_unix_nano=TIME, as_double=-1.5, flags=1)])
    delta = Sum(
        data_points=[NumberDataPoint(as_int=-(2**62), **times), NumberDataPoint(as_int=0, **times)],
        aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA,
    )
    cumulative = Sum(
        data_points=[NumberDataPoint(as_double=float("inf"), exemplars=[exemplar], **times)],
        aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
        is_monotonic=True,
    )
    histogram = Histogram(
        data_points=[
            HistogramDataPoint(
                attributes=attributes[:1],
                count=2**60,
                sum=12.5,
                bucket_counts=[3, 2**60 - 3, 0],
                explicit_bounds=[0.005, 0.01],
                exemplars=[exemplar],
                min=0.001,
                max=0.009,
                **times,
            )
        ],
        aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
    )
    buckets = ExponentialHistogramDataPoint.Buckets
    exponential = ExponentialHistogram(
        data_points=[
            ExponentialHistogramDataPoint(
                attributes=attributes[:2],
                count=9,
                sum=4.75,
                scale=3,
                zero_count=1,
                zero_threshold=1e-9,
                positive=buckets(offset=-24, bucket_counts=[1, 0, 5]),
                negative=buckets(offset=0, bucket_counts=[0, 2]),
                exemplars=[exemplar, Exemplar(time_unix_nano=TIME, as_int=1)],
                min=-1.2,
                max=2.0,
                **times,
            )
        ],
        aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
    )
    quantile = SummaryDataPoint.ValueAtQuantile
    summary = Summary(
        data_points=[SummaryDataPoint(count=4, sum=2.0, quantile_values=[quantile(quantile=0.99, value=0.75)], **times)]
    )
    metrics = [
        Metric(name="quota.left", unit="1", gauge=gauge),
        Metric(name="moved", unit="By", description="Bytes, and some more.", sum=delta),
        Metric(name="exchanges", unit="{exchange}", sum=cumulative),
        Metric(name="http.server.request.duration", unit="s", histogram=histogram),
    ]
    more = [
        Metric(name="wirespan.exchange.duration", unit="s", exponential_histogram=exponential),
        Metric(name="latency", unit="s", summary=summary),
    ]
    scope = InstrumentationScope(name="wirespan", version="1.0")
    schema = "https://opentelemetry.io/schemas/1.44.0"
    return ExportMetricsServiceRequest(
        resource_metrics=[
            ResourceMetrics(
                resource=Resource(attributes=[text("service.name", "日本"), attributes[1]]),
                scope_metrics=[ScopeMetrics(scope=scope, metrics=metrics, schema_url=schema)],
                schema_url=schema,
            ),
            ResourceMetrics(
                resource=Resource(attributes=[text("service.name", "shop")]),
                scope_metrics=[ScopeMetrics(scope=scope, metrics=more, schema_url=schema)],
                schema_url=schema,
            ),
        ]
    )
