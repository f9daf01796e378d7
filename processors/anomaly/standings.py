"""Which services and operations are most at odds with what is normal, as a table."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .baselines import Baselines
from .features import FEATURES, Reals, Rows, Values
from .keys import KeyTable
from .words import in_words

#: whose share beyond it tells a change that single spans do not
_TAIL: Final = 0.99
#: standard deviations beyond it that are no chance
_SURE: Final = 3.0


class Standing(NamedTuple):
    """odd: spans at the threshold or above. excess: how far their share in the tail is beyond chance, in standard deviations. why:
    what most of those are about."""

    service: str
    operation: str
    spans: int
    odd: int
    excess: float
    why: str


class _Tally:
    __slots__ = ("drivers", "extreme", "odd", "spans", "tail")

    def __init__(self) -> None:
        self.spans = self.odd = self.tail = 0
        self.drivers: Counter[int] = Counter()
        self.extreme: dict[int, tuple[float, int]] = {}  # sum and count of the values, by driver


class Standings:
    def __init__(self) -> None:
        self._tallies: dict[int, _Tally] = {}

    def add(self, keys: Rows, scores: Reals, drivers: npt.NDArray[np.int64], values: Values, threshold: float) -> None:
        """drivers: (n,) the first of each span, -1 without one."""
        known = ~np.isnan(scores)
        for key in np.unique(keys[known]).tolist():
            rows = np.flatnonzero(known & (keys == key))
            tally = self._tallies.setdefault(key, _Tally())
            tail = rows[scores[rows] > _TAIL]
            tally.spans += len(rows)
            tally.odd += int(np.count_nonzero(scores[rows] >= threshold))
            tally.tail += len(tail)
            for driver in np.unique(drivers[tail][drivers[tail] >= 0]).tolist():
                of_it = tail[drivers[tail] == driver]
                tally.drivers[driver] += len(of_it)
                if driver < len(FEATURES):
                    total, count = tally.extreme.get(driver, (0.0, 0))
                    tally.extreme[driver] = total + float(values[of_it, driver].sum()), count + len(of_it)

    def worst(self, keys: KeyTable, baselines: Baselines, count: int) -> list[Standing]:
        """Those whose share of spans in the tail exceeds what is normal most surely, the surest first."""
        rated = [(self._excess(tally), key) for key, tally in self._tallies.items() if tally.tail]
        rated.sort(reverse=True)
        return [self._standing(keys, baselines, key, excess) for excess, key in rated[:count] if excess >= _SURE]

    @staticmethod
    def _excess(tally: _Tally) -> float:
        """Standard deviations of a binomial distribution."""
        expected = tally.spans * (1 - _TAIL)
        return (tally.tail - expected) / math.sqrt(expected * _TAIL)

    def _standing(self, keys: KeyTable, baselines: Baselines, key: int, excess: float) -> Standing:
        tally, identity = self._tallies[key], keys.identities[key]
        return Standing(
            identity.service, identity.words, tally.spans, tally.odd, excess, self._why(baselines, key, tally)
        )

    @staticmethod
    def _why(baselines: Baselines, key: int, tally: _Tally) -> str:
        if not tally.drivers:
            return ""
        driver = tally.drivers.most_common(1)[0][0]
        values = np.full(len(FEATURES), np.nan, np.float32)
        if driver in tally.extreme:
            total, count = tally.extreme[driver]
            values[driver] = total / count
        return in_words(baselines, key, values, np.array([driver]))
