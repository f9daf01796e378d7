"""The fixed part of a span: what differs from span to span, as rows of a numpy dtype that mirrors the wire.

Spans that have the same optional fields (a parent, each of the numbers) have a fixed part of the same shape. Its
constant bytes (tags, keys, lengths) come from a template, repeated for every row; then each column is one assignment.

A row can have a fixed width because integers and the span's own length are *padded varints*: every byte but the last
has its continuation bit set, so 5 may be ``85 80 00``. The encoding guide allows it, and decoders accept up to ten
bytes. The width of a number is that of its largest value in the batch, so little is wasted. The lengths of all other
messages are shortest varints.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .otlp_fields import AnyValueField, KeyValueField, ScopeSpansField, SpanField
from .protobuf import WireType, bytes_field_prefix, string_field, tag
from .spans import NumberArray, SpanBatch

Int64Array: TypeAlias = npt.NDArray[np.int64]

#: The numbers that a shape has: name, and width of the varint or ``_DOUBLE``.
_Numbers: TypeAlias = tuple[tuple[str, int], ...]

_DOUBLE = 0  # the width of a number column that is not a varint
_MOST_NUMBERS = 62  # presence bits that fit an int64 beside the parent's
_SIZE_WIDTH = 4  # of a span's length, up to 256 MiB; no receiver takes nearly as much


class _Layout(NamedTuple):
    """A shape's dtype (its fields: the columns), its constant bytes, and where the content of the span begins."""

    dtype: np.dtype[np.void]
    template: bytes
    content: int


def fixed_parts(batch: SpanBatch, order: Int64Array, fragment_sizes: Int64Array) -> tuple[list[bytes], Int64Array]:
    """The ``ScopeSpans.spans`` field of each span up to where its fragments follow, and its size including them.

    order: (n,), the rows of the batch in the wanted order, which is that of ``fragment_sizes`` (bytes) and of the
    results. Raises ValueError for more than 62 number columns.
    """
    presence = _presence(batch)[order]
    widths = {name: _number_width(values) for name, values in batch.numbers.items()}
    parts, sizes = np.empty(len(batch), object), fragment_sizes.copy()
    for mask in np.unique(presence).tolist():
        at = np.flatnonzero(presence == mask)
        numbers = tuple((name, width) for bit, (name, width) in enumerate(widths.items(), start=1) if mask >> bit & 1)
        layout = _layout(bool(mask & 1), numbers)
        rows = _rows(batch, order[at], layout, numbers)
        rows["size"] = _padded_varints(fragment_sizes[at] + (rows.itemsize - layout.content), _SIZE_WIDTH)
        parts[at] = rows.view(f"V{rows.itemsize}").tolist()
        sizes[at] += rows.itemsize
    return parts.tolist(), sizes


def is_present(values: NumberArray) -> npt.NDArray[np.bool_]:
    """Which rows of a number column have a value; see :class:`.spans.SpanBatch`."""
    return ~np.isnan(values) if values.dtype.kind == "f" else values >= 0


def _presence(batch: SpanBatch) -> Int64Array:
    """Which optional fields each span has: bit 0 the parent, bit k + 1 the k-th number."""
    if len(batch.numbers) > _MOST_NUMBERS:
        raise ValueError(f"{len(batch.numbers)} number columns, at most {_MOST_NUMBERS} can be encoded")
    mask: Int64Array = (batch.parent_span_id != 0).astype(np.int64)
    for bit, values in enumerate(batch.numbers.values(), start=1):
        mask |= is_present(values).astype(np.int64) << bit
    return mask


def _number_width(values: NumberArray) -> int:
    """The bytes of the varint of the largest value, or ``_DOUBLE``."""
    if values.dtype.kind == "f":
        return _DOUBLE
    return max(1, -(-int(values.max()).bit_length() // 7))


def _rows(batch: SpanBatch, rows: Int64Array, layout: _Layout, numbers: _Numbers) -> npt.NDArray[np.void]:
    """The fixed parts of these rows of the batch, which all have this layout; the sizes are left to be filled in."""
    fixed = np.frombuffer(bytearray(layout.template * len(rows)), layout.dtype)
    fixed["trace_id"] = batch.trace_id[rows]
    fixed["span_id"] = batch.span_id[rows]
    if "parent_span_id" in (layout.dtype.names or ()):
        fixed["parent_span_id"] = batch.parent_span_id[rows]
    fixed["kind"] = batch.kind[rows]
    fixed["start"] = batch.start[rows]
    fixed["end"] = batch.end[rows]
    for position, (name, width) in enumerate(numbers):
        values = batch.numbers[name][rows]
        fixed[str(position)] = values if width == _DOUBLE else _padded_varints(values, width)
    return fixed


def _padded_varints(values: NumberArray, width: int) -> npt.NDArray[np.uint8]:
    """(n, width): integers as varints of that width; none is negative or needs more."""
    groups = (values.astype(np.int64)[:, np.newaxis] >> np.arange(0, 7 * width, 7)).astype(np.uint8)
    groups[:, :-1] |= 0x80
    return groups


# Bounded because the widths of integers vary with the data; building a layout costs some 50 us.
@lru_cache(maxsize=256)
def _layout(has_parent: bool, numbers: _Numbers) -> _Layout:
    builder = _LayoutBuilder()
    builder.constant(tag(ScopeSpansField.SPANS, WireType.LEN))
    builder.column("size", (np.uint8, (_SIZE_WIDTH,)), _SIZE_WIDTH)
    content = len(builder.template)
    builder.constant(bytes_field_prefix(SpanField.TRACE_ID, 16))
    builder.column("trace_id", (">u8", (2,)), 16)
    builder.constant(bytes_field_prefix(SpanField.SPAN_ID, 8))
    builder.column("span_id", ">u8", 8)
    if has_parent:
        builder.constant(bytes_field_prefix(SpanField.PARENT_SPAN_ID, 8))
        builder.column("parent_span_id", ">u8", 8)
    builder.constant(tag(SpanField.KIND, WireType.VARINT))
    builder.column("kind", "u1", 1)
    builder.constant(tag(SpanField.START_TIME_UNIX_NANO, WireType.I64))
    builder.column("start", "<u8", 8)
    builder.constant(tag(SpanField.END_TIME_UNIX_NANO, WireType.I64))
    builder.column("end", "<u8", 8)
    for position, (name, width) in enumerate(numbers):
        builder.number(str(position), name, width)
    return _Layout(builder.dtype(), builder.template, content)


class _LayoutBuilder:
    """Lays constants and columns out in the order of the wire."""

    def __init__(self) -> None:
        self.template = b""
        self._columns: list[tuple[str, object, int]] = []

    def constant(self, content: bytes) -> None:
        self.template += content

    def column(self, name: str, column_format: object, size: int) -> None:
        self._columns.append((name, column_format, len(self.template)))
        self.template += bytes(size)

    def number(self, column: str, name: str, width: int) -> None:
        """A ``Span.attributes`` field whose value is a column."""
        value_size = 1 + (width or 8)
        prefix = string_field(KeyValueField.KEY, name) + bytes_field_prefix(KeyValueField.VALUE, value_size)
        self.constant(bytes_field_prefix(SpanField.ATTRIBUTES, len(prefix) + value_size) + prefix)
        if width == _DOUBLE:
            self.constant(tag(AnyValueField.DOUBLE, WireType.I64))
            self.column(column, "<f8", 8)
        else:
            self.constant(tag(AnyValueField.INT, WireType.VARINT))
            self.column(column, (np.uint8, (width,)), width)

    def dtype(self) -> np.dtype[np.void]:
        names, formats, offsets = zip(*self._columns, strict=True)
        layout: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": len(self.template)}
        dtype: np.dtype[np.void] = np.dtype(layout)
        return dtype
