"""The stored queue of one exporter: a log in files that is only appended to, and of which each goes when all in it is done.

A request is written behind the others of the newest file and, with ``fsync``, brought to the disk before ``append``
returns, by one call for all threads that wait meanwhile. What is done is marked so in place, by a byte that nobody waits
for: after a loss of power some requests may be sent again. Nothing is ever moved, so nothing needs compaction: the room of
a file comes back with its last request. A run never writes into the files of an earlier one.

Why not SQLite: docs/decisions/stored-queue.md.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

from ...pipeline.encoded import EncodedBatch
from ...pipeline.storage import Entry, StorageBusy, StorageError
from .folder import Folder
from .records import FILE_HEAD, RECORD_HEAD, Record, checksum, mark_done, read_payload
from .recovery import recover
from .segment import Segment, begin, write

logger = logging.getLogger(__name__)

#: bytes after which a new file is begun
SEGMENT_BYTES: Final = 16_777_216
#: A file holds its room until all in it is done: with many small ones the bound is not taken up by a few requests.
_LEAST_SEGMENTS: Final = 16

#: the machine lacks something that it may have later
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Options:
    """max_size: bytes of all files, 0 for any number. recreate: set aside what is of another format. unreadable: is told how
    many bytes cannot be read."""

    fsync: bool
    max_size: int
    recreate: bool
    unreadable: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Place:
    segment: Segment
    record: Record


class FileQueue:
    """A :class:`~wirespan.pipeline.storage.StoredQueue`. Raises StartError, and then leaves the folder open."""

    def __init__(self, folder: Folder, options: Options) -> None:
        self._folder, self._options = folder, options
        self._segment_bytes = min(SEGMENT_BYTES, options.max_size // _LEAST_SEGMENTS or SEGMENT_BYTES)
        self._lock = Lock()  # guards all below, and what is in segments
        self._newest: Segment | None = None
        self._closed = False
        recovered = recover(folder, options.recreate, options.unreadable)
        self._segments = {found.segment for found in recovered.found}
        self._last, self._size = recovered.last, sum(segment.end for segment in self._segments)
        self._entries = [_entry(found.segment, record) for found in recovered.found for record in found.records]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self._size

    def entries(self) -> Sequence[Entry]:
        entries, self._entries = self._entries, []
        return entries

    def append(self, batches: Sequence[EncodedBatch]) -> list[Entry]:
        size = sum(RECORD_HEAD + len(batch.data) for batch in batches)
        checksums = [checksum(batch.data) for batch in batches]
        with self._lock:
            segment = self._with_room(size)
            try:
                records = write(segment, self._folder, batches, checksums)
            except OSError as error:
                self._retire_newest()  # a full disk gets its room back once all in it is done
                raise self._error(error) from error
            self._size += size
        entries = [_entry(segment, record) for record in records]
        if self._options.fsync:
            self._commit(segment, entries)
        return entries

    def read(self, entry: Entry) -> bytes:
        place: _Place = entry.place
        where = f"{self._folder.path}/{place.segment.name}"
        try:
            with self._lock:
                if self._closed:
                    raise StorageError(f"{self._folder.path} is closed")
                descriptor = os.dup(place.segment.open(self._folder))  # close may come while it is read
            try:
                payload = read_payload(descriptor, place.record)
            finally:
                os.close(descriptor)
        except OSError as error:
            failure = StorageBusy if error.errno in _SHORT else StorageError
            raise failure(f"{where} cannot be read: {error.strerror}") from error
        if payload is None:
            self._options.unreadable(place.record.length)
            raise StorageError(f"{where} is damaged at byte {place.record.offset}")
        return payload

    def remove(self, entry: Entry) -> None:
        place: _Place = entry.place
        with self._lock:
            if self._closed:
                return
            try:
                mark_done(place.segment.open(self._folder), place.record)
            except OSError as error:
                self._warn("A stored request cannot be marked as done. It may be sent again after a restart.", error)
            place.segment.waiting -= 1
            self._drop_if_done(place.segment)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._retire_newest()
            self._closed = True
            for segment in self._segments:
                segment.close()
            self._folder.close()

    def _with_room(self, size: int) -> Segment:
        """The file that is written to. Raises StorageError."""
        if self._closed:
            raise StorageError(f"{self._folder.path} is closed")
        if self._newest is not None and (self._newest.end >= self._segment_bytes or self._is_full(size)):
            self._retire_newest()
        if self._is_full(size):
            raise StorageError(f"{self._folder.path} has reached max_size, {self._options.max_size} bytes")
        if self._newest is None:
            try:
                self._newest = begin(self._folder, self._last + 1, self._options.fsync)
            except OSError as error:
                raise self._error(error) from error
            self._last = self._newest.number
            self._segments.add(self._newest)
            self._size += FILE_HEAD
        return self._newest

    def _is_full(self, size: int) -> bool:
        return 0 < self._options.max_size < self._size + FILE_HEAD + size

    def _commit(self, segment: Segment, entries: Sequence[Entry]) -> None:
        """Bring these to the disk. Raises StorageError: after a failure the kernel may say of the same bytes that all is
        well, so nothing more is written to that file."""
        try:
            segment.sync(entries[-1].place.record.end)
        except OSError as error:
            with self._lock:
                if segment is self._newest:
                    self._newest = None
            for entry in entries:
                self.remove(entry)
            raise self._error(error) from error

    def _retire_newest(self) -> None:
        """Write no more to it."""
        segment, self._newest = self._newest, None
        if segment is not None:
            self._drop_if_done(segment)

    def _drop_if_done(self, segment: Segment) -> None:
        if segment.waiting or segment is self._newest:
            return
        self._segments.discard(segment)
        self._size -= segment.end
        segment.close()
        try:
            self._folder.remove(segment.name)
        except OSError as error:
            self._warn("A file whose requests were all sent cannot be removed.", error, file=segment.name)

    def _error(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write to {self._folder.path}: {error.strerror}")

    def _warn(self, message: str, error: OSError, **fields: str) -> None:
        logger.warning(message, extra={"directory": self._folder.path, "error": error.strerror, **fields})


def _entry(segment: Segment, record: Record) -> Entry:
    return Entry(record.signal, record.items, record.length, _Place(segment, record))
