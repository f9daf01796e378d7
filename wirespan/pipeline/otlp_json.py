"""SpanBatch → OTLP JSON, one request a line, as the Collector's file exporter writes it.

The encoding is protobuf's JSON mapping with OTLP's exceptions (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding):
ids are hex, enums are numbers; 64-bit integers are strings. Text of fragments and resources is kept like their
protobuf bytes; the rest of a span is one formatting of a template that all spans with the same numbers share.

A fragment contributes members of the span object (name, status) and elements of its ``attributes``, which stand in
different places; so ``FragmentTable.text`` has two entries a fragment, ``2 * id`` and ``2 * id + 1``. Each member and
each element brings a comma behind it; that of a span's last attribute is cut off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from .otlp import ResourceRun, resource_runs
from .otlp_columns import Int64Array
from .otlp_fields import SCHEMA_URL, SCOPE_NAME
from .spans import (
    AttributeValue,
    Fragment,
    FragmentColumn,
    NumberArray,
    ResourceTable,
    SpanBatch,
    StatusCode,
    TextColumn,
    UInt64Array,
    is_present,
)

#: From here on not every number of nanoseconds is a float, and far beyond there is none that large.
_TOO_MANY_SECONDS = 2**53 / 1e9

#: A span up to its first attribute. Every attribute brings a comma behind it.
_HEAD = (
    '{"traceId":"%s","spanId":"%s","parentSpanId":"%s",%s"kind":%d,'
    '"startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":['
)

#: Guards the tables' caches: two pipelines may encode batches of one table at the same time.
_cache_lock = Lock()


def encode_json(batch: SpanBatch) -> str:
    """The batch as the text of one ``ExportTraceServiceRequest``, without an end of line in it."""
    if not len(batch):
        return '{"resourceSpans":[]}'
    order, runs = resource_runs(batch)
    spans = _spans(batch, order)
    resource_spans = ",".join(_resource_spans(batch.resources, run, spans) for run in runs)
    return f'{{"resourceSpans":[{resource_spans}]}}'


def _resource_spans(table: ResourceTable, run: ResourceRun, spans: list[str]) -> str:
    scope = f'{{"name":{_text(SCOPE_NAME)},"version":{_text(__version__)}}}'
    scope_spans = f'{{"scope":{scope},"spans":[{",".join(spans[run.first : run.last])}],"schemaUrl":"{SCHEMA_URL}"}}'
    resource = _resource(table, run.resource)
    return f'{{"resource":{resource},"scopeSpans":[{scope_spans}],"schemaUrl":"{SCHEMA_URL}"}}'


def _spans(batch: SpanBatch, order: Int64Array) -> list[str]:
    """Spans that have the same numbers share a template: one formatting in C fills it."""
    numbers = {name: values[order] for name, values in batch.numbers.items()}
    members, attributes = _fragment_columns(batch, order)
    columns: list[npt.NDArray[Any]] = [
        np.array(column, object)
        for column in (
            _hex(batch.trace_id[order]),
            _hex(batch.span_id[order]),
            _parents(batch.parent_span_id[order]),
            members,
        )
    ]
    fixed: list[npt.NDArray[Any]] = [batch.kind[order], batch.start[order], batch.end[order]]
    texts = np.array(attributes, object)
    spans = np.empty(len(order), object)
    presence = _presence(numbers, len(order))
    for mask in np.unique(presence).tolist():
        rows = np.flatnonzero(presence == mask)
        filled = [column[rows].tolist() for column in (*columns, *fixed)]
        template = _HEAD
        for bit, (name, values) in enumerate(numbers.items()):
            if mask >> bit & 1:
                value_format, printed = _printed(values[rows])
                key = _text(name).replace("%", "%%")
                template += f'{{"key":{key},"value":{value_format}}},'
                filled += printed
        spans[rows] = [
            (template % values + text).rstrip(",") + "]}"
            for values, text in zip(zip(*filled, strict=True), texts[rows].tolist(), strict=True)
        ]
    found: list[str] = spans.tolist()
    return found


def _presence(numbers: Mapping[str, NumberArray], size: int) -> Int64Array:
    """(n,) bits: which numbers each span has."""
    presence = np.zeros(size, np.int64)
    for bit, values in enumerate(numbers.values()):
        presence |= is_present(values).astype(np.int64) << bit
    return presence


def _printed(values: NumberArray) -> tuple[str, list[list[Any]]]:
    """A format of an ``AnyValue``, and the columns that fill it.

    Seconds that are whole nanoseconds, as durations are, print as two integers: four times as fast as the shortest
    text of a float, and the same float again when it is read, since both are the one nearest to the decimal.
    """
    if values.dtype.kind != "f":
        return '{"intValue":"%d"}', [values.tolist()]
    if (~np.signbit(values) & (values < _TOO_MANY_SECONDS)).all():
        nanoseconds = np.rint(values * 1e9)
        if (nanoseconds / 1e9 == values).all():
            whole, rest = np.divmod(nanoseconds.astype(np.int64), 1_000_000_000)
            return '{"doubleValue":%d.%09d}', [whole.tolist(), rest.tolist()]
    return '{"doubleValue":%s}', [[_double(value) for value in values.tolist()]]


def _fragment_columns(batch: SpanBatch, order: Int64Array) -> tuple[list[str], list[str]]:
    """Each span's further members, and its shared attributes."""
    nothing = [""] * len(order)  # zip needs one at least
    members = [nothing if batch.trace_states is None else _trace_states(batch.trace_states.where(order))]
    attributes = [nothing, *(_text_attributes(name, column.where(order)) for name, column in batch.texts.items())]
    for column in batch.fragments:
        text = _fragment_text(column)
        ids = (2 * column.ids[order]).tolist()
        members.append([text[index] for index in ids])
        attributes.append([text[index + 1] for index in ids])
    return list(map("".join, zip(*members, strict=True))), list(map("".join, zip(*attributes, strict=True)))


def _text_attributes(name: str, column: TextColumn) -> list[str]:
    """Of each span the attribute, or nothing."""
    data, begins, lengths = column.data.tobytes(), column.begins.tolist(), column.lengths.tolist()
    head = f'{{"key":{_text(name)},"value":{{"stringValue":'
    return [
        "" if length < 0 else f"{head}{_text(data[begin : begin + length].decode())}}}}},"
        for begin, length in zip(begins, lengths, strict=True)
    ]


def _trace_states(column: TextColumn) -> list[str]:
    """Of each span the member, or nothing."""
    texts = (column.text(row) for row in range(len(column.begins)))
    return ["" if text is None else f'"traceState":{_text(text)},' for text in texts]


def _hex(values: UInt64Array) -> list[str]:
    """Each row of (n,) or (n, 2) as big-endian hex."""
    digits = 16 * (values.size // len(values))
    text = values.astype(">u8").tobytes().hex()
    return [text[at : at + digits] for at in range(0, len(text), digits)]


def _parents(values: UInt64Array) -> list[str]:
    roots: npt.NDArray[np.bool_] = values == 0
    return ["" if root else parent for root, parent in zip(roots.tolist(), _hex(values), strict=True)]


def _fragment_text(column: FragmentColumn) -> list[str]:
    table = column.table
    if len(table.text) < 2 * len(table.fragments):
        with _cache_lock:
            for fragment in table.fragments[len(table.text) // 2 :]:
                table.text += (_members(fragment), "".join(f"{item}," for item in _attributes(fragment.attributes)))
    return table.text


def _members(fragment: Fragment) -> str:
    name = "" if fragment.name is None else f'"name":{_text(fragment.name)},'
    status = "" if fragment.status is StatusCode.UNSET else f'"status":{{"code":{fragment.status:d}}},'
    state = f'"traceState":{_text(fragment.trace_state)},' if fragment.trace_state else ""
    return name + status + state


def _resource(table: ResourceTable, index: int) -> str:
    if len(table.text) < len(table.resources):
        with _cache_lock:
            for attributes in table.resources[len(table.text) :]:
                table.text.append(f'{{"attributes":[{",".join(_attributes(attributes.items()))}]}}')
    return table.text[index]


def _attributes(attributes: Iterable[tuple[str, AttributeValue]]) -> list[str]:
    return [f'{{"key":{_text(key)},"value":{_value(value)}}}' for key, value in attributes]


def _value(value: AttributeValue) -> str:
    """An ``AnyValue``."""
    match value:
        case str():
            return f'{{"stringValue":{_text(value)}}}'
        case bool():  # before int: a bool is one
            return f'{{"boolValue":{json.dumps(value)}}}'
        case int():
            return f'{{"intValue":"{value}"}}'
        case float():
            return f'{{"doubleValue":{_double(value)}}}'
        case tuple():
            return f'{{"arrayValue":{{"values":[{",".join(map(_value, value))}]}}}}'


def _double(value: float) -> str:
    """JSON has no numbers for these three; protobuf's mapping spells them."""
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _text(value: str) -> str:
    """Lone surrogates become ``?``, as in the protobuf encoding."""
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
