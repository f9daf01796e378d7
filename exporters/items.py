"""What exporters call the items of each signal, and where they count them; the names are the Collector's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..pipeline.component import Signal


@dataclass(frozen=True, slots=True)
class Items:
    """name: in messages. dropped: the field of the log. The others: metrics."""

    signal: Signal
    name: str
    dropped: str
    sent: str
    send_failed: str
    enqueue_failed: str
    in_flight: str
    recovered: str
    kept: str


SPANS: Final = Items(
    "traces",
    "spans",
    "dropped_spans",
    "otelcol_exporter_sent_spans",
    "otelcol_exporter_send_failed_spans",
    "otelcol_exporter_enqueue_failed_spans",
    "wirespan.exporter.in_flight_spans",
    "wirespan.exporter.recovered_spans",
    "wirespan.exporter.kept_spans",
)
METRIC_POINTS: Final = Items(
    "metrics",
    "metric points",
    "dropped_metric_points",
    "otelcol_exporter_sent_metric_points",
    "otelcol_exporter_send_failed_metric_points",
    "otelcol_exporter_enqueue_failed_metric_points",
    "wirespan.exporter.in_flight_metric_points",
    "wirespan.exporter.recovered_metric_points",
    "wirespan.exporter.kept_metric_points",
)
LOG_RECORDS: Final = Items(
    "logs",
    "log records",
    "dropped_log_records",
    "otelcol_exporter_sent_log_records",
    "otelcol_exporter_send_failed_log_records",
    "otelcol_exporter_enqueue_failed_log_records",
    "wirespan.exporter.in_flight_log_records",
    "wirespan.exporter.recovered_log_records",
    "wirespan.exporter.kept_log_records",
)
ALL: Final = (SPANS, METRIC_POINTS, LOG_RECORDS)
OF_SIGNAL: Final = {items.signal: items for items in ALL}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request as OTLP has it for the signal of its items. count: how many items are in it."""

    items: Items
    payload: bytes
    count: int
