"""Alarmed: a slot of :mod:`.policies` whose share of failures, or whose mean duration, departs from its own history. It has a
part of the budget of spans reserved, so that what is in trouble is there to be looked at.

A window is as long as it takes to see some exchanges. Of each slot two things are remembered, weighted less the longer ago they
were: the share that failed, and the logarithm of the mean duration with how far it usually is from that. A window that departs
counts little, so that what is wrong does not soon become normal, but does become so if it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .policies import COUNTED_FAILED, COUNTS, POLICIES, Slots
from .slowness import Floats

#: of a window: seconds, and exchanges, at least
WINDOW: Final = 5.0
EXCHANGES: Final = 20
#: windows before a slot can be alarmed
LEARN: Final = 12
#: of a new window, its weight; of one that departs
_WEIGHT: Final = 1 / 24
_WEIGHT_IF_DEPARTING: Final = 1 / 192
#: seconds for which a slot stays alarmed after the last window that departed
HOLD: Final = 60.0
#: failures beyond what was usual: so many in a window, such a share, and so many standard deviations
_FAILURES: Final = 5
_SHARE: Final = 0.05
_DEVIATIONS: Final = 4.0
#: how much longer than usual: octaves, and how often the usual deviation
_OCTAVES: Final = 1.0
_USUAL_DEVIATIONS: Final = 5.0

_Flags = npt.NDArray[np.bool_]


class Alarms:
    """began: told of each slot that becomes alarmed, ``errors`` or ``latency``, how many at once."""

    def __init__(self, began: Callable[[str, int], object] | None = None) -> None:
        self._began = began
        self._counts = np.zeros((POLICIES, COUNTS))  # of the window under way
        self._durations = np.zeros(POLICIES)  # ns
        self._seconds = np.zeros(POLICIES)
        self._windows = np.zeros(POLICIES, np.int64)
        self._failed = np.zeros(POLICIES)  # share of exchanges
        self._log = np.zeros(POLICIES)  # log2 of the mean duration
        self._deviation = np.zeros(POLICIES)
        self._left = np.zeros(POLICIES)  # seconds for which a slot is alarmed yet

    def are_on(self, slots: Slots) -> _Flags:
        """Which of these are alarmed."""
        on: _Flags = self._left[slots] > 0
        return on

    def count(self) -> int:
        """How many are alarmed."""
        return int(np.count_nonzero(self._left))

    def forget(self, slots: Slots) -> None:
        for memory in (self._counts, self._durations, self._seconds, self._windows, self._left):
            memory[slots] = 0

    def learn(self, slots: Slots, counts: Floats, durations: Floats, seconds: float) -> None:
        """counts: (n, COUNTS), new exchanges of these slots in so many seconds. durations: (n,), their sums in ns."""
        self._left = np.maximum(self._left - seconds, 0.0)
        self._counts[slots] += counts
        self._durations[slots] += durations
        self._seconds[slots] += seconds
        full = (self._seconds[slots] >= WINDOW) & (self._counts[slots].sum(axis=1) >= EXCHANGES)
        if full.any():
            self._judge(slots[full])

    def _judge(self, slots: Slots) -> None:
        """Those whose window is full."""
        exchanges = self._counts[slots].sum(axis=1)
        failures = self._counts[slots, COUNTED_FAILED]
        log = np.log2(np.maximum(self._durations[slots] / exchanges, 1.0))
        known = self._windows[slots] >= LEARN
        failing = known & self._fail_more(slots, failures, exchanges)
        slower = known & (log - self._log[slots] > np.maximum(_OCTAVES, _USUAL_DEVIATIONS * self._deviation[slots]))
        self._begin(slots, failing, slower)
        self._remember(slots, failures / exchanges, log, failing | slower)
        self._counts[slots] = 0
        self._durations[slots] = self._seconds[slots] = 0
        self._windows[slots] += 1

    def _fail_more(self, slots: Slots, failures: Floats, exchanges: Floats) -> _Flags:
        usual = self._failed[slots]
        chance = np.sqrt(usual * (1 - usual) / exchanges)
        beyond = failures / exchanges - usual
        more: _Flags = (beyond > np.maximum(_SHARE, _DEVIATIONS * chance)) & (failures >= _FAILURES)
        return more

    def _begin(self, slots: Slots, failing: _Flags, slower: _Flags) -> None:
        new = self._left[slots] == 0
        self._left[slots[failing | slower]] = HOLD
        if self._began is None:
            return
        for reason, begun in (("errors", new & failing), ("latency", new & slower & ~failing)):
            if begun.any():
                self._began(reason, int(np.count_nonzero(begun)))

    def _remember(self, slots: Slots, failed: Floats, log: Floats, departing: _Flags) -> None:
        """Of the first windows the mean; then new ones count a constant part."""
        weight = np.maximum(1 / (self._windows[slots] + 1), _WEIGHT)
        weight[departing] = _WEIGHT_IF_DEPARTING
        first = self._windows[slots] == 0
        off = np.where(first, 0.0, np.abs(log - self._log[slots]))
        for memory, now in ((self._failed, failed), (self._log, log), (self._deviation, off)):
            memory[slots] += weight * (now - memory[slots])
