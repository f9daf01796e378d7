"""What is normal for each key: histograms of values that forget, and quantiles of them.

Every row has, per feature, a histogram of 240 bins of 0.1 in the logarithm, so that a batch is added in one pass, and those of
several machines could be added up. What came since the last ``refresh`` is folded into two copies: one forgets within a
quarter of an hour, the other within hours. A value is normal if it is so by either: the first follows what changes for good, the
second remembers what was usual before an incident.

A young row's quantiles are drawn towards its parent's, as if the parent had said ``_PRIOR`` values. Scales have a floor, in the
logarithm and in absolute terms; without one the narrowest keys raise most of the alarms.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .features import FEATURES, Flags, Reals, Rows, Values, least_changes
from .keys import KeyTable, Level

BINS: Final = 240  # up to features.LARGEST_VALUE
_A_NAT: Final = 10.0  # bins
_HALF_LIVES: Final = (900.0, 6 * 3600.0)  # s
_SHORT, _LONG = 0, 1
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_Q05, _Q25, _Q50, _Q75, _Q95 = range(5)
_PRIOR: Final = 30.0
_LEAST_SCALE: Final = 0.05
_IQR_OF_SIGMA: Final = 1.349
_Q95_OF_SIGMA: Final = 1.645
#: of the short memory, before it has a say
_ENOUGH: Final = 30.0
#: columns of the table of limits
_LOW, _HIGH, _DOWN, _UP = range(4)
_FIRST_ROWS: Final = 64


class Baselines:
    """keys: whose rows these are. least_change: of durations, in s."""

    def __init__(self, keys: KeyTable, least_change: float) -> None:
        self._keys = keys
        self._least = least_changes(least_change)
        shape = (_FIRST_ROWS, len(FEATURES), BINS)
        self._fresh = np.zeros(shape, np.float32)
        self._counts = np.zeros((2, *shape), np.float32)
        #: of rows: observations, their weight and that of the errors among them, new and remembered
        self._new = np.zeros((_FIRST_ROWS, 3))
        self._seen = np.zeros((2, _FIRST_ROWS, 3))
        self._own = np.full((2, _FIRST_ROWS, len(FEATURES), len(_QUANTILES)), np.nan)
        #: what ``refresh`` makes of all this, replaced as a whole
        self._limits = np.zeros((1, len(FEATURES), 4), np.float32)
        self._usual = np.full((1, len(FEATURES), 2), np.nan)
        self._error_share = np.full(1, 0.01)
        self._support = np.zeros(1)

    def observe(self, keys: Rows, values: Values, errors: Flags, weights: npt.NDArray[np.float32]) -> None:
        """Add spans to what is known, once ``refresh`` is called."""
        self._grow(len(self._keys))
        present = ~np.isnan(values)
        bins = np.clip(np.where(present, values, 0) * _A_NAT, 0, BINS - 1).astype(np.int64)
        bins += (keys[:, None].astype(np.int64) * len(FEATURES) + np.arange(len(FEATURES))) * BINS
        spread = np.broadcast_to(weights[:, None], values.shape)
        np.add.at(self._fresh.reshape(-1), bins[present], spread[present])
        size = len(self._new)
        self._new[:, 0] += np.bincount(keys, minlength=size)
        self._new[:, 1] += np.bincount(keys, weights, size)
        self._new[:, 2] += np.bincount(keys, weights * errors, size)

    def refresh(self, seconds: float) -> None:
        """Forget as much as in ``seconds``, take in what was observed, and say anew what is normal."""
        self._grow(len(self._keys))
        touched = np.flatnonzero(self._new[:, 0])
        for memory, half_life in enumerate(_HALF_LIVES):
            keep = 0.5 ** (max(seconds, 0.0) / half_life)
            self._counts[memory] *= np.float32(keep)
            self._counts[memory, touched] += self._fresh[touched]
            self._seen[memory] = self._seen[memory] * keep + self._new
            if len(touched):
                self._own[memory, touched] = _quantiles(self._counts[memory, touched])
        self._fresh[touched] = 0
        self._new[:] = 0
        self._summarize()

    def deviations(self, keys: Rows, values: Values) -> Values:
        """(n, features) signed, in robust standard deviations; 0 for what is usual, or absent."""
        limits = self._limits[self._known(keys)]
        above = (values - limits[:, :, _HIGH]) * limits[:, :, _UP]
        below = (values - limits[:, :, _LOW]) * limits[:, :, _DOWN]
        z: Values = np.maximum(above, 0) + np.minimum(below, 0)
        z[np.isnan(z)] = 0
        return z

    def error_surprise(self, keys: Rows, errors: Flags) -> Values:
        """(n,) nats: how little a span with this outcome was to be expected; 0 for what did not fail."""
        share = self._error_share[self._known(keys)]
        surprise: Values = np.where(errors, -np.log(share), 0.0).astype(np.float32)
        return surprise

    def support(self, keys: Rows) -> Reals:
        """(n,) how many spans of each key are remembered."""
        found: Reals = self._support[self._known(keys)]
        found[keys >= len(self._support)] = 0
        return found

    def usual(self, key: int, feature: int) -> tuple[float, float]:
        """Between which values nine of ten were; NaN if nothing is known."""
        low, high = self._usual[key if key < len(self._usual) else 0, feature]
        return float(low), float(high)

    def _known(self, keys: Rows) -> Rows:
        """Rows that came after the last ``refresh`` are everything's."""
        return np.where(keys < len(self._support), keys, 0) if len(keys) else keys

    def _summarize(self) -> None:
        rows = len(self._keys)
        levels = self._keys.level_array()
        seen = self._seen[:, :rows].copy()
        quantiles = self._own[:, :rows].copy()
        for row in np.flatnonzero(levels < Level.OPERATION).tolist():
            members = self._members(row, levels)
            seen[:, row] = self._seen[:, members].sum(axis=1)
            for memory in (_SHORT, _LONG):
                quantiles[memory, row] = _quantiles(self._counts[memory, members].sum(axis=0)[None])[0]
        shares = (seen[_LONG, :, 2] + 0.5) / (seen[_LONG, :, 1] + 1.0)
        parents = np.array(self._keys.parents)
        for level in (Level.PROTOCOL, Level.SERVICE, Level.OPERATION):
            at = np.flatnonzero(levels == level)
            above = parents[at]
            for memory in (_SHORT, _LONG):
                quantiles[memory, at] = _shrunk(quantiles[memory, at], quantiles[memory, above], seen[memory, at, 0])
            own = seen[_LONG, at, 0]
            rates = seen[_LONG, at, 2] / np.maximum(seen[_LONG, at, 1], 1e-9)
            shares[at] = (own * rates + _PRIOR * shares[above]) / (own + _PRIOR)
        limits = self._of_both(quantiles, seen[_SHORT, :, 0])
        self._usual = quantiles[_LONG][:, :, (_Q05, _Q95)]
        self._error_share = np.clip(shares, 1e-6, 1.0)
        self._support = seen[_LONG, :, 0]
        self._limits = limits

    def _members(self, row: int, levels: npt.NDArray[np.int64]) -> Any:
        """The rows whose values are also those of this one, itself among them."""
        if row == 0:
            return slice(0, len(levels))
        members, parents = {row}, np.array(self._keys.parents)
        for level in range(levels[row] + 1, Level.OPERATION + 1):
            below = np.flatnonzero(levels == level)
            members |= set(below[np.isin(parents[below], list(members))].tolist())
        return sorted(members)

    def _of_both(self, quantiles: Reals, recently: Reals) -> Values:
        """The limits beyond which a value is unusual by both memories, and one over the scale there."""
        limits = _limits(quantiles[_LONG], self._least)
        short = _limits(quantiles[_SHORT], self._least)
        short[recently < _ENOUGH] = np.nan
        limits[:, :, _LOW] = np.fmin(limits[:, :, _LOW], short[:, :, _LOW])
        limits[:, :, _HIGH] = np.fmax(limits[:, :, _HIGH], short[:, :, _HIGH])
        limits[:, :, _DOWN:] = np.fmin(limits[:, :, _DOWN:], short[:, :, _DOWN:])
        return limits.astype(np.float32)

    def _grow(self, rows: int) -> None:
        size = len(self._fresh)
        if rows <= size:
            return
        more = max(rows, 2 * size) - size
        self._fresh = _longer(self._fresh, 0, more)
        self._counts = _longer(self._counts, 1, more)
        self._new = _longer(self._new, 0, more)
        self._seen = _longer(self._seen, 1, more)
        self._own = _longer(self._own, 1, more, np.nan)


def _longer(array: npt.NDArray[Any], axis: int, more: int, fill: float = 0.0) -> npt.NDArray[Any]:
    shape = list(array.shape)
    shape[axis] = more
    return np.concatenate((array, np.full(shape, fill, array.dtype)), axis=axis)


def _quantiles(counts: npt.NDArray[np.float32]) -> Reals:
    """(rows, features, quantiles) of (rows, features, bins), interpolated within bins; NaN of nothing."""
    sums = np.cumsum(counts, axis=2, dtype=np.float64)
    totals = sums[:, :, -1]
    found = np.empty((*totals.shape, len(_QUANTILES)))
    for number, share in enumerate(_QUANTILES):
        wanted = share * totals
        at = np.minimum((sums < wanted[:, :, None]).sum(axis=2), BINS - 1)[:, :, None]
        height = np.take_along_axis(counts, at, 2)[:, :, 0]
        until = np.take_along_axis(sums, at, 2)[:, :, 0]
        within = 1.0 - (until - wanted) / np.maximum(height, 1e-30)
        found[:, :, number] = (at[:, :, 0] + np.clip(within, 0, 1)) / _A_NAT
    found[totals <= 0] = np.nan
    return found


def _shrunk(own: Reals, parent: Reals, seen: Reals) -> Reals:
    """Own quantiles, drawn towards the parent's by how little was seen; one alone where the other is missing."""
    weight = (seen / (seen + _PRIOR))[:, None, None]
    mixed = weight * own + (1 - weight) * parent
    found: Reals = np.where(np.isnan(own), parent, np.where(np.isnan(parent), own, mixed))
    return found


def _limits(quantiles: Reals, least: Reals) -> Reals:
    """(rows, features, 4): the limits of what is usual, and one over the scale below and above."""
    q05, q25, median, q75, q95 = np.moveaxis(quantiles, 2, 0)
    center = np.expm1(median)
    spread = np.maximum((q75 - q25) / _IQR_OF_SIGMA, _LEAST_SCALE)
    found = np.empty((*median.shape, 4))
    found[:, :, _LOW] = np.log1p(np.maximum(center - least, 0))
    found[:, :, _HIGH] = np.log1p(center + least)
    found[:, :, _DOWN] = 1 / np.maximum(spread, (median - q05) / _Q95_OF_SIGMA)
    found[:, :, _UP] = 1 / np.maximum(spread, (q95 - median) / _Q95_OF_SIGMA)
    return found
