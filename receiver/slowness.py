"""From which duration on an exchange is slow: learned for each slot of :mod:`.policies`, so that about so many are as are wanted.

The kernel counts how many took longer than half of that time, that time, and twice as long. In between, and beyond, the share of
those that take longer than t is taken for a power of t. So a threshold is found in a few steps, without a histogram.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .policies import COUNTED_FAILED, NEVER, POLICIES, Slots

#: exchanges of a slot before any of it is slow
LEARN: Final = 100
#: of the mean: where to begin
_BEGIN: Final = 4.0
#: as many slow ones are to be expected before the threshold moves, so that it does not follow chance
_EVIDENCE: Final = 8.0
#: octaves a step, at most, and the part of a smaller step that is made
_STRIDE: Final = 2.0
_CAUTION: Final = 0.5

_FEWEST: Final = 0.5  # for the logarithm of none
_SHORTEST: Final = 2.0

Floats = npt.NDArray[np.float64]


class Slowness:
    """fixed: seconds, or None: learned. ``ns``: (POLICIES,), of each slot; NEVER until it is known."""

    def __init__(self, fixed: float | None) -> None:
        self._fixed = fixed is not None
        self._unknown = NEVER if fixed is None else round(fixed * 1e9)
        self.ns = np.full(POLICIES, self._unknown, np.uint64)
        self._seen = np.zeros((POLICIES, COUNTED_FAILED))
        self._durations = np.zeros(POLICIES)

    def forget(self, slots: Slots) -> None:
        self.ns[slots] = self._unknown
        self._seen[slots] = 0
        self._durations[slots] = 0

    def learn(self, slots: Slots, counts: Floats, durations: Floats, wanted: Floats) -> None:
        """counts: (n, 4), new exchanges of these slots, from the fast to the slowest. durations: (n,), their sums in ns, those
        that failed included. wanted: (n,), which share of them is to be slow."""
        if self._fixed:
            return
        self._seen[slots] += counts
        self._durations[slots] += durations
        unknown = self.ns[slots] == NEVER
        self._begin(slots[unknown])
        self._move(slots[~unknown], wanted[~unknown])

    def _begin(self, slots: Slots) -> None:
        seen = self._seen[slots].sum(axis=1)
        begun = seen >= LEARN
        mean = self._durations[slots[begun]] / seen[begun]
        self._set(slots[begun], _BEGIN * mean)

    def _move(self, slots: Slots, wanted: Floats) -> None:
        seen = self._seen[slots]
        expected = wanted * seen.sum(axis=1)
        slow = seen[:, 2] + seen[:, 3]
        ready = np.maximum(expected, slow / 4) >= _EVIDENCE
        slots, seen, expected = slots[ready], seen[ready], expected[ready]
        self._set(slots, self.ns[slots] * 2.0 ** _steps(seen, expected))

    def _set(self, slots: Slots, ns: Floats) -> None:
        self.ns[slots] = np.clip(ns, _SHORTEST, NEVER / 2).astype(np.uint64)
        self._seen[slots] = 0
        self._durations[slots] = 0


def _steps(seen: Floats, expected: Floats) -> Floats:
    """By how many octaves thresholds are to move. seen: (n, 4)."""
    # longer than half of the threshold, than it, than twice as long
    longer = np.log2(np.maximum(np.cumsum(seen[:, :0:-1], axis=1)[:, ::-1], _FEWEST))
    aim = np.log2(np.maximum(expected, _FEWEST))
    half, now, twice = longer.T
    downwards = (now - aim) / np.maximum(half - now, 1e-9)
    upwards = (now - aim) / np.maximum(now - twice, 1e-9)
    steps = np.where(aim > half, -_STRIDE, np.where(aim < twice, _STRIDE, np.where(aim > now, downwards, upwards)))
    return np.where(np.abs(steps) > 1, np.clip(steps, -_STRIDE, _STRIDE), _CAUTION * steps)
