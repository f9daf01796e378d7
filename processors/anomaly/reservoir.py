"""Samples of normal spans of each service, from which detector and calibration are made.

A service keeps up to ``SAMPLES_KEPT`` spans, uniformly chosen among all it had at first, and later among recent ones, since each
new one has the same chance to take a place. A busy service does not displace what a quiet one has.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from .features import FEATURES, Observations, Rows, Values

#: spans of each service
SAMPLES_KEPT: Final = 4_096
#: services with samples of their own; all others share one more
SERVICES_SAMPLED: Final = 64
#: a newcomer's chance to be kept never falls below one in so many
_MEMORY: Final = 20


class Samples(NamedTuple):
    """observations of several services, and whose each is."""

    observations: Observations
    services: Rows


class _Shelf:
    def __init__(self) -> None:
        self.keys = np.empty(0, np.int32)
        self.values = np.empty((0, len(FEATURES)), np.float32)
        self.extra = np.empty((0, 4), np.float32)  # weight, error, unusual calls, missing calls
        self.offered = 0

    def offer(self, keys: Rows, values: Values, extra: Values, random: np.random.Generator) -> None:
        room = max(SAMPLES_KEPT - len(self.keys), 0)
        self.keys = np.concatenate((self.keys, keys[:room]))
        self.values = np.concatenate((self.values, values[:room]))
        self.extra = np.concatenate((self.extra, extra[:room]))
        later = len(keys) - min(room, len(keys))
        if later:
            # The i-th ever offered is kept with a chance of SAMPLES_KEPT / i.
            ordinals = np.minimum(self.offered + room + np.arange(later), _MEMORY * SAMPLES_KEPT)
            taken = np.flatnonzero(random.random(later) * (ordinals + 1) < SAMPLES_KEPT)
            places = random.integers(0, SAMPLES_KEPT, len(taken))
            self.keys[places] = keys[room + taken]
            self.values[places] = values[room + taken]
            self.extra[places] = extra[room + taken]
        self.offered += len(keys)


class Reservoir:
    """Not thread-safe."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._shelves: dict[int, _Shelf] = {}

    def offer(self, spans: Observations, services: Rows) -> None:
        """services: (n,) numbers; those without samples of their own have one in common."""
        calls, missing = _or_zero(spans.calls, len(spans)), _or_zero(spans.missing, len(spans))
        extra = np.stack((spans.weights, spans.errors.astype(np.float32), calls, missing), axis=1)
        for service in np.unique(services).tolist():
            rows = np.flatnonzero(services == service)
            shelf = self._shelves.setdefault(service, _Shelf())
            shelf.offer(spans.keys[rows], spans.values[rows], extra[rows], self._random)

    def samples(self) -> Samples:
        shelves = list(self._shelves.items())
        extra = np.concatenate([shelf.extra for _, shelf in shelves])
        observations = Observations(
            np.concatenate([shelf.keys for _, shelf in shelves]),
            np.concatenate([shelf.values for _, shelf in shelves]),
            extra[:, 1] > 0,
            extra[:, 0],
            extra[:, 2],
            extra[:, 3],
        )
        return Samples(
            observations, np.repeat([s for s, _ in shelves], [len(shelf.keys) for _, shelf in shelves]).astype(np.int32)
        )

    def __len__(self) -> int:
        return sum(len(shelf.keys) for shelf in self._shelves.values())


def _or_zero(column: Values | None, count: int) -> Values:
    return np.zeros(count, np.float32) if column is None else column
