"""Metrics as an agent sends them, of everything that the metadata.yaml files document: a history of a quarter of an hour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric, ScopeMetrics

from support.spellings import Facts, emitted_metrics
from support.telemetry_page import metadata
from wirespan.service.emitted import EMITTERS

Attributes = Mapping[str, str | int | bool]

INTERVAL: Final = 30
#: of the histograms: bucket 0 of scale 3 begins at 1 s
_BUCKET: Final = -80


def _own_attributes() -> dict[str, list[Attributes]]:
    """Of the agent's own metrics, each with one value of each attribute."""
    found: dict[str, list[Attributes]] = {}
    for folder in EMITTERS:
        for name, facts in metadata(folder)["metrics"].items():
            values = {attribute: next(iter(values)) for attribute, values in facts.get("attributes", {}).items()}
            found[name] = [values | ({"exporter": facts["exporters"][0]} if "exporters" in facts else {})]
    return found


_SERVER: Final[Attributes] = {
    "span.kind": "SPAN_KIND_SERVER",
    "server.port": 80,
    "network.transport": "tcp",
    "network.protocol.name": "http",
    "wirespan.peer.class": "machine",
}
_CLIENT: Final[Attributes] = {**_SERVER, "span.kind": "SPAN_KIND_CLIENT"}


def _exchange_attributes(name: str) -> list[Attributes]:
    """As bad as it gets: one exchange in three fails, and so do half of the connections."""
    if name.startswith("wirespan.exchange.") and name.endswith(".io"):
        return [{**end, "network.io.direction": way} for end in (_SERVER, _CLIENT) for way in ("receive", "transmit")]
    if name == "wirespan.exchange.duration":
        outcomes: list[Attributes] = [
            {"wirespan.response.status_class": "success"},
            {"wirespan.response.status_class": "server_error"},
            {"error.type": "timeout"},
        ]
        return [{**end, **outcome} for end in (_SERVER, _CLIENT) for outcome in outcomes]
    if name == "wirespan.tcp.connect.failures":
        return [{**_CLIENT, "error.type": "connection_refused"}]
    if name == "wirespan.tcp.resets":
        return [{**_SERVER, "network.io.direction": "receive"}]
    return [_SERVER] if "queue" in name or "processing" in name else [_SERVER, _CLIENT]


def _semantic_attributes(name: str) -> list[Attributes]:
    """One of each metric by the semantic conventions; texts as such, numbers where they are numbers."""
    facts = metadata("receiver")["semantic_metrics"][name]
    types = metadata("receiver")["span_attributes"]
    return [{attribute: 503 if types[attribute]["type"] == "int" else "503" for attribute in facts["attributes"]}]


def everything(now: int, seconds: int, host: str, instance: str) -> bytes:
    """What the agent of a host says at a time (Unix s), so many seconds after its start."""
    request = ExportMetricsServiceRequest()
    resources = {"wirespan": f"{instance}-agent", "shop": f"{instance}-shop", "unknown_service": f"{instance}-rest"}
    scopes = {}
    for service, identity in resources.items():
        resource = request.resource_metrics.add()
        attributes = {"service.name": service, "service.instance.id": identity, "host.name": host}
        resource.resource.attributes.extend(_pairs(attributes))
        scopes[service] = resource.scope_metrics.add()
    own = _own_attributes()
    for name, facts in emitted_metrics().items():
        semantic = facts.type == "histogram"
        shop = _semantic_attributes(name) if semantic else _exchange_attributes(name)
        service, points = ("wirespan", own[name]) if name in own else ("shop", shop)
        _add(scopes[service], name, facts, points, now, seconds)
    duration = "wirespan.exchange.duration"
    rest: list[Attributes] = [{"otel.metric.overflow": True}]
    _add(scopes["unknown_service"], duration, emitted_metrics()[duration], rest, now, seconds)
    return request.SerializeToString()


def _add(scope: ScopeMetrics, name: str, facts: Facts, points: list[Attributes], now: int, seconds: int) -> None:
    """One a second of each."""
    metric = scope.metrics.add(name=name, unit=facts.unit)
    for attributes in points:
        point = _new_point(metric, facts.type, seconds)
        point.attributes.extend(_pairs(attributes))
        point.start_time_unix_nano, point.time_unix_nano = (now - seconds) * 10**9, now * 10**9


def _new_point(metric: Metric, kind: str, count: int) -> Any:
    if kind == "exponential histogram":
        metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        point = metric.exponential_histogram.data_points.add(count=count, sum=count / 1000, scale=3)
        point.positive.offset = _BUCKET
        point.positive.bucket_counts.append(count)
        return point
    if kind == "histogram":
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        buckets = {"explicit_bounds": [0.005, 0.01], "bucket_counts": [count, 0, 0]}
        return metric.histogram.data_points.add(count=count, sum=count / 1000, **buckets)
    if metric.name == "wirespan.coverage":
        return metric.gauge.data_points.add(as_double=0.5)
    if kind == "gauge":
        return metric.gauge.data_points.add(as_int=1)
    metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.sum.is_monotonic = kind == "sum"
    return metric.sum.data_points.add(as_int=count)


def _pairs(attributes: Attributes) -> Iterator[KeyValue]:
    for key, value in attributes.items():
        if isinstance(value, bool):
            yield KeyValue(key=key, value=AnyValue(bool_value=value))
        elif isinstance(value, int):
            yield KeyValue(key=key, value=AnyValue(int_value=value))
        else:
            yield KeyValue(key=key, value=AnyValue(string_value=value))
