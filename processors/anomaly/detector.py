"""What makes one number of a context vector: the interface, and which kinds there are.

A detector is fitted to vectors of normal spans and then rates others: the larger, the odder. What its numbers mean only
:mod:`.calibration` says, so they need no common scale. It is deterministic by its seed and leaves its input alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np

from .features import Reals, Values

DetectorName: TypeAlias = Literal["isolation_forest", "tails"]

#: imported when one is made: scikit-learn takes a second and 110 MB
_MADE_BY: Final[dict[DetectorName, str]] = {"isolation_forest": "forest:ForestDetector", "tails": "tails:TailsDetector"}


class Detector(Protocol):
    def __init__(self, seed: int) -> None: ...

    def fit(self, vectors: Values) -> None:
        """Learn what is normal from (n, VECTOR) vectors."""

    def rate(self, vectors: Values) -> Reals:
        """(n,) how odd each is, as a distance: a tail of logarithms of distances would be too heavy to tell far from farther."""


def new_detector(name: DetectorName, seed: int) -> Detector:
    module, _, kind = _MADE_BY[name].partition(":")
    made: Detector = getattr(import_module(f"{__package__}.{module}"), kind)(seed)
    return made


def peaks(vectors: Values) -> Reals:
    """(n,) the largest distance of each vector, whatever its direction."""
    found: Reals = np.abs(vectors).max(axis=1).astype(np.float64)
    return found
