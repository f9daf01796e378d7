"""The metrics of exchanges: what the kernel counts, and what spans add to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ..pipeline.spans import SpanKind
from .edges import Series, SeriesCounts
from .exemplars import Exemplars, by_known_series
from .kernel.edges import HISTOGRAMS, SUMS
from .metrics_request import MetricsRequest
from .semantic_series import SemanticCounts

#: histogram of the kernel, metric, and the sum that belongs to it
_DURATIONS: Final = (
    ("duration", "wirespan.exchange.duration", "duration_sum"),
    ("queue", "wirespan.exchange.queue.duration", "queue_sum"),
    ("processing", "wirespan.exchange.processing.duration", "processing_sum"),
)
#: has the durations of spans, and so spans as exemplars
_OF_SPANS: Final = "wirespan.exchange.duration"
_NO_EXEMPLARS: Final[Mapping[Series, Exemplars]] = MappingProxyType({})
_BYTES: Final = "wirespan.exchange.io"


def add_exchanges(
    request: MetricsRequest, series: Sequence[SeriesCounts], exemplars: Mapping[Series, Exemplars] = _NO_EXEMPLARS
) -> None:
    """exemplars: spans of the series, as user space tells them."""
    found = by_known_series(exemplars, {counts.series for counts in series})
    for counts in series:
        _add_series(request, counts, found.get(counts.series))


def add_semantic(request: MetricsRequest, counts: Iterable[SemanticCounts], estimated: bool) -> None:
    """estimated: whether a span stands for more than one exchange."""
    for of in counts:
        request.add_explicit_histogram(of, estimated)


def _add_series(request: MetricsRequest, counts: SeriesCounts, exemplars: Exemplars | None) -> None:
    for histogram, name, total in _DURATIONS:  # of a client the server's times are none
        slots = counts.slots[HISTOGRAMS.index(histogram)]
        of_spans = exemplars if name == _OF_SPANS else None
        request.add_histogram(name, counts.series, counts.start, slots, int(counts.sums[SUMS.index(total)]), of_spans)
    is_server = counts.series.kind is SpanKind.SERVER
    for size, received in (("request_bytes", is_server), ("response_bytes", not is_server)):
        direction = ("network.io.direction", "receive" if received else "transmit")
        request.add_sum(_BYTES, counts.series, counts.start, int(counts.sums[SUMS.index(size)]), direction)
