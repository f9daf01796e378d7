"""How rare each component of a vector is, summed up: cheap, and without scikit-learn.

Of each component and direction the share of normal vectors that went as far is known; a vector's rating is the sum of the
logarithms of these, as in ECOD (Li et al. 2022), and its largest distance, since beyond the farthest normal vector all
shares are the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .detector import peaks
from .features import Reals, Values

_STEPS: Final = 128
_FARTHEST: Final = 12.8
#: of a sum of nats, beside a distance
_WEIGHT: Final = 0.05


class TailsDetector:
    def __init__(self, seed: int) -> None:
        """There is no chance in it."""

    def fit(self, vectors: Values) -> None:
        tables = []
        for signed in (vectors, -vectors):
            steps = _steps(signed)
            counts = np.stack([np.bincount(column, minlength=_STEPS) for column in steps.T])
            as_far = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
            tables.append(-np.log((as_far + 0.5) / (len(vectors) + 1.0)))
        self._above, self._below = (np.maximum(table, 0) for table in tables)
        # What did not move says nothing, however rare that is.
        self._above[:, 0] = self._below[:, 0] = 0

    def rate(self, vectors: Values) -> Reals:
        columns = np.arange(vectors.shape[1])
        rare = self._above[columns, _steps(vectors)] + self._below[columns, _steps(-vectors)]
        rating: Reals = np.sinh(peaks(vectors) + _WEIGHT * rare.sum(axis=1))
        return rating


def _steps(vectors: Values) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.clip(vectors * (_STEPS / _FARTHEST), 0, _STEPS - 1).astype(np.int64)
    return found
