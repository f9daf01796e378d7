"""Counts of connections as metrics."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from wirespan.pipeline.spans import SpanKind
from wirespan.receiver.edges import OVERFLOW, Series, SeriesCounts
from wirespan.receiver.histogram import SLOTS
from wirespan.receiver.kernel.edges import TCP
from wirespan.receiver.metrics_request import MetricsRequest
from wirespan.receiver.open_connections import OpenCount
from wirespan.receiver.tcp_metrics import add_open, add_tcp

SHOP = (("service.name", "shop"),)
CLIENT = Series(SHOP, SpanKind.CLIENT, 80, "tcp", "", "", "", "machine")
REFUSED = CLIENT._replace(error="connection_refused")
LISTENER = Series(SHOP, SpanKind.SERVER, 80, "tcp", "", "", "", "")


def counted(series: Series, *slots: tuple[str, int, int], **sums: int) -> SeriesCounts:
    """slots: of histograms, by name, number and count."""
    found = SeriesCounts(
        series, 5, np.zeros(len(TCP.sums), np.uint64), np.zeros((len(TCP.histograms), SLOTS), np.uint64)
    )
    for name, value in sums.items():
        found.sums[TCP.sums.index(name)] = value
    for name, slot, count in slots:
        found.slots[TCP.histograms.index(name), slot] = count
    return found


def metrics_of(*series: SeriesCounts, connections: tuple[OpenCount, ...] = ()) -> dict[str, Metric]:
    request = MetricsRequest(9, (("service.name", "unknown_service"),))
    add_tcp(request, series)
    add_open(request, connections)
    batch = request.batch()
    found = {
        metric.name: metric
        for resource in ExportMetricsServiceRequest.FromString(batch.data).resource_metrics
        for metric in resource.scope_metrics[0].metrics
    }
    assert sum(len(m.sum.data_points) + len(m.exponential_histogram.data_points) for m in found.values()) == len(batch)
    return found


def test_what_did_not_happen_to_connections_is_said() -> None:
    found = metrics_of(counted(CLIENT, ("connect", 7, 4), connects=4, connect_sum=2_000_000_000))
    assert found.keys() == {
        "wirespan.tcp.connects",
        "wirespan.tcp.retransmits",
        "wirespan.tcp.resets",
        "wirespan.tcp.window.wait_time",
        "wirespan.tcp.connect.duration",
    }
    assert [point.as_int for point in found["wirespan.tcp.resets"].sum.data_points] == [0, 0]
    (connects,) = found["wirespan.tcp.connects"].sum.data_points
    assert (connects.as_int, connects.start_time_unix_nano, connects.time_unix_nano) == (4, 5, 9)
    (duration,) = found["wirespan.tcp.connect.duration"].exponential_histogram.data_points
    assert (duration.count, duration.sum) == (4, 2.0)


def test_each_sum_and_histogram_has_its_metric() -> None:
    sums = {name: 10 + number for number, name in enumerate(TCP.sums)}
    found = metrics_of(counted(CLIENT, ("srtt", 3, 2), ("min_rtt", 4, 2), **sums))
    values = {name: [point.as_int for point in metric.sum.data_points] for name, metric in found.items()}
    assert values["wirespan.tcp.retransmits"] == [sums["retransmits"]]
    assert values["wirespan.tcp.resets"] == [sums["resets_sent"], sums["resets_received"]]
    (waits,) = found["wirespan.tcp.window.wait_time"].sum.data_points
    assert waits.as_double == sums["window_waits"] / 1e9
    for metric, total in (("wirespan.tcp.srtt", "srtt_sum"), ("wirespan.tcp.min_rtt", "min_rtt_sum")):
        (point,) = found[metric].exponential_histogram.data_points
        assert (point.count, point.sum) == (2, sums[total] / 1e9)


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        (counted(REFUSED, failures=3), "wirespan.tcp.connect.failures"),
        (counted(LISTENER, accept_drops=3), "wirespan.tcp.accept_queue.overflows"),
    ],
)
def test_what_is_no_connection_has_no_metrics_of_connections(counts: SeriesCounts, metric: str) -> None:
    found = metrics_of(counts)
    assert found.keys() == {metric}
    (point,) = found[metric].sum.data_points
    assert point.as_int == 3
    attributes = {one.key: one.value.string_value for one in point.attributes}
    assert attributes.get("error.type", "") == counts.series.error
    assert ("wirespan.peer.class" in attributes) == bool(counts.series.peer)


def test_what_found_no_room_has_all_of_them() -> None:
    found = metrics_of(counted(OVERFLOW, connects=1, failures=2, accept_drops=3))
    for metric, value in (("connects", 1), ("connect.failures", 2), ("accept_queue.overflows", 3)):
        (point,) = found[f"wirespan.tcp.{metric}"].sum.data_points
        assert point.as_int == value
        assert [one.key for one in point.attributes] == ["otel.metric.overflow"]


def test_open_connections_are_a_sum_that_goes_up_and_down() -> None:
    found = metrics_of(connections=(OpenCount(CLIENT, 5, 12),))
    metric = found["wirespan.tcp.connections.open"]
    assert not metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    assert metric.sum.data_points[0].as_int == 12
    assert metrics_of(counted(CLIENT, connects=1))["wirespan.tcp.connects"].sum.is_monotonic
