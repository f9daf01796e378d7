"""A budget of spans a second: what failed comes first, the rest is sampled so that both stay within.

The control loop sets levels (see :mod:`.sampling`) from how many exchanges there were lately: at once when there are more, by
and by when there are fewer. Until it has followed a burst, the kernel drops what exceeds twice the budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..pipeline.counters import Counters
from .sampling import level_of

#: seconds between two settings of the levels
INTERVAL: Final = 0.5
#: what failed may have of the budget; the random rest shows what is usual
_FAILED_SHARE: Final = 0.75
#: of a rate that falls, what is kept a step
_MEMORY: Final = 0.7
_BURST: Final = 2.0


class Settings(NamedTuple):
    """By class: the rest, what failed. levels: of sampling. room: spans until the next setting, at most."""

    levels: tuple[int, int]
    room: tuple[int, int]


class Budget:
    """max_per_second: spans of this machine, both ends of an exchange counted."""

    def __init__(self, max_per_second: float) -> None:
        self._budget = max_per_second
        self._observed = self._failed = 0
        self._rates = [0.0, 0.0]  # a second: the rest, what failed

    def first(self) -> Settings:
        """Before anything is known."""
        return self._settings()

    def follow(self, observed: int, failed: int, seconds: float) -> Settings:
        """observed, failed: of exchanges, since the start. seconds: since the last time."""
        new_failed = failed - self._failed
        new = observed - self._observed - new_failed
        self._observed, self._failed = observed, failed
        for which, count in enumerate((new, new_failed)):
            rate = max(0, count) / seconds
            self._rates[which] = max(rate, _MEMORY * self._rates[which] + (1 - _MEMORY) * rate)
        return self._settings()

    def _settings(self) -> Settings:
        rest, failed = self._rates
        for_failed = max(_FAILED_SHARE * self._budget, self._budget - rest)
        for_rest = self._budget - min(failed, for_failed)
        levels = level_of(for_rest / rest if rest else 1.0), level_of(for_failed / failed if failed else 1.0)
        spans = INTERVAL * _BURST
        return Settings(levels, (max(1, round(for_rest * spans)), max(1, round(for_failed * spans))))


class Pacer:
    """Lets the kernel and the observer follow a budget; does nothing without one. For the drain's thread."""

    def __init__(
        self,
        max_per_second: float | None,
        counters: Counters,
        set_kernel: Callable[[Sequence[int], Sequence[int]], None],
        set_levels: Callable[[tuple[int, int]], None],
    ) -> None:
        self._budget = None if max_per_second is None else Budget(max_per_second)
        self._counters = counters
        self._set_kernel = set_kernel
        self._set_levels = set_levels
        self._last = time.monotonic()
        if self._budget is not None:
            self._set(self._budget.first())

    def pace(self) -> None:
        """Called often; does something every INTERVAL."""
        now = time.monotonic()
        if self._budget is None or now - self._last < INTERVAL:
            return
        sums = self._counters.snapshot()
        observed = sums.get(("wirespan.exchanges.observed", ()), 0)
        failed = sums.get(("wirespan.exchanges.failed", ()), 0)
        self._set(self._budget.follow(observed, failed, now - self._last))
        self._last = now

    def _set(self, settings: Settings) -> None:
        self._set_kernel(settings.levels, settings.room)
        self._set_levels(settings.levels)
