"""From ratings to probabilities: how often would a normal span be rated so high?

Within what was observed that is counted; the last twentieth is described by a generalized Pareto distribution, fitted by
moments, so that ratings beyond all that was observed have a probability, too. Each span counts with its weight: what was sampled
stands for many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .features import Reals

_TAIL: Final = 0.05
#: values in a tail below which a shape is not estimated: an exponential tail is assumed
_SHAPED: Final = 50
#: distances are of logarithms, so that 0 is already a tail that falls as a power of durations
_STEEPEST: Final = 0.2
_LEAST: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Calibration:
    """ratings: ascending. above: of each the weighted share that is rated as high or higher. From ``threshold`` on a tail with
    ``scale`` and ``shape``, which begins with the probability ``tail``."""

    ratings: Reals
    above: Reals
    threshold: float
    tail: float
    scale: float
    shape: float

    def probabilities(self, ratings: Reals) -> Reals:
        """(n,) how often normal spans are rated so high, never 0."""
        at = np.searchsorted(self.ratings, ratings, side="left")
        found = self.above[np.minimum(at, len(self.above) - 1)]
        beyond = ratings - self.threshold
        excess = np.maximum(beyond, 0) / self.scale
        if self.shape > 0:
            tail = self.tail * (1 + self.shape * excess) ** (-1 / self.shape)
        else:
            tail = self.tail * np.exp(-excess)
        probabilities: Reals = np.clip(np.where(beyond > 0, tail, found), _LEAST, 1.0)
        return probabilities


def calibrated(ratings: Reals, weights: npt.NDArray[np.floating] | None = None) -> Calibration:
    """Of ratings of normal spans, one at least."""
    weights = np.ones(len(ratings)) if weights is None else weights
    order = np.argsort(ratings)
    ratings, weights = ratings[order], weights[order]
    total = weights.sum()
    above = np.cumsum(weights[::-1])[::-1] / total
    first = min(int(np.searchsorted(-above, -_TAIL)), len(ratings) - 1)
    threshold = float(ratings[first])
    strictly = ratings > threshold
    excess, of_these = ratings[strictly] - threshold, weights[strictly]
    tail = float(of_these.sum() / total) if len(excess) else 0.5 / len(ratings)
    scale, shape = _fitted(excess, of_these)
    return Calibration(ratings, above, threshold, tail, scale, shape)


def _fitted(excess: Reals, weights: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Scale and shape, by the moments of the excesses over a threshold."""
    if not len(excess):
        return 0.25, 0.0
    mean = float(np.average(excess, weights=weights))
    variance = float(np.average((excess - mean) ** 2, weights=weights))
    if len(excess) < _SHAPED or variance <= 0:
        return max(mean, 1e-3), 0.0
    ratio = mean * mean / variance
    # A shape below 0 would say that nothing beyond some rating ever happens.
    shape = float(np.clip(0.5 * (1 - ratio), 0.0, _STEEPEST))
    return max(mean * (1 - shape), 1e-3), shape
