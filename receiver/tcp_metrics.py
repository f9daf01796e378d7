"""The metrics of connections: how well they do, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .edges import OVERFLOW, SeriesCounts
from .kernel.edges import TCP
from .metrics_request import MetricsRequest
from .open_connections import OpenCount

#: histogram of the kernel, metric, and the sum that belongs to it
_DURATIONS: Final = (
    ("connect", "wirespan.tcp.connect.duration", "connect_sum"),
    ("srtt", "wirespan.tcp.srtt", "srtt_sum"),
    ("min_rtt", "wirespan.tcp.min_rtt", "min_rtt_sum"),
)
_NANOSECONDS: Final = 1e9
_CONNECTS: Final = "wirespan.tcp.connects"
_FAILURES: Final = "wirespan.tcp.connect.failures"
_RETRANSMITS: Final = "wirespan.tcp.retransmits"
_RESETS: Final = "wirespan.tcp.resets"
_WINDOW_WAITS: Final = "wirespan.tcp.window.wait_time"
_OVERFLOWS: Final = "wirespan.tcp.accept_queue.overflows"
_OPEN: Final = "wirespan.tcp.connections.open"


def add_tcp(request: MetricsRequest, series: Iterable[SeriesCounts]) -> None:
    for counts in series:
        _add_series(request, counts)


def _add_series(request: MetricsRequest, counts: SeriesCounts) -> None:
    """Zeros too where there are connections: that there was no reset is worth knowing."""
    series, start = counts.series, counts.start
    sums = dict(zip(TCP.sums, counts.sums.tolist(), strict=True))
    for name, field in ((_FAILURES, "failures"), (_OVERFLOWS, "accept_drops")):
        if sums[field]:
            request.add_sum(name, series, start, sums[field])
    if series != OVERFLOW and (series.error or not series.peer):  # of no connection
        return
    request.add_sum(_CONNECTS, series, start, sums["connects"])
    request.add_sum(_RETRANSMITS, series, start, sums["retransmits"])
    for field, direction in (("resets_sent", "transmit"), ("resets_received", "receive")):
        request.add_sum(_RESETS, series, start, sums[field], ("network.io.direction", direction))
    request.add_sum(_WINDOW_WAITS, series, start, sums["window_waits"] / _NANOSECONDS)
    for histogram, name, total in _DURATIONS:
        request.add_histogram(name, series, start, counts.slots[TCP.histograms.index(histogram)], sums[total])


def add_open(request: MetricsRequest, counts: Iterable[OpenCount]) -> None:
    for found in counts:
        request.add_sum(_OPEN, found.series, found.start, found.connections)
