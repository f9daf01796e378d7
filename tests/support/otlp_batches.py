"""Span batches for tests of the encodings and exporters, and what opentelemetry-proto says they are.

:func:`spans_of` builds opentelemetry-proto messages field by field, so that encodings are compared with an
implementation that shares nothing with ours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from wirespan.pipeline.spans import (
    AttributeValue,
    Fragment,
    FragmentColumn,
    FragmentTable,
    ResourceTable,
    SpanBatch,
    SpanKind,
    StatusCode,
    TextColumn,
)

START = 1_790_000_000 * 10**9

_uint64 = st.integers(0, 2**64 - 1)
_int64 = st.integers(-(2**63), 2**63 - 1)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_values = st.one_of(_text, st.booleans(), _int64, st.floats(allow_nan=False), st.lists(_text, max_size=3).map(tuple))
_attributes = st.dictionaries(_text, _values, max_size=4)


def batch_of(count: int, name: str = "GET", resources: int = 1, attribute: str = "10.0.0.1") -> SpanBatch:
    """``count`` client spans, span i of id i + 1 and of resource ``service-{i % resources}``."""
    table, fragments = ResourceTable(), FragmentTable()
    for service in range(resources):
        table.intern({"service.name": f"service-{service}"})
    fragments.intern(Fragment(name, (("network.peer.address", "10.0.0.1"), ("server.address", attribute))))
    ids = np.arange(1, count + 1, dtype=np.uint64)
    return SpanBatch(
        trace_id=np.stack((ids, ids), axis=1),
        span_id=ids,
        parent_span_id=np.zeros(count, np.uint64),
        start=np.full(count, START, np.uint64),
        end=np.full(count, START + 1_500_000, np.uint64),
        kind=np.full(count, SpanKind.CLIENT, np.uint8),
        resource=np.arange(count) % resources,
        resources=table,
        fragments=(FragmentColumn(fragments, np.zeros(count, np.int64)),),
        numbers={"network.peer.port": np.full(count, 6379), "wirespan.response.size": np.full(count, 5)},
    )


@st.composite
def batches(draw: st.DrawFn, max_spans: int = 8) -> SpanBatch:
    """Any batch that keeps the contract of SpanBatch, and integers up to 2**63 - 1 beyond it."""
    count = draw(st.integers(0, max_spans))

    def column(elements: st.SearchStrategy[int], dtype: type) -> np.ndarray:
        return np.array(draw(st.lists(elements, min_size=count, max_size=count)), dtype)

    resources = ResourceTable()
    for attributes in draw(st.lists(_attributes, min_size=1, max_size=3)):
        resources.intern(attributes)
    named = draw(_fragment_columns(count, _text, st.sampled_from(StatusCode), st.sampled_from(("", "ot=th:e6"))))
    stateless = all(not fragment.trace_state for fragment in named.table.fragments)
    others = draw(st.lists(_fragment_columns(count, st.none(), st.just(StatusCode.UNSET), st.just("")), max_size=2))
    return SpanBatch(
        trace_id=np.stack((column(_uint64, np.uint64), column(_uint64, np.uint64)), axis=1),
        span_id=column(_uint64, np.uint64),
        parent_span_id=column(st.one_of(st.just(0), _uint64), np.uint64),
        start=column(_uint64, np.uint64),
        end=column(_uint64, np.uint64),
        kind=column(st.sampled_from(SpanKind), np.uint8),
        resource=column(st.integers(0, len(resources) - 1), np.int64),
        resources=resources,
        fragments=(named, *others),
        numbers=draw(_number_columns(count)),
        texts=draw(_text_columns(count)),
        trace_states=next(iter(draw(_text_columns(count)).values()), None) if stateless else None,
    )


@st.composite
def _fragment_columns(
    draw: st.DrawFn,
    count: int,
    names: st.SearchStrategy[str | None],
    statuses: st.SearchStrategy[StatusCode],
    states: st.SearchStrategy[str],
) -> FragmentColumn:
    table = FragmentTable()
    fragments = st.builds(Fragment, names, _attributes.map(lambda found: tuple(found.items())), statuses, states)
    for fragment in draw(st.lists(fragments, min_size=1, max_size=3)):
        table.intern(fragment)
    ids = draw(st.lists(st.integers(0, len(table) - 1), min_size=count, max_size=count))
    return FragmentColumn(table, np.array(ids, np.int64))


@st.composite
def _number_columns(draw: st.DrawFn, count: int) -> dict[str, np.ndarray]:
    integers = st.one_of(st.just(-1), st.integers(0, 1000), st.integers(0, 2**63 - 1))
    doubles = st.one_of(st.just(float("nan")), st.floats())
    columns = {}
    for name in draw(st.lists(_text, unique=True, max_size=4)):
        elements, dtype = draw(st.sampled_from([(integers, np.int64), (doubles, np.float64)]))
        columns[name] = np.array(draw(st.lists(elements, min_size=count, max_size=count)), dtype)
    return columns


@st.composite
def _text_columns(draw: st.DrawFn, count: int) -> dict[str, TextColumn]:
    """Also texts whose lengths take two bytes, and the same bytes as the text of several spans."""
    texts = st.one_of(st.none(), _text, st.sampled_from(("/" * 120, "ä" * 80, "x" * 20_000)))
    columns = {}
    for name in draw(st.lists(_text, unique=True, max_size=2)):
        found = draw(st.lists(texts, min_size=count, max_size=count))
        encoded = [None if text is None else text.encode() for text in found]
        data = b"".join({text for text in encoded if text is not None})
        begins = [data.find(text or b"") for text in encoded]
        lengths = [-1 if text is None else len(text) for text in encoded]
        columns[name] = TextColumn(
            np.frombuffer(data, np.uint8), np.array(begins, np.int64), np.array(lengths, np.int64)
        )
    return columns


def spans_of(batch: SpanBatch) -> Iterator[tuple[Resource, Span]]:
    """Each span with its resource, grouped by resource and otherwise in order."""
    for row in np.argsort(batch.resource, kind="stable").tolist():
        attributes = batch.resources.resources[batch.resource[row]].items()
        yield Resource(attributes=[_key_value(*item) for item in attributes]), _span(batch, row)


def _span(batch: SpanBatch, row: int) -> Span:
    parent = int(batch.parent_span_id[row])
    span = Span(
        trace_id=b"".join(int(half).to_bytes(8, "big") for half in batch.trace_id[row]),
        span_id=int(batch.span_id[row]).to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        kind=int(batch.kind[row]),
        start_time_unix_nano=int(batch.start[row]),
        end_time_unix_nano=int(batch.end[row]),
    )
    for name, values in batch.numbers.items():
        value = values[row].item()
        if value >= 0 or (isinstance(value, float) and value == value):
            span.attributes.append(_key_value(name, value))
    for name, texts in batch.texts.items():
        begin, length = texts.begins[row], texts.lengths[row]
        if length >= 0:
            span.attributes.append(_key_value(name, texts.data[begin : begin + length].tobytes().decode()))
    if batch.trace_states is not None:
        span.trace_state = batch.trace_states.text(row) or ""
    for column in batch.fragments:
        fragment = column.table.fragments[column.ids[row]]
        span.name = span.name if fragment.name is None else fragment.name
        span.trace_state = span.trace_state or fragment.trace_state
        span.attributes.extend(_key_value(*item) for item in fragment.attributes)
        if fragment.status is not StatusCode.UNSET:
            span.status.MergeFrom(Status(code=int(fragment.status)))
    return span


def _key_value(key: str, value: AttributeValue) -> KeyValue:
    return KeyValue(key=key, value=_any_value(value))


def _any_value(value: AttributeValue) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=value)
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case tuple():
            return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))
