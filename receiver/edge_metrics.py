"""The metrics of exchanges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..pipeline.spans import SpanKind
from .edges import SeriesCounts
from .kernel.edges import HISTOGRAMS, SUMS
from .metrics_request import MetricsRequest

#: histogram of the kernel, metric, and the sum that belongs to it
_DURATIONS: Final = (
    ("duration", "wirespan.exchange.duration", "duration_sum"),
    ("queue", "wirespan.exchange.queue.duration", "queue_sum"),
    ("processing", "wirespan.exchange.processing.duration", "processing_sum"),
)
_BYTES: Final = "wirespan.exchange.io"


def add_exchanges(request: MetricsRequest, series: Iterable[SeriesCounts]) -> None:
    for counts in series:
        _add_series(request, counts)


def _add_series(request: MetricsRequest, counts: SeriesCounts) -> None:
    for histogram, name, total in _DURATIONS:  # of a client the server's times are none
        slots = counts.slots[HISTOGRAMS.index(histogram)]
        request.add_histogram(name, counts.series, counts.start, slots, int(counts.sums[SUMS.index(total)]))
    is_server = counts.series.kind is SpanKind.SERVER
    for size, received in (("request_bytes", is_server), ("response_bytes", not is_server)):
        direction = ("network.io.direction", "receive" if received else "transmit")
        request.add_sum(_BYTES, counts.series, counts.start, int(counts.sums[SUMS.index(size)]), direction)
