"""What both transports do with a request: check it, count it, hand it on, and tell what to answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from threading import Condition, Lock
from typing import Final, Literal, TypeAlias

from ...pipeline.component import Context, EncodedConsumer, Outcome, Outputs, Signal
from ...pipeline.defects import report_defect
from ...pipeline.protobuf import MalformedMessage
from ...pipeline.scanning import scanned

logger = logging.getLogger(__name__)

Transport: TypeAlias = Literal["grpc", "http"]

#: bytes of requests that are being received or handed on by each transport: more are refused by HTTP until there is room, and
#: not read yet by gRPC. Each signal has a part of its own, in which one request always finds room: where one waits for its
#: backend, the others go on.
IN_HAND: Final = 134_217_728

ACCEPTED: Final[Mapping[Signal, str]] = {
    "traces": "otelcol_receiver_accepted_spans",
    "metrics": "otelcol_receiver_accepted_metric_points",
    "logs": "otelcol_receiver_accepted_log_records",
}
REFUSED: Final[Mapping[Signal, str]] = {
    "traces": "otelcol_receiver_refused_spans",
    "metrics": "otelcol_receiver_refused_metric_points",
    "logs": "otelcol_receiver_refused_log_records",
}


class Verdict(Enum):
    """What a sender is told. BUSY: it may send the same again, later; after the others it may not."""

    OK = "ok"
    BUSY = "busy"
    MALFORMED = "malformed"
    FAILED = "failed"


class TooLarge(Exception):
    """A request is larger than it may be. The message says what is."""


class Room:
    """Bytes that all requests of a signal in hand by HTTP may take together. Safe from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._taken = 0

    def take(self, size: int) -> bool:
        """Whether there is room, which is then taken."""
        with self._lock:
            if self._taken + size > self._limit:
                return False
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._taken -= size


class Intake:
    """signals: those that the receiver is in a pipeline of. largest: bytes of a request by HTTP."""

    def __init__(self, context: Context, outputs: Outputs, largest: int) -> None:
        consumers: dict[Signal, EncodedConsumer | None] = {
            "traces": outputs.traces,
            "metrics": outputs.metrics,
            "logs": outputs.logs,
        }
        self._consumers = {signal: consumer for signal, consumer in consumers.items() if consumer is not None}
        self.context = context
        self._id, self._counters = context.id, context.counters
        self.signals: tuple[Signal, ...] = tuple(self._consumers)
        self.rooms = {signal: Room(max(self.part_of_each(), largest)) for signal in self.signals}
        self._idle = Condition()  # guards what follows
        self._under_way = 0

    def part_of_each(self) -> int:
        """Bytes in hand by each transport of each signal."""
        return IN_HAND // max(1, len(self.signals))

    def take(self, signal: Signal, data: bytes, transport: Transport, sender: str = "") -> Verdict:
        """Hand on an encoded request. sender: its address. Safe from any thread; may wait, if an exporter does for room."""
        with self._idle:
            self._under_way += 1
        try:
            return self._taken(signal, data, transport, sender)
        finally:
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Until nothing is being handed on, or so long."""
        with self._idle:
            self._idle.wait_for(lambda: not self._under_way, seconds)

    def _taken(self, signal: Signal, data: bytes, transport: Transport, sender: str) -> Verdict:
        try:
            batch = scanned(signal, data, sender)
            outcome = self._consumers[signal].consume_encoded(batch) if len(batch) else Outcome.TAKEN
        except MalformedMessage:
            self.refuse("malformed", transport)
            return Verdict.MALFORMED
        except Exception as defect:  # behind it every component has a boundary of its own
            report_defect("A request could not be handed on.", self._id, defect)
            return Verdict.FAILED
        if len(batch):
            name = ACCEPTED[signal] if outcome is Outcome.TAKEN else REFUSED[signal]
            self._counters.add(name, len(batch), receiver=self._id, transport=transport)
        return {Outcome.TAKEN: Verdict.OK, Outcome.BUSY: Verdict.BUSY}.get(outcome, Verdict.FAILED)

    def refuse(self, reason: str, transport: Transport) -> None:
        """Count a request whose items are not known."""
        self._counters.add(
            "wirespan.receiver.requests.refused", 1, receiver=self._id, transport=transport, reason=reason
        )
