"""A log that a failing backend cannot flood: of each message one line in a while, and how many were held back."""

from __future__ import annotations

import logging
import time
from threading import Lock

_INTERVAL = 10.0


class ThrottledLog:
    """Logs each constant message at most once in ``interval`` seconds. Safe from any thread."""

    def __init__(self, logger: logging.Logger, exporter: str, interval: float = _INTERVAL) -> None:
        self._logger = logger
        self._exporter = exporter
        self._interval = interval
        self._lock = Lock()
        self._next: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def warning(self, message: str, **fields: object) -> None:
        """Log, or count as held back. ``message`` is constant text; what varies goes into ``fields``."""
        now = time.monotonic()
        with self._lock:
            if now < self._next.get(message, now):
                self._held_back[message] = self._held_back.get(message, 0) + 1
                return
            self._next[message] = now + self._interval
            held_back = self._held_back.pop(message, 0)
        repeated = {"held_back": held_back} if held_back else {}
        self._logger.warning(message, extra={"exporter": self._exporter, **fields, **repeated})
