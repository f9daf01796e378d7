"""What the agent costs the machine, in cores: its own threads, and its programs in the kernel, in the time of those whose packets
they see. The same of the process alone, under the Collector's names, is among the counters."""

from __future__ import annotations

import time
from typing import Any

from ..pipeline.counters import Counters
from ..pipeline.memory import resident_bytes

_HOOKS = "wirespan.hooks.duration"


def count_process(counters: Counters) -> None:
    """The Collector's metrics of its own process."""
    started = time.monotonic()
    counters.duration_source(
        lambda: {
            ("otelcol_process_cpu_seconds", ()): time.process_time(),
            ("otelcol_process_uptime", ()): time.monotonic() - started,
        }
    )
    counters.gauge("otelcol_process_memory_rss", resident_bytes)


class OwnCost:
    """For the log, once a minute."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._began, self._process, self._hooks = self._now()

    @property
    def seconds(self) -> float:
        """Since the last call of ``fields``."""
        return time.monotonic() - self._began

    def fields(self) -> dict[str, Any]:
        """Since the last call: cores of this process, and of the hooks."""
        began, process, hooks = self._began, self._process, self._hooks
        self._began, self._process, self._hooks = self._now()
        seconds = max(self._began - began, 1e-3)
        return {
            "cores_agent": round((self._process - process) / seconds, 4),
            "cores_hooks": round((self._hooks - hooks) / seconds, 4),
        }

    def _now(self) -> tuple[float, float, float]:
        hooks = sum(seconds for (name, _), seconds in self._counters.durations().items() if name == _HOOKS)
        return time.monotonic(), time.process_time(), hooks
