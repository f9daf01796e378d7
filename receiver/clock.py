"""Kernel time (CLOCK_MONOTONIC) to Unix time, the same for the same instant in whatever batch it comes.

The difference between the wall clock and the monotonic clock is sampled at every drain, *after* the rings' producer
positions were read, so that every time of a batch lies before its sample. Between two samples the difference is
interpolated. A conversion therefore never depends on samples that came later than the batch: a client's start in one
batch stays before its server's start in the next.

The two clocks cannot be read at once. The wall clock is read between two readings of the monotonic clock, which bounds
the difference from both sides; of a few such brackets the tightest counts, and the difference of the last sample is
kept as long as it lies within, so that a reading's jitter never shows. Linux slews both clocks alike: the difference
then stays constant for days, and the history holds two knots.

What a slew cannot explain is a step: the wall clock was set, or the machine was suspended, during which the monotonic
clock stands. A step is two knots one nanosecond apart: times before the sample that found it keep the old difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..pipeline.counters import Counters
from ..pipeline.spans import UInt64Array

#: of interpolation: 13 minutes of 20 samples a second while the difference changes, unlimited while it does not
KNOTS: Final = 16_384

_BRACKETS = 5
_OFFSETS = Path("/proc/self/timens_offsets")
#: the most that the kernel's NTP discipline slews a clock (include/linux/timex.h, MAXFREQ)
_SLEW_PPM = 500
_INT64_MAX = 2**63 - 1

ReadClock = Callable[[], int]


@cache
def _offset(clock: str) -> int:
    """Nanoseconds by which this process' time namespace is ahead of the kernel in ``monotonic`` or ``boottime``; see
    time_namespaces(7). It does not change once a process is inside."""
    try:
        rows = [line.split() for line in _OFFSETS.read_text().splitlines()]
    except OSError:  # before Linux 5.6, or without CONFIG_TIME_NS
        return 0
    return sum(int(seconds) * 1_000_000_000 + int(ns) for name, seconds, ns in rows if name == clock)


def kernel_now() -> int:
    """CLOCK_MONOTONIC as the kernel's programs read it, ns: a container may have a time namespace of its own."""
    return time.monotonic_ns() - _offset("monotonic")


def boot_time_here(time_ns: int) -> int:
    """A time of the kernel since boot, ns, as /proc shows it to this process."""
    return time_ns + _offset("boottime")


class Clock:
    """Converts kernel times. Not thread-safe: it belongs to the drain's thread.

    read_monotonic, read_realtime: ns of CLOCK_MONOTONIC and CLOCK_REALTIME. Counts ``wirespan.clock.steps``.
    """

    def __init__(
        self,
        counters: Counters,
        read_monotonic: ReadClock = kernel_now,
        read_realtime: ReadClock = time.time_ns,
    ) -> None:
        self._counters = counters
        self._read_monotonic = read_monotonic
        self._read_realtime = read_realtime
        # Knots are appended up to twice the limit, then the younger half moves to the front.
        self._times = np.empty(2 * KNOTS, np.int64)
        self._offsets = np.empty(2 * KNOTS, np.int64)
        self._count = 0
        now, low, high = self._bracket()
        self._take(now, low, high, (low + high) // 2)

    def sample(self) -> None:
        """Take the difference now. Call it at every drain, after the rings' producer positions were read."""
        now, low, high = self._bracket()
        last_time, last_offset = self._last()
        elapsed = now - last_time
        if elapsed <= 0:
            return
        offset = min(max(last_offset, low), high)
        if self._is_step(elapsed, abs(offset - last_offset)):
            self._counters.add("wirespan.clock.steps", 1)
            self._append(now - 1, last_offset)
            offset = (low + high) // 2
        else:
            offset = max(offset, last_offset - elapsed)  # or Unix time would run backwards
        self._take(now, low, high, offset)

    def to_unix(self, times: UInt64Array) -> UInt64Array:
        """Nanoseconds since the Unix epoch, (n,), of kernel times in ns.

        Exact integers; never decreasing in the kernel time but for a step back of the wall clock. Times outside of
        the history take the difference of its nearer end.
        """
        knots, offsets = self._times[: self._count], self._offsets[: self._count]
        at = times.astype(np.int64)
        known = np.clip(at, knots[0], knots[-1])
        left = np.searchsorted(knots, known, side="right") - 1
        right = np.minimum(left + 1, self._count - 1)
        span = np.maximum(knots[right] - knots[left], 1)
        change = (offsets[right] - offsets[left]) * (known - knots[left]) // span
        converted: npt.NDArray[np.int64] = at + offsets[left] + change
        return converted.astype(np.uint64)

    def _bracket(self) -> tuple[int, int, int]:
        """A monotonic time, and the bounds of the difference then."""
        readings = [(self._read_monotonic(), self._read_realtime(), self._read_monotonic()) for _ in range(_BRACKETS)]
        before, wall, after = min(readings, key=lambda reading: reading[2] - reading[0])
        return after, wall - after, wall - before

    def _take(self, now: int, low: int, high: int, offset: int) -> None:
        self._uncertainty = max(high - offset, offset - low)
        self._append(now, offset)

    def _is_step(self, elapsed: int, change: int) -> bool:
        """Whether neither a slew nor the uncertainty of the last sample explains a change; also one over so long a
        time without samples that it cannot be interpolated in 63 bits."""
        return change > elapsed * _SLEW_PPM // 1_000_000 + self._uncertainty or change * elapsed > _INT64_MAX

    def _last(self) -> tuple[int, int]:
        return int(self._times[self._count - 1]), int(self._offsets[self._count - 1])

    def _append(self, when: int, offset: int) -> None:
        """A knot; the last one is moved instead where that changes no conversion."""
        n = self._count
        if n and when <= self._times[n - 1]:
            return
        if n >= 2 and self._offsets[n - 2] == self._offsets[n - 1] == offset:
            self._times[n - 1] = when
            return
        if n == 2 * KNOTS:
            for knots in (self._times, self._offsets):
                knots[:KNOTS] = knots[KNOTS:]
            n = KNOTS
        self._times[n], self._offsets[n] = when, offset
        self._count = n + 1
