"""The files of a stored queue as they are written to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Final

from ...pipeline.encoded import EncodedBatch
from .folder import Folder
from .records import FILE_HEAD, Record, file_head, record_head, record_of

_IOV_MAX: Final = 1024  # buffers of a system call


class Segment:
    """end: where the next record goes. waiting: records that are not done."""

    __slots__ = ("_descriptor", "_failed", "_synced", "_turn", "end", "number", "waiting")

    def __init__(self, number: int, descriptor: int | None = None, end: int = FILE_HEAD, waiting: int = 0) -> None:
        self.number, self.end, self.waiting = number, end, waiting
        self._descriptor = descriptor
        self._turn = Lock()
        self._synced, self._failed = 0, False

    @property
    def name(self) -> str:
        return f"{self.number:08}.queue"

    def open(self, folder: Folder) -> int:
        """Its descriptor: that of an older file only once it is needed. Raises OSError."""
        if self._descriptor is None:
            self._descriptor = folder.open(self.name, os.O_RDWR)
        return self._descriptor

    def sync(self, end: int) -> None:
        """All before ``end`` is on the disk: whoever has the turn does it for all that wait for theirs. Raises OSError."""
        with self._turn:
            if self._synced >= end:
                return
            written = self.end
            if self._descriptor is None:
                raise OSError(0, "it was closed meanwhile")
            if self._failed:
                raise OSError(0, "an earlier write did not reach the disk")
            try:
                os.fdatasync(self._descriptor)
            except OSError:
                self._failed = True
                raise
            self._synced = written

    def close(self) -> None:
        with self._turn:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def begin(folder: Folder, number: int, durable: bool) -> Segment:
    """A new file; durable: its name is on the disk. Raises OSError."""
    segment = Segment(number)
    descriptor = folder.open(segment.name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        _write_all(descriptor, 0, [file_head()])
        if durable:
            folder.sync()
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            folder.remove(segment.name)
        raise
    return Segment(number, descriptor)


def write(segment: Segment, folder: Folder, batches: Sequence[EncodedBatch], checksums: Sequence[int]) -> list[Record]:
    """All of them behind each other, or, if it raises OSError, nothing. checksums: of their payloads."""
    descriptor, offset = segment.open(folder), segment.end
    records: list[Record] = []
    buffers: list[bytes] = []
    for batch, crc in zip(batches, checksums, strict=True):
        record = record_of(batch, crc, offset)
        records.append(record)
        buffers += (record_head(record), batch.data)
        offset = record.end
    try:
        _write_all(descriptor, segment.end, buffers)
    except OSError:
        with suppress(OSError):  # what is left there is written over
            os.ftruncate(descriptor, segment.end)
        raise
    segment.end = offset
    segment.waiting += len(records)
    return records


def _write_all(descriptor: int, offset: int, buffers: Sequence[bytes]) -> None:
    """Raises OSError."""
    left = [memoryview(buffer) for buffer in buffers if buffer]
    while left:
        written = os.pwritev(descriptor, left[:_IOV_MAX], offset)
        offset += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]
