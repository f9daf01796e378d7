"""One score for a whole trace, of the scores of its spans and of its shape.

Its surprise, in nats, is that of its oddest span, given how many there are, or that of its set of operations, whichever is
larger: a fault shows in one or the other, and a sum would let what is half odd in both pass for it. Where sets that were
never seen are usual, they say little: a set counts at most twice as much as normal traces so new are rare. The whole is calibrated, with
traces of the same root where there are enough, so the score of a trace means what that of a span does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .calibration import Calibration, calibrated
from .features import Reals
from .structure import Traces

_PARTS: Final = 2
_SPANS, _SHAPE = range(_PARTS)
_NOVELTY_LIMIT: Final = 2.0
#: traces that are kept to calibrate with, and of a root to calibrate its own with
TRACES_KEPT: Final = 65_536
_ROOT_TRACES: Final = 1_000


def parts_of(traces: Traces, scores: Reals, novelty: Reals) -> Reals:
    """(traces, 2) nats: the surprise of the spans, and of the shape. scores: of spans; unknown ones count as usual."""
    surprise = -np.log(np.maximum(1 - np.nan_to_num(scores, nan=0.0), 1e-9))
    starts = np.searchsorted(traces.trace, np.arange(len(traces)))
    sizes = np.diff(np.append(starts, len(scores)))
    return np.stack((np.maximum.reduceat(surprise, starts) - np.log(sizes), novelty), axis=1)


class TraceCalibration:
    """``offer`` parts of normal traces, ``settle``, then ask for ``scores``."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._parts = np.empty((0, _PARTS))
        self._roots = np.empty(0, np.int64)
        self._offered = 0

    def offer(self, parts: Reals, roots: npt.NDArray[np.int64]) -> None:
        room = min(max(TRACES_KEPT - len(self._parts), 0), len(parts))
        self._parts = np.concatenate((self._parts, parts[:room]))
        self._roots = np.concatenate((self._roots, roots[:room]))
        ordinals = self._offered + room + np.arange(len(parts) - room)
        taken = np.flatnonzero(self._random.random(len(ordinals)) * (ordinals + 1) < TRACES_KEPT)
        places = self._random.integers(0, TRACES_KEPT, len(taken))
        self._parts[places], self._roots[places] = parts[room + taken], roots[room + taken]
        self._offered += len(parts)

    def settle(self) -> None:
        self._novelty = calibrated(self._parts[:, _SHAPE])
        ratings = self._ratings(self._parts)
        self._general = calibrated(ratings)
        self._of_roots: dict[int, Calibration] = {}
        roots, counts = np.unique(self._roots, return_counts=True)
        for root in roots[counts >= _ROOT_TRACES].tolist():
            self._of_roots[root] = calibrated(ratings[self._roots == root])

    def scores(self, parts: Reals, roots: npt.NDArray[np.int64]) -> Reals:
        ratings = self._ratings(parts)
        probabilities = self._general.probabilities(ratings)
        for root in np.unique(roots).tolist():
            if root in self._of_roots:
                of_it = roots == root
                probabilities[of_it] = self._of_roots[root].probabilities(ratings[of_it])
        return 1 - probabilities

    def _ratings(self, parts: Reals) -> Reals:
        rarity = -np.log(self._novelty.probabilities(parts[:, _SHAPE]))
        shape = np.minimum(parts[:, _SHAPE], _NOVELTY_LIMIT * rarity)
        ratings: Reals = np.maximum(parts[:, _SPANS], shape)
        return ratings
