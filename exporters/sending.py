"""What the OTLP exporters share: batches become requests, consumers send them, failures are retried.

``consume`` encodes a batch into requests and queues them, ``consume_encoded`` queues what is encoded, so that a slow backend does not hold up the pipeline.
Consumer threads take requests out and send each until the backend took it, refused it for good, or
``max_elapsed_time`` is over. A consumer starts when a request finds none idle: one serves a backend that keeps up, and
the others of the Collector's ten cost nothing until they are needed.

At shutdown what is queued is sent until the deadline. A backend that nobody could reach before gets one last attempt; not
so if the queue is stored: then nothing is tried twice, and what the backend does not take at once is kept.
"""

from __future__ import annotations

import logging
import math
import random
import time
import traceback
from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread
from typing import Protocol

from ..pipeline.component import Context, Outcome, Signal
from ..pipeline.encoded import EncodedBatch
from ..pipeline.otlp import DEFAULT_MAX_BYTES, encode_requests
from ..pipeline.scheduling import schedule_as_batch
from ..pipeline.spans import SpanBatch
from ..pipeline.splitting import cut, split
from ..pipeline.storage import Storage, StorageError, StoredQueue
from .advice import advice_on
from .items import OF_SIGNAL, SPANS, Encoded, Items
from .otlp_response import PartialSuccess
from .otlp_settings import OtlpSettings
from .request_queue import RequestQueue
from .throttled import ThrottledLog
from .waiting import Delivery

logger = logging.getLogger(__name__)

#: For an attempt that shutdown's deadline has overtaken: a transport takes no timeout of 0.
_LEAST_TIMEOUT = 0.01
#: Seconds of the last attempt to reach a backend that did not answer before. A lost SYN is sent again after one.
_LAST_ATTEMPT = 2.0
#: Seconds that a backend can ask to wait, whatever it says: more than any that means it asks for.
_LONGEST_DELAY = 3600.0


class RetryableError(Exception):
    """The request was not taken, but may be later. delay: the least seconds to wait, if the backend said so.
    unreachable: there is nobody to talk to; one who only is slow to answer is not."""

    def __init__(self, reason: str, delay: float | None = None, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.delay = min(delay or 0.0, _LONGEST_DELAY)
        self.unreachable = unreachable


class PermanentError(Exception):
    """The backend will never take this request."""


class Transport(Protocol):
    """A connection to a backend, used from several threads."""

    def send(self, signal: Signal, payload: bytes, timeout: float) -> PartialSuccess:
        """Deliver an ``Export…ServiceRequest`` of the signal within ``timeout`` seconds; raises RetryableError or
        PermanentError."""

    def close(self) -> None:
        """Free everything; a ``send`` under way may fail."""


class SendingExporter:
    """The exporter behind ``otlp_grpc`` and ``otlp_http``. connect: makes the transport at start; may raise
    StartError."""

    def __init__(self, settings: OtlpSettings, context: Context, connect: Callable[[], Transport]) -> None:
        self._settings, self._context = settings, context
        self._joined = joined = settings.sending_queue.joined
        self._largest = DEFAULT_MAX_BYTES if joined is None else joined.max_bytes  # bytes of a request
        self._connect = connect
        self._transport: Transport | None = None
        self._log = ThrottledLog(logger, context.id)
        self._queue = RequestQueue(settings.sending_queue, context, self._log)
        self._stored: StoredQueue | None = None
        self._lock = Lock()  # guards the consumers and the beginning of shutdown
        self._consumers = 0
        self._backends = {settings.backend(signal) for signal in context.signals}
        # of these, those that answered neither the latest attempt before shutdown nor any since
        self._unreachable: set[str] = set()
        self._stopping = Event()
        self._enough = Event()  # no further request is taken
        self._over = Event()  # all is sent, or nothing more can be
        self._deadline = math.inf

    def facts(self) -> dict[str, str]:
        destinations = {self._settings.destination(signal) for signal in self._context.signals}
        return {"exports_to": ", ".join(sorted(destinations))}

    def start(self) -> None:
        self._transport = self._connect()
        queue = self._settings.sending_queue
        if queue.enabled and queue.storage is not None:
            try:
                self._stored = self._context.extension(queue.storage, Storage).open_queue(self._context.id)
            except BaseException:
                self._transport.close()
                raise
            self._resume(self._stored)

    def _resume(self, stored: StoredQueue) -> None:
        """Go on with what the run before has left."""
        requests = self._queue.keep_in(stored)
        if requests:
            extra = {"exporter": self._context.id, "requests": requests}
            logger.info("Sending what was stored by the run before.", extra=extra)
        for _ in range(min(requests, self._settings.sending_queue.num_consumers)):
            self._start_consumer_if_needed()

    def consume(self, batch: SpanBatch) -> None:
        queued = 0
        try:
            for request in encode_requests(batch, self._largest):
                queued += request.spans
                self._enqueue(SPANS, *self._cut([EncodedBatch("traces", request.payload, request.spans)]))
        except Exception as defect:
            self._lose_by_defect(SPANS, len(batch) - queued, defect)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        items = OF_SIGNAL[batch.signal]
        try:
            return self._enqueue(items, *self._cut(split(batch, self._largest)))
        except Exception as defect:
            self._lose_by_defect(items, len(batch), defect)
            return Outcome.FAILED

    def _enqueue(self, items: Items, *requests: Encoded) -> Outcome:
        """All or none of these."""
        if not self._settings.sending_queue.enabled:
            return max((self._deliver_now(request) for request in requests), default=Outcome.TAKEN)
        try:
            queued = self._queue.put(*requests)
        except StorageError as error:
            message = f"The sending queue cannot be stored. Dropping {items.name}."
            self._warn_of_dropped(message, items, sum(r.count for r in requests), error=str(error))
            return Outcome.BUSY
        if queued is None:
            message = f"Sending queue is full. Dropping {items.name}."
            self._warn_of_dropped(message, items, sum(r.count for r in requests))
            return Outcome.BUSY
        for _ in queued:
            self._start_consumer_if_needed()
        if not self._settings.sending_queue.wait_for_result:
            return Outcome.TAKEN
        return max((request.wait_for_result() for request in queued), default=Outcome.TAKEN)

    def _cut(self, parts: Iterable[EncodedBatch]) -> list[Encoded]:
        """As requests of no more items than a batch may have."""
        if self._joined is not None:
            parts = (piece for part in parts for piece in cut(part, self._joined.max_items))
        return [Encoded(OF_SIGNAL[part.signal], part.data, part.items) for part in parts]

    def _deliver_now(self, encoded: Encoded) -> Outcome:
        delivery = self._queue.put_aside(encoded)
        return Outcome.BUSY if delivery is None else self._deliver(delivery)

    def _lose_by_defect(self, items: Items, count: int, defect: Exception) -> None:
        self._queue.count_failed(items, count)
        self._log.warning(f"Exporting failed by a defect. Dropping {items.name}.", **_trace(defect))

    def shutdown(self, deadline: float) -> None:
        """Send what is queued until ``deadline``; what is left then is kept if it is stored, else send_failed."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._deadline = deadline
            self._stopping.set()
            if not self._consumers:
                self._over.set()
        self._queue.close()
        self._wait_until_over()
        for items, count in self._queue.abandon().items():
            if count and self._stored is None:
                self._warn_of_dropped(f"Not all {items.name} could be sent before shutdown.", items, count)
            elif count:
                extra = {"exporter": self._context.id, items.name.replace(" ", "_"): count}
                logger.info(
                    f"Not all {items.name} could be sent before shutdown. They are kept for the next start.",
                    extra=extra,
                )
        if self._stored is not None:
            self._stored.close()
        if self._transport is not None:
            self._transport.close()

    def _wait_until_over(self) -> None:
        if self._nobody_answers and self._stored is not None:
            self._enough.set()
            self._over.set()
        elif self._nobody_answers:
            self._over.wait(max(0.0, min(_LAST_ATTEMPT, self._deadline - time.monotonic())))
            if self._nobody_answers:
                self._over.set()
        self._over.wait(max(0.0, self._deadline - time.monotonic()))

    @property
    def _nobody_answers(self) -> bool:
        return self._unreachable >= self._backends

    def _start_consumer_if_needed(self) -> None:
        with self._lock:
            few = self._consumers < self._settings.sending_queue.num_consumers
            if few and self._queue.short_of_takers:
                Thread(target=self._run_consumer, name=f"exporter-{self._consumers}", daemon=True).start()
                self._consumers += 1

    def _run_consumer(self) -> None:
        schedule_as_batch()  # whoever started this thread may give way to everyone, and left it that
        while not (self._enough.is_set() or self._over.is_set()) and (delivery := self._queue.take()) is not None:
            self._deliver(delivery)
        with self._lock:
            self._consumers -= 1
            if not self._consumers:
                self._over.set()

    def _deliver(self, delivery: Delivery) -> Outcome:
        """Send until it is taken, refused or given up, and settle it."""
        outcome = Outcome.FAILED
        try:
            outcome = self._send(delivery)
        except Exception as defect:  # a thread that ends here would leave its part of the queue unserved for good
            if self._queue.settle(delivery, sent=0):
                message = f"Exporting failed by a defect. Dropping {delivery.items.name}."
                self._log.warning(message, **_trace(defect))
        delivery.report(outcome)
        return outcome

    def _send(self, request: Delivery) -> Outcome:
        assert self._transport is not None, "consume comes after start"
        retry, name = self._settings.retry_on_failure, request.items.name
        backend = self._settings.backend(request.items.signal)
        give_up = time.monotonic() + (retry.max_elapsed_time or math.inf)
        interval = retry.initial_interval
        while True:
            stopping = self._stopping.is_set()
            try:
                answer = self._transport.send(request.items.signal, request.payload, self._timeout(backend))
            except RetryableError as error:
                if self._is_kept():
                    return Outcome.BUSY
                if self._is_over(backend, error, stopping):
                    self._fail(request, f"Exporting failed. No more retries left. Dropping {name}.", error)
                    return Outcome.BUSY
                delay = max(self._jittered(interval), error.delay)
                last_moment = min(give_up, self._deadline) if stopping else give_up
                if not retry.enabled or time.monotonic() + delay > last_moment:
                    self._fail(request, f"Exporting failed. No more retries left. Dropping {name}.", error)
                    return Outcome.BUSY
                self._log.warning("Exporting failed. Will retry.", **_reason(error), retry_in=f"{delay:.3g}s")
                self._pause(delay, stopping)
                if self._is_kept():
                    return Outcome.BUSY
                interval = min(interval * retry.multiplier, retry.max_interval)
            except PermanentError as error:
                self._unreachable.discard(backend)
                self._fail(request, f"Exporting failed. The backend refuses the {name}. Dropping them.", error)
                return Outcome.FAILED
            else:
                self._unreachable.discard(backend)
                self._succeed(request, answer)
                return Outcome.TAKEN

    def _is_kept(self) -> bool:
        """Whether what the backend did not take stays in the storage. Then nothing more is tried: it would not get on."""
        if self._stored is None or not self._stopping.is_set():
            return False
        self._enough.set()
        return True

    def _is_over(self, backend: str, error: RetryableError, stopping: bool) -> bool:
        """Whether that was the last attempt: made while shutting down, and nobody has answered once more."""
        if not self._stopping.is_set():
            (self._unreachable.add if error.unreachable else self._unreachable.discard)(backend)
        elif stopping and self._nobody_answers and error.unreachable:
            self._over.set()
        return self._over.is_set()

    def _succeed(self, request: Delivery, answer: PartialSuccess) -> None:
        rejected = min(answer.rejected, request.count)
        if self._queue.settle(request, sent=request.count - rejected) and (rejected or answer.message):
            message = f"Partial success. The backend rejected {request.items.name}."
            self._warn_of_dropped(message, request.items, rejected, error=answer.message)

    def _fail(self, request: Delivery, message: str, error: Exception) -> None:
        if self._queue.settle(request, sent=0):
            self._warn_of_dropped(message, request.items, request.count, **_reason(error))

    def _warn_of_dropped(self, message: str, items: Items, count: int, **fields: str) -> None:
        self._log.warning(message, **{items.dropped: count}, **fields)

    def _timeout(self, backend: str) -> float:
        """Seconds for the next attempt."""
        longest = _LAST_ATTEMPT if self._stopping.is_set() and backend in self._unreachable else self._settings.timeout
        return max(_LEAST_TIMEOUT, min(longest, self._deadline - time.monotonic()))

    def _jittered(self, interval: float) -> float:
        """Spread, so that many agents do not return to a recovered backend at once."""
        spread = self._settings.retry_on_failure.randomization_factor
        return interval * random.uniform(1 - spread, 1 + spread)

    def _pause(self, delay: float, stopping: bool) -> None:
        """Wait before the next attempt. What failed before shutdown began (not ``stopping``) is tried again at once
        when it begins, for it may be the last time."""
        (self._over if stopping else self._stopping).wait(delay)


def _trace(defect: Exception) -> dict[str, str]:
    """Where it was raised. Not what it says: that may hold the headers, which are secrets."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(defect.__traceback__), lookup_lines=False)
    places = (f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    return {"error": type(defect).__name__, "trace": ", ".join(places)}


def _reason(error: Exception) -> dict[str, str]:
    return {"error": str(error)} | advice_on(str(error))
