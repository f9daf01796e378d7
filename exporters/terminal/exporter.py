"""The component: counts batches as they come, and a thread that draws.

The log of this process goes to the same terminal as a rule. While frames are drawn its lines go through the screen, and
the last of them is a part of the frame for a while.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections import deque
from threading import Event, Lock, Thread
from typing import Annotated, Any, Final, Literal, TextIO

import click
import numpy as np
import numpy.typing as npt
from rich.text import Text

from ...pipeline.component import ComponentConfig, Context, Factory, StartError
from ...pipeline.counters import Counters
from ...pipeline.duration import Duration, within
from ...pipeline.spans import SpanBatch
from ...pipeline.terminal import can_be_redrawn
from ..debug import point_to_nowhere
from ..debug_format import SpanRow, line_of, span_row
from .activity import Activity
from .screen import LogStream, Screen
from .view import Content, Health, frame, latest_notes, rows_that_fit, summary

logger = logging.getLogger(__name__)

#: spans sampled between two frames, and so at most shown; and of one batch
_SPANS: Final = 5
_SPANS_OF_A_BATCH: Final = 2
_NOTE_SECONDS: Final = 20.0
_NOTE_LINES: Final = 3
_ROWS_AT_THE_END: Final = 40


class TerminalSettings(ComponentConfig):
    """refresh_interval: between two frames. sort: which edges come first."""

    refresh_interval: Annotated[Duration, within("200ms", "60s")] = 1.0
    sort: Literal["requests", "errors"] = "requests"


class TerminalExporter:
    """Draws on what is ``sys.stdout`` at start, which has to be a terminal."""

    def __init__(self, settings: TerminalSettings, context: Context) -> None:
        self._settings = settings
        self._id, self._counters = context.id, context.counters
        self._stopping = Event()
        self._thread: Thread | None = None
        self._screen: Screen | None = None
        self._diverted: list[tuple[logging.StreamHandler[Any], TextIO]] = []
        self._lock = Lock()  # guards all below
        self._began = time.monotonic()
        self._activity = Activity(self._began)
        self._spans: deque[SpanRow] = deque(maxlen=_SPANS)
        self._sampled = 0
        self._notes: deque[tuple[float, str, str]] = deque(maxlen=_NOTE_LINES)
        self._shown = False  # whether what is consumed gets to see anybody

    def facts(self) -> dict[str, str]:
        return {"exports_to": "terminal"}

    def start(self) -> None:
        if not can_be_redrawn(sys.stdout, os.environ):
            raise StartError("stdout is not a terminal that can be redrawn; use the exporter debug, a line a span")
        self._screen = Screen(sys.stdout)
        self._shown = True
        self._divert_logs(self._screen)
        self._thread = Thread(target=self._run, args=(self._screen,), name=f"draw {self._id}", daemon=True)
        self._thread.start()

    def consume(self, batch: SpanBatch) -> None:
        if not len(batch):
            return
        with self._lock:
            shown = self._shown
            if shown:
                self._sample(batch, *self._activity.add(batch, time.monotonic()))
        name = "otelcol_exporter_sent_spans" if shown else "otelcol_exporter_send_failed_spans"
        self._counters.add(name, len(batch), exporter=self._id)

    def shutdown(self, deadline: float) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            stopped = not self._thread.is_alive()
            self._thread = None
            if stopped and self._shown and self._screen is not None:
                self._finish(self._screen)
        self._restore_logs()
        with self._lock:
            self._shown = False

    def _run(self, screen: Screen) -> None:
        while not self._stopping.wait(self._settings.refresh_interval):
            columns, lines = screen.size()
            try:
                screen.draw(frame(self._content(columns, lines), columns, lines))
            except OSError as error:
                self._give_up(error)
                return

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            self._shown = False
        self._restore_logs()
        point_to_nowhere(sys.stdout)
        fields = {"exporter": self._id, "error": error.strerror}
        logger.warning("Cannot write to the terminal any more. Dropping spans.", extra=fields)

    def _finish(self, screen: Screen) -> None:
        columns, lines = screen.size()
        with self._lock:
            now = time.monotonic()
            content = Content(
                up=now - self._began,
                totals=self._activity.totals(now),
                health=_health(self._counters, self._id),
                rows=self._activity.all_time(min(_ROWS_AT_THE_END, max(1, lines - 4))),
            )
        if not content.totals.spans and not screen.has_frame:  # it has not really begun
            return
        try:
            screen.finish(summary(content, columns, lines))
        except OSError as error:
            self._give_up(error)

    def _content(self, columns: int, lines: int) -> Content:
        health = _health(self._counters, self._id)
        with self._lock:
            now = time.monotonic()
            self._sampled = 0
            lately = [(text, level) for at, level, text in self._notes if now - at < _NOTE_SECONDS]
            notes = latest_notes(lately, columns, _NOTE_LINES)
            limit = rows_that_fit(columns, lines, len(self._spans), len(notes))
            return Content(
                up=now - self._began,
                totals=self._activity.totals(now),
                health=health,
                rows=self._activity.recent(now, limit, self._settings.sort == "errors"),
                spans=[
                    Text.from_ansi(line_of(columns, span, click.style))
                    for span in sorted(self._spans, key=lambda span: span.start)
                ],
                notes=notes,
            )

    def _sample(self, batch: SpanBatch, edges: npt.NDArray[np.int64], failed: npt.NDArray[np.bool_]) -> None:
        """Some spans of the batch: of different edges, and one that failed, if any did."""
        wanted = min(_SPANS - self._sampled, _SPANS_OF_A_BATCH)
        if wanted <= 0:
            return
        ones = np.unique(edges, return_index=True)[1].tolist()  # the first of each edge
        rows = random.sample(ones, min(wanted, len(ones)))
        failures = np.flatnonzero(failed).tolist()
        if failures and not failed[rows].any():
            rows[0] = random.choice(failures)
        self._sampled += len(rows)
        for row in rows:
            self._spans.append(span_row(batch, row))

    def _note(self, text: str) -> None:
        """Keep a log line, without time and level if it has these between tabs."""
        _, _, rest = text.partition("\t")
        level, _, said = rest.partition("\t")
        with self._lock:
            self._notes.append((time.monotonic(), level, (said or text).split("\n")[0].replace("\t", "  ")))

    def _divert_logs(self, screen: Screen) -> None:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and screen.shares(handler.stream):
                self._diverted.append((handler, handler.stream))
                handler.setStream(LogStream(screen, self._note))

    def _restore_logs(self) -> None:
        while self._diverted:
            handler, stream = self._diverted.pop()
            handler.setStream(stream)


def _health(counters: Counters, exporter: str) -> Health:
    sums = counters.snapshot()

    def total(name: str) -> int:
        return sum(amount for (key, _), amount in sums.items() if key == name)

    failed = sums.get(("otelcol_exporter_send_failed_spans", (("exporter", exporter),)), 0)
    return Health(
        observed=total("wirespan.exchanges.observed"),
        sampled_out=total("wirespan.exchanges.sampled_out"),
        dropped=total("wirespan.exchanges.dropped") + failed,
    )


FACTORY = Factory("exporter", "terminal", TerminalSettings, TerminalExporter)
