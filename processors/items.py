"""Under which names processors count the items of each signal that they refuse; they are the Collector's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..pipeline.component import Signal

REFUSED: Final[Mapping[Signal, str]] = {
    "traces": "otelcol_processor_refused_spans",
    "metrics": "otelcol_processor_refused_metric_points",
    "logs": "otelcol_processor_refused_log_records",
}
