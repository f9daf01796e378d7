"""A bounded queue of encoded requests that knows where each span and each data point is.

The requests of all signals share its room and the order in which they came; each is counted, and sent, as of its own.
Each item that was put is at any time in exactly one account: sent (the backend acknowledged it), send_failed (it was
given up), enqueue_failed (it found no room) or in flight. A request is *accepted* from ``put`` until ``settle``,
which happens once, whoever comes first: the consumer that sends it, or shutdown giving it up. Until then it takes
room, waiting or being sent, so the size bounds all that is held.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from threading import Condition, RLock

from ..pipeline.component import Context
from .items import ALL, Encoded, Items
from .otlp_settings import QueueSettings


@dataclass(slots=True, eq=False)
class Request:
    """count: items in it. size: what it takes of the queue, in the unit of the sizer."""

    items: Items
    payload: bytes
    count: int
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
        self._in_flight = dict.fromkeys(ALL, 0)
        self._takers = 0
        self._closed = False
        gauges = {
            "otelcol_exporter_queue_size": lambda: self._size,
            "otelcol_exporter_queue_capacity": lambda: settings.queue_size,
        }
        for items in ALL:
            if items.signal in context.signals:
                gauges[items.in_flight] = partial(self.in_flight, items)
        for name, read in gauges.items():
            context.counters.gauge(name, read, exporter=context.id)

    def in_flight(self, items: Items) -> int:
        """Accepted and not settled. Under the lock, so that no item is seen in two accounts."""
        with self._lock:
            return self._in_flight[items]

    @property
    def short_of_takers(self) -> bool:
        """Whether more requests wait than there are threads in ``take``."""
        with self._lock:
            return len(self._waiting) > self._takers

    def put(self, *requests: Encoded) -> bool:
        """Queue requests, all or none; if there is no room, wait for it (``block_on_overflow``) or count them as
        enqueue_failed and return False."""
        sizes = [self._settings.size_of(request) for request in requests]
        size = sum(sizes)
        with self._lock:
            if self._settings.block_on_overflow and size <= self._settings.queue_size:
                self._room.wait_for(lambda: self._closed or self._fits(size))
            if self._closed or not self._fits(size):
                for request in requests:
                    self._count(request.items.enqueue_failed, request.count)
                return False
            self._waiting.extend(map(self._accept, requests, sizes))
            self._work.notify(len(requests))
            return True

    def put_aside(self, encoded: Encoded) -> Request | None:
        """Accept a request that the caller itself sends at once; None, and enqueue_failed, if closed."""
        with self._lock:
            if self._closed:
                self._count(encoded.items.enqueue_failed, encoded.count)
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
        """The end of a request: ``sent`` of its items were acknowledged, the others failed. False if it had already
        come to its end."""
        with self._lock:
            if request not in self._accepted:
                return False
            self._accepted.remove(request)
            self._size -= request.size
            self._in_flight[request.items] -= request.count
            self._count(request.items.sent, sent)
            self._count(request.items.send_failed, request.count - sent)
            self._room.notify_all()
            return True

    def close(self) -> None:
        """Accept nothing more; what waits can still be taken."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
            self._room.notify_all()

    def abandon(self) -> dict[Items, int]:
        """Settle all that is left as failed; how many items of each kind that were."""
        with self._lock:
            abandoned = dict(self._in_flight)
            self._waiting.clear()
            for request in list(self._accepted):
                self.settle(request, sent=0)
            return abandoned

    def count_failed(self, items: Items, count: int) -> None:
        """These became no request."""
        self._count(items.send_failed, count)

    def _fits(self, size: int) -> bool:
        return self._size + size <= self._settings.queue_size

    def _accept(self, encoded: Encoded, size: int) -> Request:
        request = Request(encoded.items, encoded.payload, encoded.count, size)
        self._accepted.add(request)
        self._size += size
        self._in_flight[encoded.items] += encoded.count
        return request

    def _count(self, name: str, items: int) -> None:
        if items:
            self._counters.add(name, items, exporter=self._exporter)
