"""Sums over a sliding window, many at once.

A window is some slots of equal length, each an array of sums; the oldest is emptied and taken for new ones when the
newest is full. So it covers between ``slots - 1`` and ``slots`` slots, and a rate is what it holds by what it covers.
Durations are counted in buckets, :data:`PER_OCTAVE` of them a power of two, so that a quantile is off by 2.2 % at most.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

PER_OCTAVE: Final = 16
#: exponents of two, in ns: 128 ns to 18 minutes; what is shorter or longer counts in the first or last bucket
_SHORTEST, _LONGEST = 7, 40
BUCKETS: Final = (_LONGEST - _SHORTEST) * PER_OCTAVE


class SlidingSums:
    """``size`` sums, each over a window and over all time. seconds: of a slot. Times are those of a monotonic clock."""

    def __init__(self, size: int, slots: int, seconds: float, now: float) -> None:
        self._slots = np.zeros((slots, size), np.uint32)
        self.total = np.zeros(size, np.int64)
        self._seconds = seconds
        self._newest = 0
        self._began = now  # of the newest slot
        self._filled = 1  # slots that time has reached

    def add(self, indices: Indices) -> None:
        """One to each, to one that occurs twice two."""
        np.add.at(self._slots[self._newest], indices, 1)
        np.add.at(self.total, indices, 1)

    def advance(self, now: float) -> None:
        """Call it before ``add`` and before reading."""
        passed = int((now - self._began) / self._seconds)
        if passed <= 0:
            return
        self._began += passed * self._seconds
        self._filled = min(self._filled + passed, len(self._slots))
        for _ in range(min(passed, len(self._slots))):
            self._newest = (self._newest + 1) % len(self._slots)
            self._slots[self._newest] = 0

    def covered(self, now: float) -> float:
        """Seconds that the window covers."""
        return (self._filled - 1) * self._seconds + now - self._began

    def recent(self, begin: int = 0, end: int | None = None) -> npt.NDArray[np.int64]:
        """The sums from ``begin`` to ``end`` over the window."""
        sums: npt.NDArray[np.int64] = self._slots[:, begin:end].sum(axis=0, dtype=np.int64)
        return sums

    def move(self, begin: int, end: int, to: int) -> None:
        """Add the sums from ``begin`` to ``end`` to those from ``to`` on, and begin them anew at 0."""
        for sums in (*self._slots, self.total):
            sums[to : to + end - begin] += sums[begin:end]
            sums[begin:end] = 0


class DurationWindow:
    """Quantiles of ``rows`` sets of durations, over a window and over all time."""

    def __init__(self, rows: int, slots: int, seconds: float, now: float) -> None:
        self._counts = SlidingSums(rows * BUCKETS, slots, seconds, now)

    def add(self, rows: Indices, nanoseconds: npt.NDArray[Any]) -> None:
        """(n,) rows and as many durations."""
        octaves = np.log2(np.maximum(nanoseconds, 1).astype(np.float64)) - _SHORTEST
        buckets = np.clip((octaves * PER_OCTAVE).astype(np.int64), 0, BUCKETS - 1)
        self._counts.add(rows * BUCKETS + buckets)

    def advance(self, now: float) -> None:
        self._counts.advance(now)

    def quantiles(self, row: int, *shares: float, all_time: bool = False) -> list[float | None]:
        """Seconds that these shares of a row's durations are not longer than; None of a row without any."""
        begin, end = row * BUCKETS, (row + 1) * BUCKETS
        counts = self._counts.total[begin:end] if all_time else self._counts.recent(begin, end)
        return [_quantile(counts, share) for share in shares]

    def move(self, row: int, to: int) -> None:
        self._counts.move(row * BUCKETS, (row + 1) * BUCKETS, to * BUCKETS)


def _quantile(counts: npt.NDArray[np.int64], share: float) -> float | None:
    """The middle of the bucket that the duration of this rank is in."""
    ranks = np.cumsum(counts)
    if not ranks[-1]:
        return None
    rank = max(1, int(np.ceil(share * ranks[-1])))
    bucket = int(np.searchsorted(ranks, rank))
    return float(2.0 ** (_SHORTEST + (bucket + 0.5) / PER_OCTAVE)) / 1e9
