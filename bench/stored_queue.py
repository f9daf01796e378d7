"""How fast requests go through a stored queue that waits for the disk, and through one that SQLite would be.

Ten threads store requests, each its next once the one before is on the disk; two read what is stored, check it and mark it
as done. All of it is stored and done with before the clock stops. SQLite, in WAL mode, gets what speaks for it: the
requests of all threads that wait are one transaction, and so are the removals. The two alternate. That the disk keeps what
it says is taken on trust.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from bench.figures import Figure, Plan, Target
from wirespan.extensions.file_storage.folder import Folder
from wirespan.extensions.file_storage.queue import FileQueue, Options
from wirespan.pipeline.encoded import EncodedBatch

_SENDERS, _READERS = 10, 2
_SIZE = 64_000
#: bytes of requests in other sizes, for the notes
_OTHERS = (2_000, 900_000)
_MEGABYTE = 1e6


class Queue(Protocol):
    def append(self, batches: list[EncodedBatch]) -> list[Any]: ...

    def read(self, entry: Any) -> bytes: ...

    def remove(self, entry: Any) -> None: ...


def measure(plan: Plan) -> list[Figure]:
    total = 40_000_000 if plan.quick else 200_000_000
    ours, others = list[float](), list[float]()
    for number in range(plan.rounds):
        ours.append(_rate(plan.folder, _files, _SIZE, total))
        others.append(_rate(plan.folder, _sqlite, _SIZE, total // 2))
        plan.say(f"{number + 1}/{plan.rounds}  {ours[-1]:.0f} MB/s, SQLite {others[-1]:.0f} MB/s")
    notes = [
        f"requests of {_SIZE // 1000} kB, {_SENDERS} senders, fsync on; SQLite {statistics.median(others):,.0f} MB/s"
    ]
    for size in _OTHERS:
        small = min(total, size * 4000)
        rates = [_rate(plan.folder, queue, size, small) for queue in (_files, _sqlite)]
        notes.append(f"of {size // 1000} kB {rates[0]:,.0f} MB/s, SQLite {rates[1]:,.0f}")
    return [Figure("stored queue, group commit on, in and out", Target.AT_LEAST, 50, "MB/s", ours, notes=notes)]


def _rate(folder: Path, opened: Callable[[Path], Any], size: int, total: int) -> float:
    """MB/s."""
    each = max(1, total // size // _SENDERS)
    stored: SimpleQueue[Any] = SimpleQueue()
    payload = os.urandom(size)
    with opened(folder / "queue") as queue:

        def send() -> None:
            for _ in range(each):
                stored.put(queue.append([EncodedBatch("traces", payload, 1)])[0])

        def read() -> None:
            while (entry := stored.get()) is not None:
                if len(queue.read(entry)) != size:
                    raise AssertionError("not what was stored")
                queue.remove(entry)

        senders = [threading.Thread(target=send) for _ in range(_SENDERS)]
        readers = [threading.Thread(target=read) for _ in range(_READERS)]
        begin = time.monotonic()
        for thread in senders + readers:
            thread.start()
        for thread in senders:
            thread.join()
        for _ in readers:
            stored.put(None)
        for thread in readers:
            thread.join()
        return each * _SENDERS * size / _MEGABYTE / (time.monotonic() - begin)


@contextmanager
def _files(folder: Path) -> Iterator[Queue]:
    folder.mkdir()
    options = Options(fsync=True, max_size=0, recreate=False, unreadable=lambda count: None)
    queue = FileQueue(Folder(str(folder), "queue", timeout=0.0), options)
    try:
        yield queue
    finally:
        queue.close()
        shutil.rmtree(folder)


@contextmanager
def _sqlite(folder: Path) -> Iterator[Queue]:
    folder.mkdir()
    try:
        yield SqliteQueue(folder / "queue.db")
    finally:
        shutil.rmtree(folder)


class SqliteQueue:
    def __init__(self, path: Path) -> None:
        self._writer = self._connection(path)
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, items INTEGER, payload BLOB)")
        self._reader, self._reading = self._connection(path), threading.Lock()
        self._turn = threading.Lock()  # of the transaction
        self._lock = threading.Lock()  # guards all below
        self._last = self._committed = 0
        self._new: list[tuple[int, int, bytes]] = []
        self._done: list[tuple[int]] = []

    def append(self, batches: list[EncodedBatch]) -> list[int]:
        with self._lock:
            ids = list(range(self._last + 1, self._last + 1 + len(batches)))
            self._last = ids[-1]
            self._new += [(id_, len(batch), batch.data) for id_, batch in zip(ids, batches, strict=True)]
        with self._turn:
            if self._committed < ids[-1]:
                self._commit()
        return ids

    def read(self, entry: int) -> bytes:
        with self._reading:
            payload: bytes = self._reader.execute("SELECT payload FROM queue WHERE id = ?", (entry,)).fetchone()[0]
        return payload

    def remove(self, entry: int) -> None:
        with self._lock:
            self._done.append((entry,))

    def _commit(self) -> None:
        with self._lock:
            new, done = self._new, self._done
            self._new, self._done = [], []
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.executemany("INSERT INTO queue VALUES (?, ?, ?)", new)
        self._writer.executemany("DELETE FROM queue WHERE id = ?", done)
        self._writer.execute("COMMIT")
        self._committed = new[-1][0]

    @staticmethod
    def _connection(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)
