"""A span batch as the C encoder takes it (wirespan/native/otlp.h): columns, and the wire's constant bytes as prefixes.

A span on the wire is what every span has, its optional fields, and the bytes of its fragments. Prefixes hold tags, keys
and the lengths that are the same for all spans. For that an integer's varint has the width of the column's largest
value: it is *padded*, every byte but the last having its continuation bit set, so 5 may be ``85 80 00``. The encoding
guide allows it, and decoders accept up to ten bytes. All other varints are the shortest.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import POINTER, cast, pointer
from enum import IntEnum
from functools import lru_cache
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..native.library import Column, Spans, SpanStart, Strings, address
from .otlp_fields import (
    SCHEMA_URL,
    SCOPE_NAME,
    AnyValueField,
    KeyValueField,
    ResourceField,
    ResourceSpansField,
    ScopeField,
    ScopeSpansField,
    SpanField,
    StatusField,
    TracesField,
    encode_attributes,
)
from .protobuf import WireType, bytes_field, bytes_field_prefix, string_field, tag, varint_field
from .spans import (
    AttributeValue,
    ByteTable,
    Fragment,
    FragmentTable,
    NumberArray,
    ResourceTable,
    SpanBatch,
    StatusCode,
    TextColumn,
)

Int64Array = npt.NDArray[np.int64]


class ColumnKind(IntEnum):
    """enum column_kind of otlp.h."""

    PARENT = 0
    INTEGER = 1
    DOUBLE = 2
    TEXT = 3
    FRAGMENT = 4
    STRING = 5


#: Guards the tables' caches: two pipelines may encode batches of one table at the same time.
_cache_lock = Lock()


def _byte_table(*strings: bytes) -> ByteTable:
    table = ByteTable()
    table.append(strings)
    return table


#: enum envelope of otlp.c: what surrounds spans and resources
_ENVELOPE: Final = _byte_table(
    tag(TracesField.RESOURCE_SPANS, WireType.LEN),
    tag(ResourceSpansField.SCOPE_SPANS, WireType.LEN),
    bytes_field(
        ScopeSpansField.SCOPE, string_field(ScopeField.NAME, SCOPE_NAME) + string_field(ScopeField.VERSION, __version__)
    ),
    tag(ScopeSpansField.SPANS, WireType.LEN),
    string_field(ScopeSpansField.SCHEMA_URL, SCHEMA_URL),
    string_field(ResourceSpansField.SCHEMA_URL, SCHEMA_URL),
)


class EncodableSpans:
    """The batch as ``struct spans``, its rows in this order. Keeps every array that the structure points into.

    Raises ValueError for a column of another length.
    """

    def __init__(self, batch: SpanBatch, order: Int64Array) -> None:
        self._kept: list[Any] = []
        self._count = len(batch)
        columns = self._columns(batch)
        self.struct = Spans(
            count=len(batch),
            order=self._array(order, np.int64),
            trace_id=self._array(batch.trace_id, np.uint64),
            span_id=self._array(batch.span_id, np.uint64),
            kind=self._array(batch.kind, np.uint8),
            start=self._array(batch.start, np.uint64),
            end=self._array(batch.end, np.uint64),
            resource=self._array(batch.resource, np.int64),
            resources=self._strings(resource_wire(batch.resources)),
            fixed=_START,
            columns=cast((Column * len(columns))(*columns), POINTER(Column)),
            column_count=len(columns),
            envelope=self._strings(_ENVELOPE),
            sizes=self._array(np.empty(len(batch), np.uint32), np.uint32),
        )
        self.pointer = pointer(self.struct)

    def _columns(self, batch: SpanBatch) -> list[Column]:
        parents = self._column(ColumnKind.PARENT, batch.parent_span_id, np.uint64, _PARENT)
        numbers = [self._number(name, values) for name, values in batch.numbers.items()]
        texts = [self._text(ColumnKind.TEXT, _text_prefix(name), column) for name, column in batch.texts.items()]
        if batch.trace_states is not None:
            texts.append(self._text(ColumnKind.STRING, _TRACE_STATE, batch.trace_states))
        fragments = [
            Column(
                kind=ColumnKind.FRAGMENT,
                values=self._array(column.ids, np.int64),
                strings=self._strings(fragment_wire(column.table)),
            )
            for column in batch.fragments
        ]
        return [parents, *numbers, *texts, *fragments]

    def _number(self, name: str, values: NumberArray) -> Column:
        if values.dtype.kind == "f":
            return self._column(ColumnKind.DOUBLE, values, np.float64, _double_prefix(name))
        width = max(1, -(-int(values.max()).bit_length() // 7))
        return self._column(ColumnKind.INTEGER, values, np.int64, _integer_prefix(name, width), width)

    def _text(self, kind: ColumnKind, prefix: npt.NDArray[np.uint8], column: TextColumn) -> Column:
        text = self._column(kind, column.begins, np.int64, prefix)
        text.lengths = self._array(column.lengths, np.int64)
        data = np.ascontiguousarray(column.data, np.uint8)
        self._kept.append(data)
        text.strings = Strings(address(data), None, len(data))
        return text

    def _column(
        self, kind: ColumnKind, values: npt.NDArray[Any], dtype: type, prefix: npt.NDArray[np.uint8], width: int = 0
    ) -> Column:
        self._kept.append(prefix)
        return Column(
            kind=kind,
            values=self._array(values, dtype),
            prefix=address(prefix),
            prefix_size=len(prefix),
            width=width,
        )

    def _array(self, values: npt.NDArray[Any], dtype: type) -> int:
        if len(values) != self._count:
            raise ValueError(f"a column of {len(values)} values in a batch of {self._count} spans")
        contiguous: npt.NDArray[Any] = np.ascontiguousarray(values, dtype)
        self._kept.append(contiguous)
        return address(contiguous)

    def _strings(self, table: ByteTable) -> Strings:
        count, ends, data = len(table), table.ends, table.data  # in this order: another thread may append
        self._kept += (ends, data)
        return Strings(address(data), address(ends), count)


def fragment_wire(table: FragmentTable) -> ByteTable:
    """The fields of ``Span`` that each fragment holds."""
    if len(table.wire) < len(table.fragments):
        with _cache_lock:
            table.wire.append([encode_fragment(fragment) for fragment in table.fragments[len(table.wire) :]])
    return table.wire


def encode_fragment(fragment: Fragment) -> bytes:
    """The fields of a ``Span`` that a fragment holds."""
    encoded = b"" if fragment.name is None else string_field(SpanField.NAME, fragment.name)
    encoded += encode_attributes(SpanField.ATTRIBUTES, fragment.attributes)
    if fragment.status is not StatusCode.UNSET:
        encoded += bytes_field(SpanField.STATUS, varint_field(StatusField.CODE, fragment.status))
    if fragment.trace_state:
        encoded += string_field(SpanField.TRACE_STATE, fragment.trace_state)
    return encoded


def resource_wire(table: ResourceTable) -> ByteTable:
    """The ``ResourceSpans.resource`` field of each resource."""
    if len(table.wire) < len(table.resources):
        with _cache_lock:
            table.wire.append([_encode_resource(resource) for resource in table.resources[len(table.wire) :]])
    return table.wire


def _encode_resource(resource: Mapping[str, AttributeValue]) -> bytes:
    return bytes_field(ResourceSpansField.RESOURCE, encode_attributes(ResourceField.ATTRIBUTES, resource.items()))


def _prefix(encoded: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(encoded, np.uint8)


_PARENT: Final = _prefix(bytes_field_prefix(SpanField.PARENT_SPAN_ID, 8))
_TRACE_STATE: Final = _prefix(tag(SpanField.TRACE_STATE, WireType.LEN))


# Bounded, like those below, because processors name columns too.
@lru_cache(maxsize=256)
def _double_prefix(name: str) -> npt.NDArray[np.uint8]:
    return _attribute_prefix(name, tag(AnyValueField.DOUBLE, WireType.I64), 8)


@lru_cache(maxsize=256)
def _integer_prefix(name: str, width: int) -> npt.NDArray[np.uint8]:
    return _attribute_prefix(name, tag(AnyValueField.INT, WireType.VARINT), width)


def _attribute_prefix(name: str, value_tag: bytes, width: int) -> npt.NDArray[np.uint8]:
    """What precedes the ``width`` bytes of a value in a ``Span.attributes`` field."""
    size = len(value_tag) + width
    key = string_field(KeyValueField.KEY, name) + bytes_field_prefix(KeyValueField.VALUE, size)
    return _prefix(bytes_field_prefix(SpanField.ATTRIBUTES, len(key) + size) + key + value_tag)


@lru_cache(maxsize=256)
def _text_prefix(name: str) -> npt.NDArray[np.uint8]:
    """Three lengths that depend on the text belong behind the first byte, before the last byte, and behind it."""
    key = string_field(KeyValueField.KEY, name)
    return _prefix(
        tag(SpanField.ATTRIBUTES, WireType.LEN)
        + key
        + tag(KeyValueField.VALUE, WireType.LEN)
        + tag(AnyValueField.STRING, WireType.LEN)
    )


def _span_start() -> tuple[npt.NDArray[np.uint8], dict[str, int]]:
    """What every span has, with zeros for values, and where in it each of these is."""
    encoded, offsets = b"", {}
    for name, prefix, size in (
        ("trace_id", bytes_field_prefix(SpanField.TRACE_ID, 16), 16),
        ("span_id", bytes_field_prefix(SpanField.SPAN_ID, 8), 8),
        ("kind", tag(SpanField.KIND, WireType.VARINT), 1),
        ("start", tag(SpanField.START_TIME_UNIX_NANO, WireType.I64), 8),
        ("end", tag(SpanField.END_TIME_UNIX_NANO, WireType.I64), 8),
    ):
        encoded += prefix
        offsets[name] = len(encoded)
        encoded += bytes(size)
    return _prefix(encoded), offsets


_START_BYTES, _START_OFFSETS = _span_start()
_START: Final = SpanStart(address(_START_BYTES), len(_START_BYTES), **_START_OFFSETS)
