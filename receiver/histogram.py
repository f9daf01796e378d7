"""The histograms of bpf/histogram.h: OpenTelemetry's exponential histograms at scale 3, of durations in ns.

Bucket ``i`` holds durations in (2^(i/8), 2^((i+1)/8)] s. The kernel counts in slots: slot 0 is what is not above 2^-18 s,
slot ``s`` from 1 on the bucket ``LOWEST + s - 1``, and the last one all that is longer, too.
"""

from __future__ import annotations

from functools import cache
from math import isqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SCALE: Final = 3
#: bucket of slot 1
LOWEST: Final = -18 * 8
SLOTS: Final = 193
#: seconds; at most so much is in slot 0
ZERO_THRESHOLD: Final = 2.0**-18

_SECOND: Final = 1_000_000_000
_SCALES: Final = 7
_STEPS: Final = 256
_SLOT_TABLE: Final = np.dtype([("limit", "<u8", 256), ("first", "u1", _SCALES * _STEPS)])


def _largest(bucket: int) -> int:
    """The largest number of ns in a bucket: the whole part of 10^9 * 2^((bucket + 1) / 8), exactly."""
    power = bucket + 1
    shift = 256  # so that the root of a negative power has as many digits as it needs
    value = _SECOND**8 << (shift * 8 + power)
    return isqrt(isqrt(isqrt(value))) >> shift


@cache
def limits() -> npt.NDArray[np.uint64]:
    """The largest ns of each slot, (SLOTS,); of the last one, the largest number there is."""
    bounded = [_largest(LOWEST + slot - 1) for slot in range(SLOTS - 1)]
    return np.array([*bounded, (1 << 64) - 1], np.uint64)


def slots_of(durations: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The slot of each duration in ns."""
    return np.searchsorted(limits(), durations, side="left").astype(np.int64)


def slot_table() -> npt.NDArray[Any]:
    """What the kernel is told before the load: a ``struct slot_table``, shape ()."""
    table = np.zeros((), _SLOT_TABLE)
    table["limit"][:] = np.uint64((1 << 64) - 1)
    table["limit"][:SLOTS] = limits()
    scales, steps = np.indices((_SCALES, _STEPS), np.uint64)
    table["first"] = slots_of((steps << (np.uint64(4) * scales + np.uint64(8))).ravel())
    return table
