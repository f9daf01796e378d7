"""What flows through a pipeline beside spans in columns: a request of OTLP, encoded.

Metrics come once an interval, and what comes by OTLP is encoded already: whoever makes it encodes it, exporters send the
bytes on, and only who shows them decodes them. Nothing here imports opentelemetry-proto, which takes 5 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .component import Signal


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """data: the encoded ``Export…ServiceRequest`` of the signal. items: spans, data points or log records in it. sender: the
    address that it came from, if it came by a connection and was not joined with others since."""

    signal: Signal
    data: bytes
    items: int
    sender: str = ""

    def __len__(self) -> int:
        return self.items
