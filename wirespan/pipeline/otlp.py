"""SpanBatch → OTLP requests, at C speed.

An ``ExportTraceServiceRequest`` is built from byte strings, never from objects. A span on the wire is its fixed part
(see :mod:`.otlp_layout`) and behind it the bytes of its fragments, which were encoded when first seen. All spans'
pieces stand in one list, in the order of their resources, and ``b"".join`` of a slice of it is a request.
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

import numpy as np

from .. import __version__
from .otlp_fields import (
    SCHEMA_URL,
    SCOPE_NAME,
    ResourceField,
    ResourceSpansField,
    ScopeField,
    ScopeSpansField,
    SpanField,
    StatusField,
    TracesField,
    encode_attributes,
)
from .otlp_layout import Int64Array, fixed_parts
from .protobuf import bytes_field, bytes_field_prefix, string_field, varint_field
from .spans import Fragment, FragmentColumn, ResourceTable, SpanBatch, StatusCode

#: gRPC servers refuse messages above 4 MiB by default; headers and a proxy's re-encoding need some room.
DEFAULT_MAX_BYTES = 4 * 1024 * 1024 - 64 * 1024


class ExportRequest(NamedTuple):
    """An encoded ``ExportTraceServiceRequest`` and how many spans are in it."""

    payload: bytes
    spans: int


class ResourceRun(NamedTuple):
    """The spans ``first`` to ``last`` (exclusive), in the order of resources, are of this resource."""

    resource: int
    first: int
    last: int


_SCOPE = bytes_field(
    ScopeSpansField.SCOPE, string_field(ScopeField.NAME, SCOPE_NAME) + string_field(ScopeField.VERSION, __version__)
)
_SCOPE_SCHEMA = string_field(ScopeSpansField.SCHEMA_URL, SCHEMA_URL)
_RESOURCE_SCHEMA = string_field(ResourceSpansField.SCHEMA_URL, SCHEMA_URL)
#: What a ResourceSpans adds to its resource and spans, the two lengths at their longest.
_ENVELOPE_SIZE = len(_SCOPE) + len(_SCOPE_SCHEMA) + len(_RESOURCE_SCHEMA) + 2 * (1 + 5)

#: Guards the tables' caches: two pipelines may encode batches of one table at the same time.
_cache_lock = Lock()


def encode_requests(batch: SpanBatch, max_bytes: int = DEFAULT_MAX_BYTES) -> list[ExportRequest]:
    """The batch as requests of at most ``max_bytes`` bytes, spans grouped by resource and otherwise in order.

    What cannot be made smaller, a single span or a resource that alone exceeds ``max_bytes``, still becomes a
    request: the receiver's refusal then counts it. Raises ValueError for more than 62 number columns.
    """
    if not len(batch):
        return []
    order, runs = resource_runs(batch)
    fragments = [_fragment_wires(column, order) for column in batch.fragments]
    fragment_sizes = np.zeros(len(batch), np.int64)
    for wires in fragments:
        fragment_sizes += np.fromiter(map(len, wires), np.int64, len(batch))
    fixed, sizes = fixed_parts(batch, order, fragment_sizes)
    stride = 1 + len(fragments)
    parts: list[bytes] = [b""] * (len(batch) * stride)
    for position, column in enumerate((fixed, *fragments)):
        parts[position::stride] = column
    return _pack(batch, runs, parts, sizes, max_bytes)


def resource_runs(batch: SpanBatch) -> tuple[Int64Array, list[ResourceRun]]:
    """The rows of a batch (not empty) in the order of their resources, and where each resource's are in it."""
    order = np.argsort(batch.resource, kind="stable")
    resources = batch.resource[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(resources)) + 1))
    runs = zip(resources[starts].tolist(), starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True)
    return order, [ResourceRun(*run) for run in runs]


def encode_fragment(fragment: Fragment) -> bytes:
    """The fields of a ``Span`` that a fragment holds."""
    encoded = b"" if fragment.name is None else string_field(SpanField.NAME, fragment.name)
    encoded += encode_attributes(SpanField.ATTRIBUTES, fragment.attributes)
    if fragment.status is not StatusCode.UNSET:
        encoded += bytes_field(SpanField.STATUS, varint_field(StatusField.CODE, fragment.status))
    if fragment.trace_state:
        encoded += string_field(SpanField.TRACE_STATE, fragment.trace_state)
    return encoded


def _fragment_wires(column: FragmentColumn, order: Int64Array) -> list[bytes]:
    table = column.table
    if len(table.wire) < len(table.fragments):
        with _cache_lock:
            table.wire += [encode_fragment(fragment) for fragment in table.fragments[len(table.wire) :]]
    return list(map(table.wire.__getitem__, column.ids[order].tolist()))


def _resource_wire(table: ResourceTable, index: int) -> bytes:
    """The encoded ``ResourceSpans.resource`` field."""
    if len(table.wire) < len(table.resources):
        with _cache_lock:
            table.wire += [
                bytes_field(
                    ResourceSpansField.RESOURCE, encode_attributes(ResourceField.ATTRIBUTES, attributes.items())
                )
                for attributes in table.resources[len(table.wire) :]
            ]
    return table.wire[index]


class _Packer:
    """Fills requests with spans up to ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.requests: list[ExportRequest] = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._spans = 0

    def room(self, resource: bytes) -> int:
        """The bytes of spans under this resource that still fit."""
        return self.max_bytes - self._size - len(resource) - _ENVELOPE_SIZE

    def add(self, resource: bytes, parts: list[bytes], size: int, spans: int) -> None:
        """Append a ``ResourceSpans`` whose spans are ``parts``, ``size`` bytes in all."""
        scope_spans = bytes_field_prefix(ResourceSpansField.SCOPE_SPANS, len(_SCOPE) + size + len(_SCOPE_SCHEMA))
        rest = len(_SCOPE) + size + len(_SCOPE_SCHEMA) + len(_RESOURCE_SCHEMA)
        head = bytes_field_prefix(TracesField.RESOURCE_SPANS, len(resource) + len(scope_spans) + rest)
        self._pieces += (head, resource, scope_spans, _SCOPE)
        self._pieces += parts
        self._pieces += (_SCOPE_SCHEMA, _RESOURCE_SCHEMA)
        self._size += len(head) + len(resource) + len(scope_spans) + rest
        self._spans += spans

    def flush(self) -> None:
        """Finish the request under way, if any."""
        if self._spans:
            self.requests.append(ExportRequest(b"".join(self._pieces), self._spans))
        self._pieces, self._size, self._spans = [], 0, 0

    @property
    def empty(self) -> bool:
        return not self._spans


def _pack(
    batch: SpanBatch, runs: list[ResourceRun], parts: list[bytes], sizes: Int64Array, max_bytes: int
) -> list[ExportRequest]:
    """Requests of the spans, in the order of the runs; ``parts`` has the same number of pieces for each span."""
    packer = _Packer(max_bytes)
    ends = np.concatenate(([0], np.cumsum(sizes)))
    stride = 1 + len(batch.fragments)
    for index, first, last in runs:
        resource = _resource_wire(batch.resources, index)
        while first < last:
            room = packer.room(resource)
            stop = min(last, int(np.searchsorted(ends, ends[first] + room, "right")) - 1)
            if stop <= first and not packer.empty:
                packer.flush()
                continue
            if stop <= first:
                stop = first + 1 if room > 0 else last
            packer.add(resource, parts[first * stride : stop * stride], int(ends[stop] - ends[first]), stop - first)
            first = stop
    packer.flush()
    return packer.requests
