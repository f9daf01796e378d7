"""When not to learn: while the spans of a service are unusual, they are no example of what is normal.

Per service it is counted, forgetting within seconds, how many spans there are and how many are in the last hundredth of what is
normal. Where these are many, learning stops until they are few again; at the latest after half an hour, when what was unusual is
the new normal. The same counts say how far in the tail a span of calm traffic must be so that there is one a minute at most.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .features import Flags, Reals, Rows

_HALF_LIFE: Final = 15.0  # s
_TAIL: Final = 0.99
_HELD_FROM: Final = 0.1
_HELD_UNTIL: Final = 0.05
#: in the tail, before it is more than chance
_ENOUGH: Final = 10.0
_LONGEST: Final = 1800.0


class Holding:
    def __init__(self) -> None:
        self._last: float | None = None
        self._total = self._tail = self._seen = np.zeros(0)
        self._since = np.zeros(0)  # NaN: not held
        self._given_up = np.zeros(0, np.bool_)

    def add(self, services: Rows, scores: Reals, weights: npt.NDArray[np.float32], now: float) -> None:
        """Take a batch into account. now: s, of a clock that does not go back."""
        self._grow(int(services.max(initial=-1)) + 1)
        size = len(self._total)
        keep = 1.0 if self._last is None else 0.5 ** (max(now - self._last, 0.0) / _HALF_LIFE)
        self._last = now
        in_tail = scores > _TAIL
        self._total = self._total * keep + np.bincount(services, weights, size)
        self._tail = self._tail * keep + np.bincount(services, weights * in_tail, size)
        self._seen = self._seen * keep + np.bincount(services, in_tail, size)
        share = self._tail / np.maximum(self._total, 1e-9)
        held = ~np.isnan(self._since)
        begins = ~held & ~self._given_up & (share > _HELD_FROM) & (self._seen >= _ENOUGH)
        too_long = held & (now - self._since > _LONGEST)
        calm = share < _HELD_UNTIL
        self._given_up = (self._given_up | too_long) & ~calm
        self._since = np.where(begins, now, np.where(calm | too_long, np.nan, self._since))

    def held(self, services: Rows) -> Flags:
        """(n,) whether not to learn from spans of these."""
        self._grow(int(services.max(initial=-1)) + 1)
        found: Flags = ~np.isnan(self._since[services])
        return found

    def one_a_minute(self, services: Rows) -> Reals:
        """(n,) the score that one normal span of these a minute has."""
        a_minute = self._total[services] * np.log(2) / _HALF_LIFE * 60
        found: Reals = 1 - 1 / np.maximum(a_minute, 1.0)
        return found

    @property
    def count(self) -> int:
        """Services that are held."""
        return int(np.count_nonzero(~np.isnan(self._since)))

    def _grow(self, size: int) -> None:
        more = size - len(self._total)
        if more > 0:
            self._total, self._tail, self._seen = (
                np.concatenate((array, np.zeros(more))) for array in (self._total, self._tail, self._seen)
            )
            self._since = np.concatenate((self._since, np.full(more, np.nan)))
            self._given_up = np.concatenate((self._given_up, np.zeros(more, np.bool_)))
