"""Between a receiver and its pipelines: where batches go can change while the receiver runs.

A pause holds back whoever comes, and ends when everybody who was inside is through; so what stands behind may be taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any

from ..pipeline.component import Outcome
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import SpanBatch


class Switch:
    """Safe from any thread."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._changed = Condition()  # guards what follows
        self._inside = 0
        self._paused = False

    def consume(self, batch: SpanBatch) -> None:
        with self._entered() as consumer:
            consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        with self._entered() as consumer:
            outcome: Outcome = consumer.consume_encoded(batch)
            return outcome

    def pause(self, seconds: float) -> bool:
        """Let nobody in any more. Whether nobody is inside within this time."""
        with self._changed:
            self._paused = True
            return self._changed.wait_for(lambda: not self._inside, seconds)

    def resume(self, consumer: Any = None) -> None:
        """Go on, with another consumer if one is given."""
        with self._changed:
            self._consumer = consumer or self._consumer
            self._paused = False
            self._changed.notify_all()

    @contextmanager
    def _entered(self) -> Iterator[Any]:
        with self._changed:
            self._changed.wait_for(lambda: not self._paused)
            self._inside += 1
            consumer = self._consumer
        try:
            yield consumer
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()
