"""A file of a stored queue: requests one behind the other, each of which can be checked on its own.

::

    file     magic "WSQUEUE\\n", format u32, CRC-32 of these u32          integers are little-endian
    record   magic "rqst", state 2 bytes, signal u8, 0 u8, items u32, length u32, CRC-32 of the payload u32,
             CRC-32 of the header u32; then the payload

A record is written once, but for its state, which says that the request is done and nothing else does: where it is
damaged, the request is sent again. The header's CRC is of all before it but the state, and of where in the file it is: so
a payload that holds a record is none.

What cannot be read costs itself alone: behind a damaged header the next good one is looked for. Where the process was
killed or the disk was full while it wrote, the last record is incomplete; such a request was not acknowledged.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ...pipeline.component import Signal
from ...pipeline.encoded import EncodedBatch

FORMAT: Final = 1
_MAGIC: Final = b"WSQUEUE\n"
_FILE: Final = struct.Struct("<8sII")
_RECORD_MAGIC: Final = b"rqst"
_RECORD: Final = struct.Struct("<4s2sBBIIII")
_CRC: Final = struct.Struct("<I")
_STATE_AT: Final = 4
_WAITING: Final = b"--"
_DONE: Final = b"ok"
_SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics", "logs")

#: bytes read at once where the next record is looked for
_CHUNK: Final = 1_048_576

#: bytes before the first record
FILE_HEAD: Final = _FILE.size
#: bytes of a record before its payload
RECORD_HEAD: Final = _RECORD.size


class UnknownFormat(Exception):
    """A good file of a format that this version does not know."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


@dataclass(frozen=True, slots=True)
class Record:
    """offset: where in the file it begins. length: bytes of its payload."""

    offset: int
    signal: Signal
    items: int
    length: int
    crc: int
    done: bool

    @property
    def end(self) -> int:
        return self.offset + RECORD_HEAD + self.length


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no record. at_end: nothing follows that can be read."""

    offset: int
    bytes: int
    at_end: bool


def file_head() -> bytes:
    head = _FILE.pack(_MAGIC, FORMAT, 0)[: -_CRC.size]
    return head + _CRC.pack(zlib.crc32(head))


def checksum(payload: bytes) -> int:
    return zlib.crc32(payload)


def record_of(batch: EncodedBatch, crc: int, offset: int) -> Record:
    """What is written at ``offset`` for a request. crc: the checksum of its payload."""
    return Record(offset, batch.signal, len(batch), len(batch.data), crc, done=False)


def record_head(record: Record) -> bytes:
    """What precedes the payload."""
    signal = _SIGNALS.index(record.signal)
    fields = (_RECORD_MAGIC, _WAITING, signal, 0, record.items, record.length, record.crc, 0)
    head = _RECORD.pack(*fields)[: -_CRC.size]
    return head + _CRC.pack(_header_crc(head, record.offset))


def _header_crc(head: bytes, offset: int) -> int:
    """head: without its CRC."""
    return zlib.crc32(head[:_STATE_AT] + head[_STATE_AT + len(_DONE) :] + offset.to_bytes(8, "little"))


def read_payload(descriptor: int, record: Record) -> bytes | None:
    """None if it is not what was written. Raises OSError."""
    payload = os.pread(descriptor, record.length, record.offset + RECORD_HEAD)
    return payload if len(payload) == record.length and checksum(payload) == record.crc else None


def mark_done(descriptor: int, record: Record) -> None:
    """Raises OSError."""
    os.pwrite(descriptor, _DONE, record.offset + _STATE_AT)


def scan(descriptor: int) -> Iterator[Record | Damage]:
    """What is in a file, in order; payloads are not looked at. Raises OSError and UnknownFormat.

    It is read, not mapped: a bad sector is then an error, and not the end of the process.
    """
    size = os.fstat(descriptor).st_size
    head, good = os.pread(descriptor, FILE_HEAD, 0), file_head()
    if head != good[: len(head)]:
        _refuse_other_format(head)
        yield Damage(0, len(head), at_end=size <= FILE_HEAD)
    offset = FILE_HEAD
    while offset < size:
        record = _record(descriptor, offset, size)
        if record is None:
            found = _next_record(descriptor, offset + 1, size)
            yield Damage(offset, found - offset, at_end=found == size)
            offset = found
        else:
            yield record
            offset = record.end


def _refuse_other_format(head: bytes) -> None:
    if len(head) == FILE_HEAD and head.startswith(_MAGIC):
        _, version, crc = _FILE.unpack(head)
        if version != FORMAT and zlib.crc32(head[: -_CRC.size]) == crc:
            raise UnknownFormat(version)


def _record(descriptor: int, offset: int, size: int) -> Record | None:
    """The whole record that begins there, in a file of so many bytes; None if there is none."""
    head = os.pread(descriptor, RECORD_HEAD, offset)
    if len(head) < RECORD_HEAD or not head.startswith(_RECORD_MAGIC):
        return None
    _, state, signal, _, items, length, crc, header_crc = _RECORD.unpack(head)
    if header_crc != _header_crc(head[: -_CRC.size], offset) or signal >= len(_SIGNALS):
        return None
    record = Record(offset, _SIGNALS[signal], items, length, crc, state == _DONE)
    return record if record.end <= size else None


def _next_record(descriptor: int, offset: int, size: int) -> int:
    """Where the next whole record begins; ``size`` if nowhere."""
    while offset < size:
        chunk = os.pread(descriptor, _CHUNK, offset)
        at = chunk.find(_RECORD_MAGIC)
        while at >= 0:
            if _record(descriptor, offset + at, size) is not None:
                return offset + at
            at = chunk.find(_RECORD_MAGIC, at + 1)
        if len(chunk) < _CHUNK:
            break
        offset += _CHUNK - len(_RECORD_MAGIC) + 1
    return size
