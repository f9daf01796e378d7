"""``debug``: spans, data points and log records on stdout, for whoever wants to see what happens on this machine.

``verbosity`` is the Collector's: ``basic`` is a line a batch, ``normal`` a line an item, ``detailed`` all
attributes. A busy machine has more of them than eyes can follow and than a terminal takes: of those beyond
``max_lines_per_second`` only the number is shown, once a second. They count as sent like the others.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from threading import Lock, Timer
from typing import TextIO

import click
from pydantic import Field

from ..pipeline.component import ALL_SIGNALS, ComponentConfig, Context, Factory, Outcome
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import SpanBatch
from .debug_format import Style, Verbosity, batch_line, line, paragraph, plain, span_row
from .items import OF_SIGNAL, SPANS, Items
from .throttled import ThrottledLog

logger = logging.getLogger(__name__)


class DebugSettings(ComponentConfig):
    """max_lines_per_second: items shown, 0 for all."""

    verbosity: Verbosity = "normal"
    max_lines_per_second: int = Field(default=200, ge=0)


class DebugExporter:
    """Writes to what is ``sys.stdout`` at start; in colours if that is a terminal and NO_COLOR is unset."""

    def __init__(self, settings: DebugSettings, context: Context) -> None:
        self._settings = settings
        self._id, self._counters = context.id, context.counters
        self._log = ThrottledLog(logger, context.id)
        self._style: Style = plain
        self._lock = Lock()  # guards all below
        self._stream: TextIO | None = None
        self._second_ends = 0.0
        self._shown = 0
        self._suppressed: dict[Items, int] = {}
        self._summary: Timer | None = None

    def facts(self) -> dict[str, str]:
        return {"exports_to": "stdout"}

    def start(self) -> None:
        self._stream = sys.stdout
        if self._stream.isatty() and not os.environ.get("NO_COLOR"):
            self._style = click.style

    def consume(self, batch: SpanBatch) -> None:
        def lines(admitted: int) -> list[str]:
            if self._settings.verbosity == "basic":
                return [batch_line(batch, self._style)]
            describe = line if self._settings.verbosity == "normal" else paragraph
            return [describe(span_row(batch, row), self._style) for row in range(admitted)]

        self._export(SPANS, len(batch), lines)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        from .decoding import decoded
        from .encoded_format import describing

        items, request = OF_SIGNAL[batch.signal], decoded(batch)
        if request is None:
            self._log.warning("Cannot decode a request. Dropping it.", **{items.dropped: len(batch)})
            self._counters.add(items.send_failed, len(batch), exporter=self._id)
            return Outcome.FAILED
        lines = describing(request, len(batch), self._settings.verbosity, self._style)
        self._export(items, len(batch), lines)
        return Outcome.TAKEN

    def shutdown(self, deadline: float) -> None:
        with self._lock:
            if self._summary is not None:
                self._summary.cancel()
                self._write_summary()
            self._stream = None

    def _export(self, items: Items, count: int, lines: Callable[[int], Sequence[str]]) -> None:
        """Show a batch of so many items. lines: the text of the first so many of them."""
        if not count:
            return
        with self._lock:
            admitted = count if self._settings.verbosity == "basic" else self._admit(items, count)
            text = "\n".join(lines(admitted)) if admitted else ""
            shown = self._write(text) if text else self._stream is not None
        self._counters.add(items.sent if shown else items.send_failed, count, exporter=self._id)

    def _admit(self, items: Items, count: int) -> int:
        """How many of the items may be shown in this second; the others are summed up at its end."""
        limit = self._settings.max_lines_per_second
        if not limit:
            return count
        now = time.monotonic()
        if now >= self._second_ends:
            self._second_ends, self._shown = now + 1.0, 0
        admitted = min(count, limit - self._shown)
        self._shown += admitted
        if admitted < count:
            self._suppressed[items] = self._suppressed.get(items, 0) + count - admitted
        if self._suppressed and self._summary is None:
            self._summary = Timer(self._second_ends - now, self._summarise)
            self._summary.daemon = True
            self._summary.start()
        return admitted

    def _summarise(self) -> None:
        with self._lock:
            if self._summary is not None:
                self._write_summary()

    def _write_summary(self) -> None:
        for items, count in self._suppressed.items():
            self._write(self._style(f"… {count} more {items.name}", dim=True))
        self._suppressed, self._summary = {}, None

    def _write(self, text: str) -> bool:
        if self._stream is None:
            return False
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except BrokenPipeError:
            logger.warning("Nobody reads stdout any more. Dropping data.", extra={"exporter": self._id})
            point_to_nowhere(self._stream)
            self._stream = None
            return False
        except OSError as error:
            self._log.warning("Cannot write to stdout. Dropping data.", error=error.strerror)
            return False
        return True


def point_to_nowhere(stream: TextIO) -> None:
    """Python flushes stdout at its end, which for a closed pipe would be an error message."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


FACTORY = Factory("exporter", "debug", DebugSettings, DebugExporter, signals=ALL_SIGNALS, encoded_spans=True)
