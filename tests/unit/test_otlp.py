"""OTLP requests, decoded by opentelemetry-proto's classes and compared field by field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.otlp_batches import batch_of, batches, spans_of
from wirespan import __version__
from wirespan.pipeline.otlp import DEFAULT_MAX_BYTES, ExportRequest, encode_requests
from wirespan.pipeline.otlp_fields import SCHEMA_URL
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, ResourceTable, TextColumn


def decoded(requests: Iterable[ExportRequest]) -> Iterator[tuple[Resource, Span]]:
    for request in requests:
        message = ExportTraceServiceRequest.FromString(request.payload)
        spans = [
            (resource_spans.resource, span)
            for resource_spans in message.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]
        assert len(spans) == request.spans
        yield from spans


@settings(max_examples=50, deadline=None)
@given(batches())
def test_every_field_of_every_span_arrives(batch):
    assert list(decoded(encode_requests(batch))) == list(spans_of(batch))


@settings(max_examples=50, deadline=None)
@given(batches(), st.integers(1, 2000))
def test_splitting_by_bytes_loses_and_reorders_nothing(batch, max_bytes):
    assert list(decoded(encode_requests(batch, max_bytes))) == list(spans_of(batch))


@settings(max_examples=50, deadline=None)
@given(batches(), st.integers(1, 2000))
def test_a_request_above_the_limit_holds_what_cannot_be_split(batch, max_bytes):
    for request in encode_requests(batch, max_bytes):
        if len(request.payload) > max_bytes:
            message = ExportTraceServiceRequest.FromString(request.payload)
            (resource_spans,) = message.resource_spans
            assert request.spans == 1 or resource_spans.resource.ByteSize() > max_bytes - 200


def test_an_empty_batch_is_no_request():
    assert encode_requests(batch_of(0)) == []


def test_spans_are_grouped_by_resource_under_one_scope_with_version_and_schema():
    (request,) = encode_requests(batch_of(10, resources=3))
    message = ExportTraceServiceRequest.FromString(request.payload)
    assert [len(group.scope_spans[0].spans) for group in message.resource_spans] == [4, 3, 3]
    for resource_spans in message.resource_spans:
        (scope_spans,) = resource_spans.scope_spans
        assert (scope_spans.scope.name, scope_spans.scope.version) == ("wirespan", __version__)
        assert resource_spans.schema_url == scope_spans.schema_url == SCHEMA_URL


def test_requests_are_filled_up_to_the_limit():
    requests = encode_requests(batch_of(20_000), max_bytes=100_000)
    assert all(len(request.payload) <= 100_000 for request in requests)
    assert all(len(request.payload) > 99_000 for request in requests[:-1])


def test_by_default_a_request_is_below_the_4_mib_that_grpc_servers_accept():
    requests = encode_requests(batch_of(30_000, attribute="x" * 300))
    assert len(requests) > 2
    assert max(len(request.payload) for request in requests) <= DEFAULT_MAX_BYTES < 4 * 1024 * 1024


def test_one_resource_larger_than_a_request_does_not_multiply_into_a_request_a_span():
    batch = batch_of(100)
    batch.resources = ResourceTable()
    batch.resources.intern({"process.executable.path": "x" * 2000})
    (request,) = encode_requests(batch, max_bytes=1000)
    assert request.spans == 100


def test_a_span_larger_than_a_request_travels_alone():
    batch = batch_of(3)
    large = FragmentTable()
    large.intern(Fragment())
    large.intern(Fragment(None, (("db.query.summary", "x" * 5000),)))
    batch.fragments += (FragmentColumn(large, np.array([0, 1, 0])),)
    requests = encode_requests(batch, max_bytes=1000)
    assert [(request.spans, len(request.payload) > 1000) for request in requests] == [
        (1, False),
        (1, True),
        (1, False),
    ]


def test_fragments_interned_after_a_batch_was_encoded_are_encoded_too():
    batch = batch_of(2)
    encode_requests(batch)
    column = batch.fragments[0]
    batch.fragments = (FragmentColumn(column.table, np.array([0, column.table.intern(Fragment("POST"))])),)
    assert [span.name for _, span in decoded(encode_requests(batch))] == ["GET", "POST"]


def test_text_that_is_not_utf8_is_replaced_rather_than_refused_by_the_receiver():
    ((_, span),) = decoded(encode_requests(batch_of(1, name=b"/bin/\xff".decode("utf-8", "surrogateescape"))))
    assert span.name == "/bin/?"


def test_absent_numbers_and_absent_parents_are_not_encoded():
    batch = batch_of(3)
    batch.parent_span_id = np.array([0, 7, 0], np.uint64)
    batch.numbers = {"a": np.array([-1, 0, 5]), "b": np.array([0.5, np.nan, -0.0])}
    spans = [span for _, span in decoded(encode_requests(batch))]
    assert [span.parent_span_id for span in spans] == [b"", (7).to_bytes(8, "big"), b""]
    keys = [[item.key for item in span.attributes if len(item.key) == 1] for span in spans]
    assert keys == [["b"], ["a"], ["a", "b"]]


def test_any_number_of_number_columns_is_encoded():
    batch = batch_of(1)
    batch.numbers = {str(column): np.array([column]) for column in range(100)}
    ((_, span),) = decoded(encode_requests(batch))
    assert [item.value.int_value for item in span.attributes if item.key.isdigit()] == list(range(100))


def test_an_index_behind_the_end_of_its_table_is_refused_before_anything_is_read():
    for change in ("resource", "fragment", "text"):
        batch = batch_of(3)
        if change == "resource":
            batch.resource = np.array([0, 1, 0])
        elif change == "fragment":
            batch.fragments = (FragmentColumn(batch.fragments[0].table, np.array([0, -1, 0])),)
        else:
            zeros, data = np.zeros(3, np.int64), np.zeros(4, np.uint8)
            batch.texts = {"url.path": TextColumn(data, zeros, np.array([4, 5, -1]))}
        with pytest.raises(ValueError, match="behind the end"):
            encode_requests(batch)


def test_columns_of_another_length_are_refused():
    batch = batch_of(3)
    batch.numbers = {"network.peer.port": np.array([1, 2])}
    with pytest.raises(ValueError, match="2 values in a batch of 3 spans"):
        encode_requests(batch)


def test_columns_of_another_memory_layout_are_encoded_as_well():
    batch, every_second = batch_of(6), np.arange(6)[::2]
    batch.texts = {"url.path": TextColumn(np.frombuffer(b"/abcdef", np.uint8), np.arange(6), np.full(6, 1))}
    numbers = {name: np.repeat(column, 2)[::2] for name, column in batch.numbers.items()}
    batch.numbers = {name: column.astype(np.int32) for name, column in numbers.items()}
    kept = batch.where(every_second)
    assert list(decoded(encode_requests(kept))) == list(spans_of(kept))
