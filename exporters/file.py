"""``file``: OTLP JSON, appended to a file, one request a line, as the Collector's file exporter writes it.

Each batch is one write of complete lines, so a reader may follow the file while it grows. What a failed write left of
a line is cut off again, or the next batch would become part of it.
"""

from __future__ import annotations

import logging
import os
import stat
from threading import Lock
from typing import Literal

from pydantic import Field

from ..pipeline.component import ALL_SIGNALS, ComponentConfig, Context, Factory, Outcome, StartError
from ..pipeline.encoded import EncodedBatch
from ..pipeline.otlp_json import encode_json
from ..pipeline.spans import SpanBatch
from .items import OF_SIGNAL, SPANS, Items
from .throttled import ThrottledLog

logger = logging.getLogger(__name__)


class FileSettings(ComponentConfig):
    """path: created if missing, readable by its owner only: spans tell who talks to whom.

    A file that is there keeps its mode, which may have been set for a log shipper; a warning says if others have access.
    """

    path: str = Field(min_length=1)
    format: Literal["json"] = "json"


class FileExporter:
    def __init__(self, settings: FileSettings, context: Context) -> None:
        self._path = settings.path
        self._id, self._counters = context.id, context.counters
        self._log = ThrottledLog(logger, context.id)
        self._lock = Lock()
        self._file: int | None = None

    def facts(self) -> dict[str, str]:
        return {"exports_to": self._path}

    def start(self) -> None:
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"cannot write {self._path}: {error.strerror}") from error
        self._warn_of_others(os.fstat(self._file).st_mode)

    def consume(self, batch: SpanBatch) -> None:
        if not len(batch):
            return
        self._write(encode_json(batch), SPANS, len(batch))

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        if not len(batch):
            return Outcome.TAKEN
        from .decoding import decoded
        from .encoded_json import request_json

        items, request = OF_SIGNAL[batch.signal], decoded(batch)
        if request is None:
            self._log.warning("Cannot decode a request. Dropping it.", **{items.dropped: len(batch)})
            self._counters.add(items.send_failed, len(batch), exporter=self._id)
            return Outcome.FAILED
        return Outcome.TAKEN if self._write(request_json(request), items, len(batch)) else Outcome.BUSY

    def _write(self, text: str, items: Items, count: int) -> bool:
        """Whether it is in the file."""
        line = f"{text}\n".encode()
        with self._lock:
            written = self._append(line, items)
        self._counters.add(items.sent if written else items.send_failed, count, exporter=self._id)
        return written

    def shutdown(self, deadline: float) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _warn_of_others(self, mode: int) -> None:
        if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
            logger.warning(
                "Others than its owner have access to the file of spans. If that is not meant: chmod 600",
                extra={"path": self._path, "mode": stat.filemode(mode)},
            )

    def _append(self, line: bytes, items: Items) -> bool:
        """Whether the whole line is in the file."""
        if self._file is None:
            return False
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            message = f"Cannot write {items.name} to the file. Dropping them."
            self._log.warning(message, path=self._path, error=error.strerror)
            _cut_off(self._file, written)
            return False
        return True


def _cut_off(file: int, count: int) -> None:
    """Remove the last ``count`` bytes; what went into a pipe or a device is gone."""
    status = os.fstat(file)
    if count and stat.S_ISREG(status.st_mode):
        os.ftruncate(file, status.st_size - count)


FACTORY = Factory("exporter", "file", FileSettings, FileExporter, signals=ALL_SIGNALS, encoded_spans=True)
