"""A bounded queue of encoded requests that knows where each span is.

Each span that was put is at any time in exactly one account: sent (the backend acknowledged it), send_failed (it was
given up), enqueue_failed (it found no room) or in flight. A request is *accepted* from ``put`` until ``settle``,
which happens once, whoever comes first: the consumer that sends it, or shutdown giving it up. Until then it takes
room, waiting or being sent, so the size bounds all that is held.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Condition, RLock

from ..pipeline.component import Context
from ..pipeline.otlp import ExportRequest
from .otlp_settings import QueueSettings


@dataclass(slots=True, eq=False)
class Request:
    """size: what it takes of the queue, in the unit of the sizer."""

    payload: bytes
    spans: int
    size: int


class RequestQueue:
    """Safe from any thread."""

    def __init__(self, settings: QueueSettings, context: Context) -> None:
        self._settings = settings
        self._exporter, self._counters = context.id, context.counters
        self._lock = RLock()
        self._work, self._room = Condition(self._lock), Condition(self._lock)
        self._waiting: deque[Request] = deque()
        self._accepted: set[Request] = set()
        self._size = 0
        self._in_flight_spans = 0
        self._takers = 0
        self._closed = False
        gauges = {
            "wirespan.exporter.in_flight_spans": lambda: self.in_flight_spans,
            "otelcol_exporter_queue_size": lambda: self._size,
            "otelcol_exporter_queue_capacity": lambda: settings.queue_size,
        }
        for name, read in gauges.items():
            context.counters.gauge(name, read, exporter=context.id)

    @property
    def in_flight_spans(self) -> int:
        """Accepted and not settled. Under the lock, so that no span is seen in two accounts."""
        with self._lock:
            return self._in_flight_spans

    @property
    def short_of_takers(self) -> bool:
        """Whether more requests wait than there are threads in ``take``."""
        with self._lock:
            return len(self._waiting) > self._takers

    def put(self, encoded: ExportRequest) -> bool:
        """Queue a request; if there is no room, wait for it (``block_on_overflow``) or count it as enqueue_failed and
        return False."""
        size = self._settings.size_of(encoded)
        with self._lock:
            if self._settings.block_on_overflow and size <= self._settings.queue_size:
                self._room.wait_for(lambda: self._closed or self._fits(size))
            if self._closed or not self._fits(size):
                self._count("otelcol_exporter_enqueue_failed_spans", encoded.spans)
                return False
            self._waiting.append(self._accept(encoded, size))
            self._work.notify()
            return True

    def put_aside(self, encoded: ExportRequest) -> Request | None:
        """Accept a request that the caller itself sends at once; None, and enqueue_failed, if closed."""
        with self._lock:
            if self._closed:
                self._count("otelcol_exporter_enqueue_failed_spans", encoded.spans)
                return None
            return self._accept(encoded, self._settings.size_of(encoded))

    def take(self) -> Request | None:
        """The oldest request that waits, as soon as there is one; None once closed and empty."""
        with self._lock:
            self._takers += 1
            self._work.wait_for(lambda: self._waiting or self._closed)
            self._takers -= 1
            return self._waiting.popleft() if self._waiting else None

    def settle(self, request: Request, sent: int) -> bool:
        """The end of a request: ``sent`` of its spans were acknowledged, the others failed. False if it had already
        come to its end."""
        with self._lock:
            if request not in self._accepted:
                return False
            self._accepted.remove(request)
            self._size -= request.size
            self._in_flight_spans -= request.spans
            self._count("otelcol_exporter_sent_spans", sent)
            self._count("otelcol_exporter_send_failed_spans", request.spans - sent)
            self._room.notify_all()
            return True

    def close(self) -> None:
        """Accept nothing more; what waits can still be taken."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
            self._room.notify_all()

    def abandon(self) -> int:
        """Settle all that is left as failed; how many spans that were."""
        with self._lock:
            abandoned = self._in_flight_spans
            self._waiting.clear()
            for request in list(self._accepted):
                self.settle(request, sent=0)
            return abandoned

    def count_failed(self, spans: int) -> None:
        """These became no request."""
        self._count("otelcol_exporter_send_failed_spans", spans)

    def _fits(self, size: int) -> bool:
        return self._size + size <= self._settings.queue_size

    def _accept(self, encoded: ExportRequest, size: int) -> Request:
        request = Request(encoded.payload, encoded.spans, size)
        self._accepted.add(request)
        self._size += size
        self._in_flight_spans += encoded.spans
        return request

    def _count(self, name: str, spans: int) -> None:
        if spans:
            self._counters.add(name, spans, exporter=self._exporter)
