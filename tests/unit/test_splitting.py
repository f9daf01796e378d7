"""Encoded batches cut into requests: nothing is lost, changed or twice, whatever the tree looks like."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from support.foreign_batches import count_items, encoded, every_log, every_span, resource
from support.metric_batches import KINDS, batch, every_kind, points, points_of, text
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.otlp import DEFAULT_MAX_BYTES
from wirespan.pipeline.splitting import split

#: more than the longest of the points takes, with all that stands above it
LARGEST_POINT = 450


def with_context(request: ExportMetricsServiceRequest) -> Iterator[tuple[bytes, ...]]:
    """Each point with all that stands above it."""
    for group in request.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                assert kind is not None
                for point in getattr(metric, kind).data_points:
                    above = (group.resource, scope.scope, point)
                    temporality = getattr(getattr(metric, kind), "aggregation_temporality", None)
                    words = (group.schema_url, scope.schema_url, metric.name, metric.unit, metric.description, kind)
                    yield (*(message.SerializeToString() for message in above), f"{words} {temporality}".encode())


@given(st.integers(1, 3_000))
def test_every_kind_of_point_keeps_its_context_in_parts_of_any_size(max_bytes: int) -> None:
    request = every_kind()
    parts = split(batch(request), max_bytes)
    decoded = [ExportMetricsServiceRequest.FromString(part.data) for part in parts]
    assert [point for part in decoded for point in with_context(part)] == list(with_context(request))
    assert [len(part) for part in parts] == [len(list(points(part))) for part in decoded]
    assert sum(map(len, parts)) == KINDS


@given(st.integers(1, 200), st.integers(1, 300), st.integers(1, 4), st.integers(LARGEST_POINT, 5_000))
def test_parts_are_as_large_as_they_may_be_at_most(count: int, size: int, services: int, max_bytes: int) -> None:
    whole = points_of(count, size, services)
    parts = split(whole, max_bytes)
    assert max(len(part.data) for part in parts) <= max_bytes
    assert sum(map(len, parts)) == count


@given(st.integers(1, 200), st.integers(1, 300), st.integers(600, 5_000))
def test_spans_and_log_records_are_cut_between_them(count: int, size: int, max_bytes: int) -> None:
    for request in (every_span(count, size), every_log(count)):
        whole = encoded(request)
        parts = split(whole, max_bytes)
        decoded = [type(request).FromString(part.data) for part in parts]
        assert [len(part) for part in parts] == [count_items(part) for part in decoded]
        assert sum(map(len, parts)) == count
        assert all(len(part.data) <= max_bytes or len(part) == 1 for part in parts)
        for part in decoded:
            kept = next(iter(next(iter(part.ListFields()))[1]))
            assert kept.resource == resource("shop")


def test_a_resource_that_every_part_would_repeat_is_not_cut_if_it_is_large() -> None:
    """Otherwise a hostile request of some megabytes became gigabytes."""
    request = every_span(10_000, size=1)
    request.resource_spans[0].resource.attributes.append(text("large", "x" * 900_000))
    whole = encoded(request)
    assert split(whole, DEFAULT_MAX_BYTES) == [whole]


def test_what_fits_is_the_batch_itself() -> None:
    whole = points_of(10)
    assert split(whole, len(whole.data)) == [whole]


def test_a_point_too_large_for_any_request_becomes_one_of_its_own() -> None:
    parts = split(points_of(3, size=1_000), 500)
    assert [len(part) for part in parts] == [1, 1, 1]


@pytest.mark.parametrize("data", [b"\xff" * 100, points_of(10).data[:-1], b"\x08\x01" * 50])
def test_what_is_no_request_is_not_cut(data: bytes) -> None:
    whole = EncodedBatch("metrics", data, 10)
    assert split(whole, 20) == [whole]


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_staying_whole(data: bytes) -> None:
    assert sum(map(len, split(EncodedBatch("metrics", data, 1), 10))) == 1
