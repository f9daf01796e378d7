"""A defect in the work on one batch costs that batch, which is counted, and ends no thread.

What was raised may repeat what was being worked on, which is payload or a header: the log says its kind and where it was
raised, and not what it says.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final

from .component import Outcome, Signal
from .counters import Counters
from .encoded import EncodedBatch
from .spans import SpanBatch

logger = logging.getLogger(__name__)

#: seconds between two lines of the log about defects of one place
_INTERVAL = 60.0
_FRAMES = 3

_lock = Lock()
_next: dict[tuple[str, str], float] = {}


def report_defect(message: str, component: str, defect: Exception, **fields: object) -> None:
    """Log it, with the innermost frames, unless the same was logged within a minute. Safe from any thread."""
    now = time.monotonic()
    with _lock:
        if now < _next.get((message, component), now):
            return
        _next[message, component] = now + _INTERVAL
    frames = traceback.StackSummary.extract(traceback.walk_tb(defect.__traceback__), lookup_lines=False)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-_FRAMES:]]
    extra = {"component": component, "error": type(defect).__name__, "trace": ", ".join(places), **fields}
    logger.error(message, extra=extra)


class Boundary:
    """A consumer behind which an exception ends. count: gets the signal and the items of the batch that is lost by it."""

    def __init__(self, consumer: Any, count: Callable[[Signal, int], None], component: str) -> None:
        self._consumer = consumer
        self._count = count
        self._component = component

    def consume(self, batch: SpanBatch) -> None:
        try:
            self._consumer.consume(batch)
        except Exception as defect:
            self._lose("traces", len(batch), defect)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        try:
            outcome: Outcome = self._consumer.consume_encoded(batch)
        except Exception as defect:
            self._lose(batch.signal, len(batch), defect)
            return Outcome.FAILED
        return outcome

    def _lose(self, signal: Signal, items: int, defect: Exception) -> None:
        self._count(signal, items)
        report_defect("A component failed on a batch. Going on without it.", self._component, defect)


#: where an exporter counts what it gave up
_SEND_FAILED: Final[Mapping[Signal, str]] = {
    "traces": "otelcol_exporter_send_failed_spans",
    "metrics": "otelcol_exporter_send_failed_metric_points",
    "logs": "otelcol_exporter_send_failed_log_records",
}
#: where what is lost before exporters is counted, by reason
DROPPED: Final[Mapping[Signal, str]] = {
    "traces": "wirespan.exchanges.dropped",
    "metrics": "wirespan.metric_points.dropped",
    "logs": "wirespan.log_records.dropped",
}


def exporter_boundary(exporter: object, exporter_id: str, counters: Counters) -> Boundary:
    """For an exporter, which counts a batch once it has been through it."""

    def count(signal: Signal, items: int) -> None:
        counters.add(_SEND_FAILED[signal], items, exporter=exporter_id)

    return Boundary(exporter, count, exporter_id)


def processor_boundary(processor: object, processor_id: str, counters: Counters) -> Boundary:
    """For the first processor of a pipeline, and so for all of it: what is raised by exporters ends before."""

    def count(signal: Signal, items: int) -> None:
        counters.add(DROPPED[signal], items, reason="defect")

    return Boundary(processor, count, processor_id)
