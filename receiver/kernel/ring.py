"""Ring buffers of BPF programs, read without a system call.

The kernel maps a BPF_MAP_TYPE_RINGBUF of ``size`` bytes as: one page with the consumer's position, which we write;
one page with the producer's; and the data, mapped twice in a row, so that a record which wraps around is contiguous.
Positions only grow; modulo ``size`` they are offsets. A record is an 8-byte header (its length, with a bit while it
is being written and a bit if it was given up), the bytes, and padding to a multiple of 8. What lies between the two
positions is ours until we store a new consumer position; a ring without room makes the program's output fail, which
the program counts.

Memory order. To publish a record, the kernel stores a busy header and the producer's new position, then the bytes,
then, with release semantics, the header without the busy bit. We load the position, then headers, then bytes, and
store our own position last. x86-64 reorders neither loads with loads nor a store with earlier loads, and each numpy
expression is a call that no compiler moves, so plain loads and stores do. Elsewhere (arm64) the loads would have to
acquire and the store to release, which Python cannot express: there a ring refuses to be opened.
"""

from __future__ import annotations

import errno
import mmap
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from .libbpf import BpfError, Handle

#: include/uapi/linux/bpf.h: BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT, BPF_RINGBUF_HDR_SZ
BUSY = 1 << 31
DISCARDED = 1 << 30
HEADER = 8


class RingError(Exception):
    """The ring holds something else than it should: the program and this reader disagree."""


class Ring(Handle):
    """The mapped ring. map_fd: the map's descriptor, needed only now. size: its bytes, the map's max_entries."""

    def __init__(self, map_fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        if platform.machine() != "x86_64":
            raise RingError(f"rings are read on x86-64 only, not on {platform.machine()}: memory order")
        if size < page or size & (size - 1):
            raise RingError(f"the size of a ring is a power of two of at least {page} bytes, not {size}")
        self.capacity = size
        try:
            self._consumer_page = mmap.mmap(map_fd, page)
            self._data = mmap.mmap(map_fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        except OSError as error:
            raise BpfError("map a ring buffer", error.errno or errno.EIO) from error
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._data)[:8].cast("Q")

    def pending(self) -> int:
        """Bytes that wait, headers and records under way included."""
        return self._producer[0] - self._consumer[0]

    def _begin(self, consumer: int) -> int:
        """Where in the mapped data this position is."""
        return mmap.PAGESIZE + consumer % self.capacity

    def close(self) -> None:
        """Unmap it; a second call does nothing, any other raises ValueError. What another thread has drained stays mapped
        until it lets go of it."""
        self._consumer.release()
        self._producer.release()
        self._consumer_page.close()
        with suppress(BufferError):
            self._data.close()


class FixedRing(Ring):
    """A ring whose records all have the size of ``dtype``: drained as arrays, which are not copied."""

    def __init__(self, map_fd: int, size: int, dtype: np.dtype[np.void]) -> None:
        super().__init__(map_fd, size)
        self._dtype = dtype
        self._stride = HEADER + (dtype.itemsize + 7) // 8 * 8

    def records(self) -> int:
        """How many records wait, those under way included."""
        return self.pending() // self._stride

    @contextmanager
    def drained(self, limit: int) -> Iterator[npt.NDArray[np.void]]:
        """The oldest complete records, at most ``limit``, where they lie in the ring; they leave it at the end of the
        context, and must not be looked at afterwards.

        Stops at a record that is still being written. RingError, and nothing leaves, if one has another size.
        """
        consumer = self._consumer[0]
        # Rounded up: a rest that is no whole record has a header, which tells its wrong length.
        count = min(-(-(self._producer[0] - consumer) // self._stride), limit)
        begin = self._begin(consumer)
        headers = self._column(begin, count, np.dtype("u4")).copy()
        busy = headers >= BUSY
        if busy.any():
            count = int(busy.argmax())
            headers = headers[:count]
        discarded = (headers & DISCARDED) != 0
        self._check_lengths(headers & ~np.uint32(DISCARDED))
        try:
            yield self._complete(begin + HEADER, discarded)
        finally:
            self._consumer[0] = consumer + count * self._stride

    def _complete(self, offset: int, discarded: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
        """The records from ``offset`` on, without those that were discarded: of the others a copy, if there are any."""
        if not discarded.any():
            return self._column(offset, len(discarded), self._dtype)
        # As opaque bytes: numpy copies structs with padding field by field.
        opaque = self._column(offset, len(discarded), np.dtype(("V", self._dtype.itemsize)))
        return opaque[~discarded].view(self._dtype)

    def _column(self, offset: int, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return np.ndarray((count,), dtype, self._data, offset, (self._stride,))

    def _check_lengths(self, lengths: npt.NDArray[np.uint32]) -> None:
        wrong = lengths != self._dtype.itemsize
        if wrong.any():
            found = int(lengths[wrong.argmax()])
            raise RingError(f"a record of {found} bytes in a ring of records of {self._dtype.itemsize}")


class VariableRing(Ring):
    """A ring of records of different sizes."""

    def __init__(self, map_fd: int, size: int) -> None:
        super().__init__(map_fd, size)
        self._words = memoryview(self._data).cast("I")

    def drain(self, limit: int, most_bytes: int) -> tuple[bytes, list[tuple[int, int]], bool]:
        """The oldest complete records: one copy, where in it each is, (offset, length), and whether it stopped at a bound.

        At most ``limit`` records, of ``most_bytes`` bytes in all or just beyond. They leave the ring. Stops at a record that is
        still being written.
        """
        consumer, producer = self._consumer[0], self._producer[0]
        begin = self._begin(consumer)
        extents: list[tuple[int, int]] = []
        at = 0
        while len(extents) < limit and at < most_bytes and consumer + at < producer:
            length = self._words[(begin + at) // 4]
            if length & BUSY:
                break
            size = length & ~DISCARDED
            if consumer + at + HEADER + size > producer:
                raise RingError(f"a record of {size} bytes ends behind what was written")
            if not length & DISCARDED:
                extents.append((at + HEADER, size))
            at += HEADER + (size + 7) // 8 * 8
        data = self._data[begin : begin + at]
        self._consumer[0] = consumer + at
        return data, extents, len(extents) >= limit or at >= most_bytes

    def close(self) -> None:
        self._words.release()
        super().close()
