"""What a running agent says of itself to ``wirespan status``: pipelines, counts and rates, cost, configuration.

Rates and cost are of the second in which somebody asks, so they cost nothing while nobody does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from .. import __version__
from ..pipeline.counters import CounterKey, Counters
from ..pipeline.memory import resident_bytes
from .own_cost import OwnCost
from .printing import printed
from .service import Service

State: TypeAlias = Literal["starting", "running", "reloading", "stopping"]

#: over which rates and cost are measured
WINDOW_SECONDS: Final = 1.0


class Status:
    """state is set by whoever changes it. file: where the configuration comes from."""

    def __init__(self, service: Service, file: str, counters: Counters) -> None:
        self._service = service
        self.state: State = "starting"
        self._file = file
        self._counters = counters
        self._started = time.time()

    def read(self, wait: Callable[[float], object] = time.sleep) -> dict[str, Any]:
        """Everything, as JSON has it. Takes the window. wait: for so many seconds, or until it is no use any more."""
        cost, began, before = OwnCost(self._counters), time.monotonic(), self._sums()
        wait(WINDOW_SECONDS)
        after, seconds = self._sums(), max(time.monotonic() - began, 1e-3)
        configuration = self._service.configuration
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": self.state,
            "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            "uptime_seconds": round(time.time() - self._started, 1),
            "cost": cost.fields() | {"memory_bytes": resident_bytes()},
            "extensions": list(configuration.extensions),
            "pipelines": [
                {
                    "id": pipeline.id,
                    "signal": pipeline.signal,
                    "receivers": list(pipeline.receivers),
                    "processors": list(pipeline.processors),
                    "exporters": list(pipeline.exporters),
                }
                for pipeline in configuration.pipelines
            ],
            "exchanges": [identity.fields() for identity in self._service.identities()],
            "sums": [
                {**_described(key), "value": value, "per_second": round((value - before.get(key, 0)) / seconds, 2)}
                for key, value in sorted(after.items())
            ],
            "gauges": [{**_described(key), "value": value} for key, value in sorted(self._counters.gauges().items())],
            "configuration": {"file": self._file, "text": printed(configuration.tree)},
        }

    def _sums(self) -> Mapping[CounterKey, float]:
        return {**self._counters.snapshot(), **self._counters.durations()}


def _described(key: CounterKey) -> dict[str, Any]:
    name, attributes = key
    return {"name": name, "attributes": dict(attributes)}
