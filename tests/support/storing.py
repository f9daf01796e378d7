"""Stored queues for tests: opened, filled, damaged and opened again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wirespan.extensions.file_storage.folder import Folder
from wirespan.extensions.file_storage.queue import FileQueue, Options
from wirespan.pipeline.component import Signal
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.storage import Entry

NAME = "exporter_otlp_grpc"


def opened(
    directory: Path, *, fsync: bool = False, max_size: int = 0, recreate: bool = False, lost: list[int] | None = None
) -> FileQueue:
    """lost: gets the numbers of bytes that could not be read."""
    unreadable = ([] if lost is None else lost).append
    return FileQueue(Folder(str(directory), NAME, timeout=0.0), Options(fsync, max_size, recreate, unreadable))


def request(payload: bytes, items: int = 1, signal: Signal = "traces") -> EncodedBatch:
    return EncodedBatch(signal, payload, items)


def put(queue: FileQueue, *payloads: bytes) -> list[Entry]:
    return [entry for payload in payloads for entry in queue.append([request(payload)])]


def payloads(queue: FileQueue, entries: Sequence[Entry] | None = None) -> list[bytes]:
    """Of the entries that were found when it was opened, or of these."""
    return [queue.read(entry) for entry in (queue.entries() if entries is None else entries)]


def files(directory: Path) -> list[Path]:
    return sorted((directory / NAME).glob("*.queue"))


def killed(queue: FileQueue) -> None:
    """What remains of it if its process is killed: all that was written, and no lock."""
    queue._closed = True
    queue._folder.close()
