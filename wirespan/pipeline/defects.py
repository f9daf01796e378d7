"""A defect in the work on one batch costs that batch, which is counted, and ends no thread.

What was raised may repeat what was being worked on, which is payload or a header: the log says its kind and where it was
raised, and not what it says.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from threading import Lock

from .component import Consumer, MetricsConsumer
from .counters import Counters
from .metrics import MetricsBatch
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
    """A consumer behind which an exception ends. count: gets the spans of the batch that is lost by it."""

    def __init__(self, consumer: Consumer, count: Callable[[int], None], component: str) -> None:
        self._consumer = consumer
        self._count = count
        self._component = component

    def consume(self, batch: SpanBatch) -> None:
        try:
            self._consumer.consume(batch)
        except Exception as defect:
            self._count(len(batch))
            report_defect("A component failed on a batch. Going on without it.", self._component, defect)


class MetricsBoundary:
    """The same for metrics. count: gets the data points of the batch that is lost."""

    def __init__(self, consumer: MetricsConsumer, count: Callable[[int], None], component: str) -> None:
        self._consumer = consumer
        self._count = count
        self._component = component

    def consume_metrics(self, batch: MetricsBatch) -> None:
        try:
            self._consumer.consume_metrics(batch)
        except Exception as defect:
            self._count(len(batch))
            report_defect("A component failed on a batch. Going on without it.", self._component, defect)


def exporter_boundary(exporter: Consumer, exporter_id: str, counters: Counters) -> Boundary:
    """For an exporter, which counts a batch once it has been through it."""
    name = "otelcol_exporter_send_failed_spans"
    return Boundary(exporter, lambda spans: counters.add(name, spans, exporter=exporter_id), exporter_id)


def processor_boundary(processor: Consumer, processor_id: str, counters: Counters) -> Boundary:
    """For the first processor of a pipeline, and so for all of it: what is raised by exporters ends before."""
    name = "wirespan.exchanges.dropped"
    return Boundary(processor, lambda spans: counters.add(name, spans, reason="defect"), processor_id)


def metrics_exporter_boundary(exporter: MetricsConsumer, exporter_id: str, counters: Counters) -> MetricsBoundary:
    name = "otelcol_exporter_send_failed_metric_points"
    return MetricsBoundary(exporter, lambda points: counters.add(name, points, exporter=exporter_id), exporter_id)


def metrics_processor_boundary(processor: MetricsConsumer, processor_id: str, counters: Counters) -> MetricsBoundary:
    name = "wirespan.metric_points.dropped"
    return MetricsBoundary(processor, lambda points: counters.add(name, points, reason="defect"), processor_id)
