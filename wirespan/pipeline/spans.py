"""Spans as columns.

A :class:`SpanBatch` holds n spans as numpy arrays. What repeats from span to span (name, protocol
attributes, addresses, status) is not stored per row: a row holds indices into
:class:`FragmentTable` s, whose entries were turned into Python values and OTLP bytes once. What differs in
every span (ids, times, sizes, durations, ports) are numeric columns, and text that differs (a URL's path) is bytes
back to back. So nothing is allocated per span between the kernel's ring and the exporter's request.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

AttributeValue: TypeAlias = str | bool | int | float | tuple[str, ...]
UInt64Array: TypeAlias = npt.NDArray[np.uint64]
NumberArray: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]


class SpanKind(IntEnum):
    """opentelemetry.proto.trace.v1.Span.SpanKind."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class StatusCode(IntEnum):
    """opentelemetry.proto.trace.v1.Status.StatusCode."""

    UNSET = 0
    OK = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a span that many spans share: a name, a status, a W3C tracestate, some attributes, each optional.

    A span's fragments are concatenated: of its fragments exactly one has a name and at most one each of the others.
    """

    name: str | None = None
    attributes: tuple[tuple[str, AttributeValue], ...] = ()
    status: StatusCode = StatusCode.UNSET
    trace_state: str = ""


class ByteTable:
    """Byte strings by index, back to back in one array that grows: what an encoder in C reads.

    String i is ``data[ends[i]:ends[i + 1]]``. What was added is never changed or moved within its array, so an array
    that a reader holds stays valid while others append.
    """

    __slots__ = ("_count", "data", "ends")

    def __init__(self) -> None:
        self._count = 0
        self.data = np.empty(1024, np.uint8)
        self.ends = np.zeros(64, np.int64)

    def __len__(self) -> int:
        return self._count

    def append(self, strings: Sequence[bytes]) -> None:
        """Add these strings behind the others."""
        joined = b"".join(strings)
        begin, count = int(self.ends[self._count]), self._count + len(strings)
        self.data = _grown(self.data, begin + len(joined))
        self.data[begin : begin + len(joined)] = np.frombuffer(joined, np.uint8)
        self.ends = _grown(self.ends, count + 1)
        self.ends[self._count + 1 : count + 1] = begin + np.cumsum([len(string) for string in strings])
        self._count = count  # last: a reader that sees it sees what belongs to it


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The array, or a copy of twice the size if it has less room."""
    if size <= len(array):
        return array
    larger = np.empty(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


class FragmentTable:
    """Fragments by index, bounded: once ``full``, its owner starts a new table and forgets its indices.

    Batches keep a reference to the table that their indices belong to, so an old table lives exactly as
    long as a batch needs it. ``wire`` and ``text`` are caches that encoders fill (one and two entries a fragment).
    """

    __slots__ = ("__weakref__", "_index", "fragments", "limit", "text", "wire")

    def __init__(self, limit: int = 65_536) -> None:
        self.limit = limit
        self.fragments: list[Fragment] = []
        self.wire = ByteTable()
        self.text: list[str] = []
        self._index: dict[Fragment, int] = {}

    def __len__(self) -> int:
        return len(self.fragments)

    @property
    def full(self) -> bool:
        """Whether the limit is reached; ``intern`` still answers, so that a batch under way can be finished."""
        return len(self.fragments) >= self.limit

    def intern(self, fragment: Fragment) -> int:
        """The index of an equal fragment, added if there is none."""
        index = self._index.get(fragment)
        if index is None:
            index = self._index[fragment] = len(self.fragments)
            self.fragments.append(fragment)
        return index


class ResourceTable:
    """Resources (attribute sets) by index; same life and bound as :class:`FragmentTable`."""

    __slots__ = ("__weakref__", "_index", "limit", "resources", "text", "wire")

    def __init__(self, limit: int = 65_536) -> None:
        self.limit = limit
        self.resources: list[Mapping[str, AttributeValue]] = []
        self.wire = ByteTable()
        self.text: list[str] = []
        self._index: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self.resources)

    @property
    def full(self) -> bool:
        return len(self.resources) >= self.limit

    def intern(self, attributes: Mapping[str, AttributeValue]) -> int:
        key = tuple(attributes.items())
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = len(self.resources)
            self.resources.append(dict(attributes))
        return index


def is_present(values: NumberArray) -> npt.NDArray[np.bool_]:
    """Which rows of a number column have a value; see :class:`SpanBatch`."""
    return ~np.isnan(values) if values.dtype.kind == "f" else values >= 0


@dataclass(frozen=True, slots=True)
class FragmentColumn:
    """``ids[i]`` is the index in ``table`` of a fragment of span i. ``ids``: (n,) int64."""

    table: FragmentTable
    ids: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextColumn:
    """An attribute whose text differs from span to span, such as a URL's path, so that interning it would not pay.

    The text of span i is the ``lengths[i]`` bytes of ``data`` from ``begins[i]`` on, which are valid UTF-8; a negative
    length means absent. data: (m,) uint8. begins, lengths: (n,) int64.
    """

    data: npt.NDArray[np.uint8]
    begins: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def text(self, row: int) -> str | None:
        """The text of one span, None if it has none. For whoever shows or prints spans singly."""
        begin, length = int(self.begins[row]), int(self.lengths[row])
        return None if length < 0 else self.data[begin : begin + length].tobytes().decode()

    def where(self, keep: npt.NDArray[Any]) -> TextColumn:
        """Of these rows: a mask or indices."""
        return TextColumn(self.data, self.begins[keep], self.lengths[keep])


@dataclass(slots=True)
class SpanBatch:
    """n spans. All arrays have n rows.

    trace_id: (n, 2) uint64, the high and the low half; on the wire each is big-endian.
    span_id, parent_span_id: (n,) uint64, big-endian on the wire; parent 0 means a root span.
    start, end: (n,) uint64, nanoseconds since the Unix epoch.
    kind: (n,) uint8, :class:`SpanKind`.
    resource: (n,) int64, indices into ``resources``.
    fragments: what spans share, see :class:`Fragment`.
    numbers: attribute name to column; int64 where a negative value means absent (values below 2**42), or
        float64 where NaN means absent.
    texts: attribute name to column, see :class:`TextColumn`.
    trace_states: the W3C tracestate of those spans whose fragments have none, if there are any.
    """

    trace_id: UInt64Array
    span_id: UInt64Array
    parent_span_id: UInt64Array
    start: UInt64Array
    end: UInt64Array
    kind: npt.NDArray[np.uint8]
    resource: npt.NDArray[np.int64]
    resources: ResourceTable
    fragments: tuple[FragmentColumn, ...]
    numbers: dict[str, NumberArray] = field(default_factory=dict)
    texts: dict[str, TextColumn] = field(default_factory=dict)
    trace_states: TextColumn | None = None

    def __len__(self) -> int:
        return len(self.span_id)

    def where(self, keep: npt.NDArray[Any]) -> SpanBatch:
        """The spans for which ``keep``, (n,) bool, is true, or those of these rows; tables are shared, columns copied."""
        return SpanBatch(
            trace_id=self.trace_id[keep],
            span_id=self.span_id[keep],
            parent_span_id=self.parent_span_id[keep],
            start=self.start[keep],
            end=self.end[keep],
            kind=self.kind[keep],
            resource=self.resource[keep],
            resources=self.resources,
            fragments=tuple(FragmentColumn(column.table, column.ids[keep]) for column in self.fragments),
            numbers={name: column[keep] for name, column in self.numbers.items()},
            texts={name: column.where(keep) for name, column in self.texts.items()},
            trace_states=None if self.trace_states is None else self.trace_states.where(keep),
        )
