"""The kernel's ``struct segment`` records, as plain values.

A segment is one I/O of a connection in segment mode: a header, and behind it the bytes that were captured. What is
taken out of a drain is copied, because a numpy view would keep the headers of the whole drain alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .scopes import Records


class Segment(NamedTuple):
    """One I/O as the kernel sent it up; if ``size`` is 0 the connection has ended, and ``outcome`` says how. Times are
    in ns of the kernel's clock. connection: the bytes of its ``connection_info``. process: of the ``process_info`` of who did it
    and, behind it, of who sent the request, see bpf/record.h."""

    cookie: int
    position: int
    size: int
    start: int
    end: int
    direction: int
    protocol: int
    outcome: int
    arrivals: list[tuple[int, int, int]]
    connection: bytes
    process: bytes
    data: bytes


#: those of ``struct segment`` that are taken as they are, in the order of :class:`Segment`
_FIELDS = ("position", "size", "start", "end", "direction", "protocol", "outcome", "arrivals")


def segments_of(data: bytes, extents: Sequence[tuple[int, int]], header: np.dtype[np.void]) -> list[Segment]:
    """The segments of one drain. data, extents: what the ring gave, (offset, length) of each record."""
    width = header.itemsize
    headers = np.frombuffer(b"".join(data[at : at + width] for at, _ in extents), header)
    columns = [headers["connection"]["cookie"], *(headers[name] for name in _FIELDS)]
    columns += [_opaque(headers["connection"]), headers.view(_processes(header))["both"]]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Segment._make((*row, data[at + width : at + length])) for row, (at, length) in zip(rows, extents, strict=True)
    ]


def _processes(header: np.dtype[np.void]) -> np.dtype[np.void]:
    """The header with ``process`` and ``requester``, which follows it, as one opaque field."""
    offset, size = header.fields["process"][1], header["process"].itemsize  # type: ignore[index]
    both = {"names": ["both"], "formats": [f"V{2 * size}"], "offsets": [offset], "itemsize": header.itemsize}
    return np.dtype(both)  # type: ignore[call-overload, no-any-return]


def _opaque(column: Records) -> Records:
    """Structs without fields: as Python values they are ``bytes``."""
    return np.ascontiguousarray(column).view(f"V{column.dtype.itemsize}")
