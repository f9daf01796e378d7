"""What the log says once a minute: how many spans, how many of them failed, and of which services.

Counted from the batches as receivers hand them on. Of spans that came by OTLP only the number is known: they are not
decoded. What failed, and which service a resource is, is looked up once a
fragment and once a resource, so a batch costs a few passes of numpy.
"""

from __future__ import annotations

import time
from collections import Counter
from threading import Lock
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..pipeline.component import Outcome
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import FragmentTable, SpanBatch, StatusCode

_SERVICES: Final = 3
#: services counted by name in a minute; spans of others are counted all the same
SERVICES_KEPT: Final = 4_096

_NONE: Final = np.empty(0, np.bool_)


class Tally:
    """A consumer that passes nothing on. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards all below
        self._failures: WeakKeyDictionary[FragmentTable, npt.NDArray[np.bool_]] = WeakKeyDictionary()
        self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._spans = self._errors = self._received = 0
        self._services: Counter[str] = Counter()

    def consume(self, batch: SpanBatch) -> None:
        with self._lock:
            failed = np.zeros(len(batch), np.bool_)
            for column in batch.fragments:
                failures = self._failed(column.table)
                if failures.any():  # most tables have none
                    failed |= failures[column.ids]
            self._spans += len(batch)
            self._errors += int(failed.sum())
            counts = np.bincount(batch.resource)
            for resource in np.flatnonzero(counts).tolist():
                self._add(str(batch.resources.resources[resource].get("service.name", "")), int(counts[resource]))

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        with self._lock:
            self._received += len(batch)
        return Outcome.TAKEN

    def fields(self) -> dict[str, Any]:
        """For the log: what was counted since the last call."""
        with self._lock:
            seconds = max(time.monotonic() - self._began, 1.0)
            services = [f"{name} {count}" for name, count in self._services.most_common(_SERVICES)]
            counted = {"spans": self._spans, "per_second": round(self._spans / seconds, 1), "errors": self._errors}
            counted |= {"received_spans": self._received} if self._received else {}
            self._begin()
        return counted | ({"services": ", ".join(services)} if services else {})

    def _add(self, service: str, count: int) -> None:
        if service in self._services or len(self._services) < SERVICES_KEPT:
            self._services[service] += count

    def _failed(self, table: FragmentTable) -> npt.NDArray[np.bool_]:
        """Of each fragment of the table whether its spans failed."""
        failed = self._failures.get(table, _NONE)
        if len(failed) < len(table):
            new = [fragment.status is StatusCode.ERROR for fragment in table.fragments[len(failed) :]]
            self._failures[table] = failed = np.concatenate((failed, np.array(new, np.bool_)))
        return failed
