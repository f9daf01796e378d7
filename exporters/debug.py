"""``debug``: spans on stdout, for whoever wants to see what happens on this machine.

``verbosity`` is the Collector's: ``basic`` is a line a batch, ``normal`` a line a span, ``detailed`` all attributes.
A busy machine has more spans than eyes can follow and than a terminal takes: of those beyond
``max_lines_per_second`` only the number is shown, once a second. They count as sent like the others.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from threading import Lock, Timer
from typing import Literal, TextIO

import click
from pydantic import Field

from ..pipeline.component import ComponentConfig, Context, Factory
from ..pipeline.spans import SpanBatch
from .debug_format import Style, batch_line, line, paragraph, plain, span_row
from .throttled import ThrottledLog

logger = logging.getLogger(__name__)


class DebugSettings(ComponentConfig):
    """max_lines_per_second: spans shown, 0 for all."""

    verbosity: Literal["basic", "normal", "detailed"] = "normal"
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
        self._suppressed = 0
        self._summary: Timer | None = None

    def facts(self) -> dict[str, str]:
        return {"exports_to": "stdout"}

    def start(self) -> None:
        self._stream = sys.stdout
        if self._stream.isatty() and not os.environ.get("NO_COLOR"):
            self._style = click.style

    def consume(self, batch: SpanBatch) -> None:
        if not len(batch):
            return
        with self._lock:
            name = "otelcol_exporter_sent_spans" if self._show(batch) else "otelcol_exporter_send_failed_spans"
        self._counters.add(name, len(batch), exporter=self._id)

    def shutdown(self, deadline: float) -> None:
        with self._lock:
            if self._summary is not None:
                self._summary.cancel()
                self._write_summary()
            self._stream = None

    def _show(self, batch: SpanBatch) -> bool:
        """Whether the batch was written, if only as a number."""
        if self._settings.verbosity == "basic":
            return self._write(batch_line(batch, self._style))
        admitted = self._admit(len(batch))
        describe = line if self._settings.verbosity == "normal" else paragraph
        lines = [describe(span_row(batch, row), self._style) for row in range(admitted)]
        return self._write("\n".join(lines)) if lines else self._stream is not None

    def _admit(self, spans: int) -> int:
        """How many of the spans may be shown in this second; the others are summed up at its end."""
        limit = self._settings.max_lines_per_second
        if not limit:
            return spans
        now = time.monotonic()
        if now >= self._second_ends:
            self._second_ends, self._shown = now + 1.0, 0
        admitted = min(spans, limit - self._shown)
        self._shown += admitted
        self._suppressed += spans - admitted
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
        self._write(self._style(f"… {self._suppressed} more spans", dim=True))
        self._suppressed, self._summary = 0, None

    def _write(self, text: str) -> bool:
        if self._stream is None:
            return False
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except BrokenPipeError:
            logger.warning("Nobody reads stdout any more. Dropping spans.", extra={"exporter": self._id})
            point_to_nowhere(self._stream)
            self._stream = None
            return False
        except OSError as error:
            self._log.warning("Cannot write spans to stdout. Dropping them.", error=error.strerror)
            return False
        return True


def point_to_nowhere(stream: TextIO) -> None:
    """Python flushes stdout at its end, which for a closed pipe would be an error message."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


FACTORY = Factory("exporter", "debug", DebugSettings, DebugExporter)
