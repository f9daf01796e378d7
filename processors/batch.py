"""``batch``: joins requests, so that backends get fewer and larger ones.

The requests of one signal are fields of the same kind one behind the other, so joining is concatenation, and nothing is
decoded. A batch goes on once it has ``send_batch_size`` items, or ``timeout`` after its first; it has no more bytes than
exporters put into a request, or it would be cut there again.

A request that is taken here is acknowledged. Behind an exporter with ``block_on_overflow`` the sending thread waits, and then
what finds no room here is refused, so that senders keep it. Spans in columns are batches already and pass at once.
"""

from __future__ import annotations

import math
import time
from collections import deque
from threading import Condition, Thread
from typing import Annotated, Final, NamedTuple, Self

from pydantic import Field, model_validator

from ..pipeline.component import ALL_SIGNALS, ComponentConfig, Context, Factory, Outcome, SpanConsumer
from ..pipeline.defects import DROPPED
from ..pipeline.duration import Duration, within
from ..pipeline.encoded import EncodedBatch
from ..pipeline.otlp import DEFAULT_MAX_BYTES
from ..pipeline.scheduling import schedule_as_batch
from ..pipeline.spans import SpanBatch
from ..pipeline.splitting import cut
from .items import REFUSED

#: bytes of requests that wait to be joined; a single larger one is taken when nothing waits
HELD_BYTES: Final = 33_554_432

_FULL: Final = "otelcol_processor_batch_batch_size_trigger_send"
_DUE: Final = "otelcol_processor_batch_timeout_trigger_send"


class BatchSettings(ComponentConfig):
    """send_batch_size: items that make a batch. timeout: longest wait for them; 0: what comes goes on at once.
    send_batch_max_size: larger requests are cut; 0: none is."""

    send_batch_size: int = Field(default=8192, ge=1, le=1_000_000)
    timeout: Annotated[Duration, within("1ms", "1h", or_zero=True)] = 0.2
    send_batch_max_size: int = Field(default=0, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _the_largest_is_not_smaller(self) -> Self:
        if 0 < self.send_batch_max_size < self.send_batch_size:
            raise ValueError(
                f"send_batch_max_size {self.send_batch_max_size} is less than send_batch_size {self.send_batch_size}"
            )
        return self


class _Waiting(NamedTuple):
    """due: when it has waited for as long as it may (``time.monotonic``)."""

    batch: EncodedBatch
    due: float


class BatchProcessor:
    def __init__(self, settings: BatchSettings, context: Context, consumer: SpanConsumer) -> None:
        self._settings, self._context, self._consumer = settings, context, consumer
        self._changed = Condition()  # guards all below
        self._waiting: deque[_Waiting] = deque()
        self._items = self._bytes = self._sending = 0
        self._stopping = False
        self._thread = Thread(target=self._run, name=context.id, daemon=True)
        context.counters.gauge(
            "wirespan.processor.in_flight_items", self._in_flight, processor=context.id, pipeline=context.pipeline
        )

    def start(self) -> None:
        self._thread.start()

    def consume(self, batch: SpanBatch) -> None:
        self._consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        with self._changed:
            crowded = self._waiting and self._bytes + len(batch.data) > HELD_BYTES
            if crowded or self._stopping:
                name = REFUSED[batch.signal]
                context = self._context
                context.counters.add(name, len(batch), processor=context.id, pipeline=context.pipeline)
                return Outcome.BUSY
            self._waiting.append(_Waiting(batch, time.monotonic() + self._settings.timeout))
            self._items += len(batch)
            self._bytes += len(batch.data)
            if len(self._waiting) == 1 or self._is_full:
                self._changed.notify()
        return Outcome.TAKEN

    def shutdown(self, deadline: float) -> None:
        """Send what waits, in half of the time that is left: an exporter without room needs the other half. What is left
        then is lost."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(max(0.0, (deadline - time.monotonic()) / 2))
        with self._changed:
            for batch, _ in self._waiting:
                self._context.counters.add(DROPPED[batch.signal], len(batch), reason="shutdown")
            self._waiting.clear()
            self._items = self._bytes = 0

    def settle(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _in_flight(self) -> int:
        with self._changed:
            return self._items + self._sending

    @property
    def _is_full(self) -> bool:
        return self._items >= self._settings.send_batch_size or self._bytes >= DEFAULT_MAX_BYTES

    def _run(self) -> None:
        schedule_as_batch()
        while joined := self._next():
            for part in cut(joined, self._settings.send_batch_max_size):
                self._consumer.consume_encoded(part)  # what it does not take it counts
            with self._changed:
                self._sending = 0

    def _next(self) -> EncodedBatch | None:
        """The next batch, as soon as it is full or due; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return None
            wait = max(0.0, self._waiting[0].due - time.monotonic())
            self._changed.wait_for(lambda: self._is_full or self._stopping, wait)
            if not self._waiting:  # shutdown has given them up
                return None
            self._context.counters.add(_FULL if self._is_full else _DUE, 1, processor=self._context.id)
            return self._take()

    def _take(self) -> EncodedBatch:
        """As many of those that wait as make a batch."""
        largest = self._settings.send_batch_max_size or math.inf
        first = self._waiting.popleft().batch
        taken, items, size = [first.data], len(first), len(first.data)
        while self._waiting and items < self._settings.send_batch_size:
            following = self._waiting[0].batch
            if size + len(following.data) > DEFAULT_MAX_BYTES or items + len(following) > largest:
                break
            self._waiting.popleft()
            taken.append(following.data)
            items, size = items + len(following), size + len(following.data)
        self._items, self._bytes, self._sending = self._items - items, self._bytes - size, items
        return EncodedBatch(first.signal, b"".join(taken), items)


FACTORY = Factory(
    "processor", "batch", BatchSettings, BatchProcessor, signals=ALL_SIGNALS, encoded_spans=True, holds=True
)
