"""How much of each edge is covered by spans, between two looks."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from wirespan.pipeline.spans import SpanKind
from wirespan.receiver.coverage import Coverage
from wirespan.receiver.edges import Series, SeriesCounts
from wirespan.receiver.histogram import SLOTS
from wirespan.receiver.kernel.edges import HISTOGRAMS, SUMS
from wirespan.receiver.metrics_request import MetricsRequest

REST = (("service.name", "unknown_service"),)


def counts(port: int, observed: int, dropped: int, start: int = 1) -> SeriesCounts:
    series = Series((("service.name", "shop"),), SpanKind.SERVER, port, "tcp", "", "", "", "machine")
    sums, slots = np.zeros(len(SUMS), np.uint64), np.zeros((len(HISTOGRAMS), SLOTS), np.uint64)
    sums[SUMS.index("dropped")] = dropped
    slots[HISTOGRAMS.index("duration"), 5] = observed
    return SeriesCounts(series, start, sums, slots)


def look(coverage: Coverage, *found: SeriesCounts) -> dict[int, float]:
    """The gauge by server port."""
    request = MetricsRequest(10, REST)
    coverage.add(request, found)
    decoded = ExportMetricsServiceRequest.FromString(request.batch().data)
    metrics = [m for r in decoded.resource_metrics for scope in r.scope_metrics for m in scope.metrics]
    assert {(metric.name, metric.unit) for metric in metrics} <= {("wirespan.coverage", "1")}
    points = [point for metric in metrics for point in metric.gauge.data_points]
    ports = [a.value.int_value for point in points for a in point.attributes if a.key == "server.port"]
    return dict(zip(ports, (point.as_double for point in points), strict=True))


def test_only_what_ended_since_the_last_look_counts() -> None:
    coverage = Coverage()
    assert look(coverage, counts(80, 100, 25), counts(81, 10, 0)) == {80: 0.75, 81: 1.0}
    assert look(coverage, counts(80, 200, 25), counts(81, 20, 10)) == {80: 1.0, 81: pytest.approx(0.0)}


def test_an_edge_that_is_idle_has_no_point() -> None:
    coverage = Coverage()
    look(coverage, counts(80, 100, 25))
    assert look(coverage, counts(80, 100, 25)) == {}


def test_a_series_that_begins_anew_is_another_one() -> None:
    coverage = Coverage()
    look(coverage, counts(80, 100, 25))
    assert look(coverage, counts(80, 10, 5, start=2)) == {80: 0.5}


def test_a_drop_that_is_seen_after_its_exchange_makes_no_negative_share() -> None:
    coverage = Coverage()
    look(coverage, counts(80, 100, 0))
    assert look(coverage, counts(80, 101, 2)) == {80: 0.0}


def test_a_drop_that_is_seen_while_nothing_ends_is_told_with_the_next_exchange() -> None:
    coverage = Coverage()
    look(coverage, counts(80, 100, 0))
    assert look(coverage, counts(80, 100, 1)) == {}
    assert look(coverage, counts(80, 104, 1)) == {80: 0.75}
