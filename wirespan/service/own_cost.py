"""What the agent costs the machine, in cores: its own threads, and its programs in the kernel, in the time of those whose packets
they see."""

from __future__ import annotations

import time
from typing import Any

from ..pipeline.counters import Counters


class OwnCost:
    """For the log, once a minute."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._began, self._process, self._hooks = self._now()

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
        return time.monotonic(), time.process_time(), sum(self._counters.durations().values())
