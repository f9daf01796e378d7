"""An encoded batch that is too large for a request, as several, without decoding it.

A request is a tree, of metrics: resource metrics, scope metrics, metrics, the data of a metric, data points. Every node of a level is
one field of its parent; all other fields of the parent (the resource, the scope, the name, the temporality) are what each
part needs again. So a node that does not fit is cut between its children, each part with the other fields of its node, and
a child that does not fit by itself is cut in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from .component import Signal
from .encoded import EncodedBatch
from .protobuf import Field, MalformedMessage, bytes_field, read_fields

#: The field numbers of the children at each level, by opentelemetry/proto/{trace,metrics,logs}/v1; of a metric those of
#: gauge, sum, histogram, exponential histogram and summary.
_LEVELS: Final[Mapping[Signal, tuple[frozenset[int], ...]]] = {
    "traces": (frozenset({1}), frozenset({2}), frozenset({2})),  # resource_spans, scope_spans, spans
    "logs": (frozenset({1}), frozenset({2}), frozenset({2})),  # resource_logs, scope_logs, log_records
    "metrics": (
        frozenset({1}),  # ExportMetricsServiceRequest.resource_metrics
        frozenset({2}),  # ResourceMetrics.scope_metrics
        frozenset({2}),  # ScopeMetrics.metrics
        frozenset({5, 7, 9, 10, 11}),  # Metric.data
        frozenset({1}),  # data_points
    ),
}
#: what a tag and a length take at most, of a message below 2 GiB
_PREFIX: Final = 1 + 5
#: What every part repeats of a node is at most so small a share of a part, or so many bytes: otherwise a request with a
#: large resource and many small items would become many times as large.
_LARGEST_CONTEXT: Final = 16
_SMALL_CONTEXT: Final = 1024


def split(batch: EncodedBatch, max_bytes: int) -> list[EncodedBatch]:
    """The batch as requests of at most ``max_bytes`` bytes, in order; none if it has no items.

    What cannot be cut, a single item that exceeds ``max_bytes`` or what is no request of so many items, still becomes a
    request: the receiver's refusal then counts it.
    """
    if not len(batch):
        return []
    if len(batch.data) <= max_bytes:
        return [batch]
    levels = _LEVELS[batch.signal]
    try:
        parts = [
            EncodedBatch(batch.signal, data, _items(data, levels)) for data in _parts(batch.data, levels, max_bytes)
        ]
    except MalformedMessage:
        return [batch]
    return parts if sum(map(len, parts)) == len(batch) else [batch]


def cut(batch: EncodedBatch, max_items: int) -> Iterator[EncodedBatch]:
    """The batch as requests of at most ``max_items`` items, in order; 0: as it is.

    What is no request of so many items, or would be more than twice as large in parts, is not cut.
    """
    if not max_items or len(batch) <= max_items:
        yield batch
        return
    levels = _LEVELS[batch.signal]
    try:
        whole = _items(batch.data, levels) == len(batch)
    except MalformedMessage:
        whole = False
    for data, items in _pieces(batch.data, levels, max_items) if whole else ((batch.data, len(batch)),):
        yield EncodedBatch(batch.signal, data, items)


def _pieces(message: bytes, levels: Sequence[frozenset[int]], max_items: int) -> Iterator[tuple[bytes, int]]:
    """A message of the first of the levels, cut into parts of at most so many items, which are counted."""
    items = _items(message, levels)
    if items <= max_items:
        yield message, items
        return
    fields = list(read_fields(message))
    head = b"".join(field.encoded for field in fields if field.number not in levels[0])
    if len(head) * (items // max_items) > len(message):
        yield message, items
        return
    part: list[bytes] = []
    count = 0
    for number, child in _children(fields, levels[0]):
        for piece, within in _pieces(child, levels[1:], max_items):
            if part and count + within > max_items:
                yield head + b"".join(part), count
                part, count = [], 0
            part.append(bytes_field(number, piece))
            count += within
    yield head + b"".join(part), count


def _parts(message: bytes, levels: Sequence[frozenset[int]], max_bytes: int) -> Iterator[bytes]:
    """A message of the first of the levels, cut into parts of at most ``max_bytes`` where that is possible."""
    if len(message) <= max_bytes or not levels:
        yield message
        return
    fields = list(read_fields(message))
    head = b"".join(field.encoded for field in fields if field.number not in levels[0])
    if len(head) > max(max_bytes // _LARGEST_CONTEXT, _SMALL_CONTEXT):
        yield message
        return
    room = max_bytes - len(head)
    part: list[bytes] = []
    size = 0
    for number, child in _children(fields, levels[0]):
        for piece in _parts(child, levels[1:], room - _PREFIX):
            encoded = bytes_field(number, piece)
            if part and size + len(encoded) > room:
                yield head + b"".join(part)
                part, size = [], 0
            part.append(encoded)
            size += len(encoded)
    if part:
        yield head + b"".join(part)


def _items(message: bytes, levels: Sequence[frozenset[int]]) -> int:
    """How many items are in a message of the first of the levels."""
    if not levels:
        return 1
    return sum(_items(child, levels[1:]) for _, child in _children(read_fields(message), levels[0]))


def _children(fields: Iterable[Field], numbers: frozenset[int]) -> Iterator[tuple[int, bytes]]:
    for number, value, _ in fields:
        if number in numbers:
            if isinstance(value, int):
                raise MalformedMessage(f"field {number} is no message")
            yield number, value
