"""A bounded queue of encoded requests that knows where each span and each data point is.

The requests of all signals share its room and the order in which they came; each is counted, and sent, as of its own.
Each item that was put is at any time in exactly one account: sent (the backend acknowledged it), send_failed (it was
given up), enqueue_failed (it found no room), kept (it is stored for the next run) or in flight. A request is *accepted*
from ``put`` until ``settle``, which happens once, whoever comes first: the consumer that sends it, or shutdown giving it
up. Until then it takes room, waiting or being sent, so the size bounds all that is held.

With a storage a payload is in memory only while it is sent, and ``put`` returns once the request is stored. What is there
from the run before is accepted first, whatever its size, and counted as recovered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from threading import Condition, RLock
from typing import Final

from ..pipeline.component import Context, Outcome
from ..pipeline.encoded import EncodedBatch
from ..pipeline.storage import StorageBusy, StorageError, StoredQueue
from .items import ALL, OF_SIGNAL, Encoded, Items
from .queue_settings import QueueSettings
from .throttled import ThrottledLog
from .waiting import Delivery, Joined, OneByOne, Request, Result, Waiting

#: seconds before a storage is asked again that could not give back a request
_PAUSE: Final = 1.0


class RequestQueue:
    """Safe from any thread."""

    def __init__(self, settings: QueueSettings, context: Context, log: ThrottledLog) -> None:
        self._settings, self._log = settings, log
        self._exporter, self._counters = context.id, context.counters
        self._storage: StoredQueue | None = None
        self._lock = RLock()
        self._work, self._room = Condition(self._lock), Condition(self._lock)
        self._waiting: Waiting = OneByOne() if settings.joined is None else Joined(settings.joined)
        self._accepted: set[Request] = set()
        self._size = 0
        self._in_flight = dict.fromkeys(ALL, 0)
        self._takers = 0
        self._closed = self._abandoned = False
        gauges = {
            "otelcol_exporter_queue_size": lambda: self._size,
            "otelcol_exporter_queue_capacity": lambda: settings.queue_size,
        }
        for items in ALL:
            if items.signal in context.signals:
                gauges[items.in_flight] = partial(self.in_flight, items)
        for name, read in gauges.items():
            context.counters.gauge(name, read, exporter=context.id)

    def keep_in(self, storage: StoredQueue) -> int:
        """Before anything is put. How many requests it had from the run before."""
        entries = storage.entries()
        with self._lock:
            self._storage = storage
            for entry in entries:
                items, size = OF_SIGNAL[entry.signal], self._settings.size(entry.items, entry.size)
                request = self._accept(Request(items, entry.items, size, entry.size, None, time.monotonic(), entry))
                self._count(items.recovered, entry.items)
                self._waiting.add([request])
        return len(entries)

    def in_flight(self, items: Items) -> int:
        """Accepted and not settled. Under the lock, so that no item is seen in two accounts."""
        with self._lock:
            return self._in_flight[items]

    @property
    def short_of_takers(self) -> bool:
        """Whether more deliveries wait than there are threads in ``take``."""
        with self._lock:
            return self._waiting.deliveries() > self._takers

    def put(self, *requests: Encoded) -> list[Request] | None:
        """Queue requests, all or none; if there is no room, wait for it (``block_on_overflow``) or count them as
        enqueue_failed and return None. Raises StorageError if they cannot be stored, and counts them too."""
        accepted = [self._request(request) for request in requests]
        size = sum(request.size for request in accepted)
        with self._lock:
            if self._settings.block_on_overflow and size <= self._settings.queue_size:
                self._room.wait_for(lambda: self._closed or self._fits(size))
            if self._closed or not self._fits(size):
                for request in accepted:
                    self._count(request.items.enqueue_failed, request.count)
                return None
            for request in accepted:
                self._accept(request)
            if self._storage is None:
                self._let_wait(accepted)
        if self._storage is not None:
            self._store(accepted, self._storage)
        return accepted

    def put_aside(self, encoded: Encoded) -> Delivery | None:
        """Accept a request that the caller itself sends at once; None, and enqueue_failed, if closed."""
        with self._lock:
            if self._closed:
                self._count(encoded.items.enqueue_failed, encoded.count)
                return None
            request = self._accept(self._request(encoded))
        return Delivery.of([request])

    def take(self) -> Delivery | None:
        """What is sent next, as soon as there is something; None once closed and empty."""
        while requests := self._due():
            readable = requests if self._storage is None else self._read(requests, self._storage)
            if readable:
                return Delivery.of(readable)
        return None

    def settle(self, delivery: Delivery, sent: int) -> bool:
        """The end of its requests: ``sent`` of their items were acknowledged, the others failed. False if that had come
        already."""
        with self._lock:
            if not self._accepted.issuperset(delivery.requests):
                return False
            for request in delivery.requests:
                self._release(request)
            self._room.notify_all()
            self._count(delivery.items.sent, sent)
            self._count(delivery.items.send_failed, delivery.count - sent)
        if self._storage is not None:
            for request in delivery.requests:
                assert request.entry is not None, "what waits is stored"
                self._storage.remove(request.entry)
        return True

    def close(self) -> None:
        """Accept nothing more; what waits can still be taken."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
            self._room.notify_all()

    def abandon(self) -> dict[Items, int]:
        """Settle all that is left: what is stored is kept for the next run, all else has failed. How many items of each kind
        that were."""
        with self._lock:
            self._abandoned = True
            self._waiting.clear()
            abandoned = dict.fromkeys(ALL, 0)
            for request in list(self._accepted):
                if request.entry is None and self._storage is not None:
                    continue  # whoever is storing it counts it
                abandoned[request.items] += request.count
                self._give_up(request)
            return abandoned

    def count_failed(self, items: Items, count: int) -> None:
        """These became no request."""
        self._count(items.send_failed, count)

    def _request(self, encoded: Encoded) -> Request:
        size, result = self._settings.size_of(encoded), Result() if self._settings.wait_for_result else None
        length, now = len(encoded.payload), time.monotonic()
        return Request(encoded.items, encoded.count, size, length, encoded.payload, now, result=result)

    def _store(self, requests: Sequence[Request], storage: StoredQueue) -> None:
        """Accepted ones; then they wait. Raises StorageError, and then they have found no room."""
        batches = [EncodedBatch(each.items.signal, each.payload or b"", each.count) for each in requests]
        try:
            entries = storage.append(batches)
        except Exception as error:
            with self._lock:
                for request in requests:
                    self._release(request)
                    self._count(request.items.enqueue_failed, request.count)
                self._room.notify_all()
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"the storage failed by a defect: {type(error).__name__}") from error
        with self._lock:
            for request, entry in zip(requests, entries, strict=True):
                request.entry, request.payload = entry, None
            if self._abandoned:
                for request in requests:
                    self._give_up(request)
            else:
                self._let_wait(requests)

    def _read(self, requests: Sequence[Request], storage: StoredQueue) -> list[Request]:
        """Bring them into memory; those that are lost are counted and left out."""
        readable = []
        for request in requests:
            assert request.entry is not None, "what waits is stored"
            try:
                request.payload = storage.read(request.entry)
                readable.append(request)
            except StorageBusy as error:
                self._log.warning("A stored request cannot be read. Will try again.", error=str(error))
                self._put_back(request)
            except StorageError as error:
                if self.settle(Delivery([request], request.items, b"", request.count), sent=0):
                    message = f"A stored request cannot be read. Dropping {request.items.name}."
                    self._log.warning(message, error=str(error), **{request.items.dropped: request.count})
        return readable

    def _put_back(self, request: Request) -> None:
        """Let it wait again, and the caller for a while; once closed, it is kept as it is."""
        with self._lock:
            if not self._closed:
                self._waiting.add([request])
                self._work.wait(_PAUSE)

    def _due(self) -> list[Request]:
        """Waits for them; none once closed and empty."""
        with self._lock:
            self._takers += 1
            while True:
                now = time.monotonic()
                requests = self._waiting.take(now, at_once=self._closed)
                if requests or self._closed:
                    break
                self._work.wait(self._waiting.wait(now))
            self._takers -= 1
            if self._waiting.wait(now) is not None:
                self._work.notify()  # somebody else has to look at the time
            return requests

    def _let_wait(self, requests: Sequence[Request]) -> None:
        self._waiting.add(requests)
        self._work.notify(len(requests))

    def _fits(self, size: int) -> bool:
        return self._size + size <= self._settings.queue_size

    def _accept(self, request: Request) -> Request:
        self._accepted.add(request)
        self._size += request.size
        self._in_flight[request.items] += request.count
        return request

    def _release(self, request: Request) -> None:
        self._accepted.remove(request)
        self._size -= request.size
        self._in_flight[request.items] -= request.count

    def _give_up(self, request: Request) -> None:
        self._release(request)
        self._count(request.items.send_failed if request.entry is None else request.items.kept, request.count)
        if request.result is not None:
            request.result.set(Outcome.BUSY)

    def _count(self, name: str, items: int) -> None:
        if items:
            self._counters.add(name, items, exporter=self._exporter)
