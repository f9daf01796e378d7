"""Baselines, detector and calibration together: what is asked how odd spans are, and told what is normal.

``learn`` takes spans in, ``refresh`` renews baselines from them, and ``trained`` makes a detector and calibrations of samples
of normal spans, beside everything else, since it takes a second; ``adopt`` puts them in the place of the former ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .baselines import Baselines
from .calibration import Calibration, calibrated
from .detector import Detector, DetectorName, new_detector
from .features import ERROR, FEATURES, MISSING_CALL, UNUSUAL_CALL, VECTOR, Flags, Observations, Reals, Rows, Values
from .keys import KeyTable
from .reservoir import SERVICES_SAMPLED, Reservoir, Samples

#: of a service, before it has a calibration of its own
_SERVICE_SAMPLES: Final = 500
#: whose detector is fitted to so many at most, each service with the same share
_FITTED: Final = 8192
_OTHERS: Final = -1


@dataclass(frozen=True, slots=True)
class Trained:
    """What is made of samples. calibrations: by number of the service; of all under _OTHERS."""

    detector: Detector
    calibrations: dict[int, Calibration]


@dataclass(frozen=True, slots=True)
class Verdict:
    """scores: (n,) NaN while it is not known what is normal. vectors: see features."""

    scores: Reals
    vectors: Values


class Model:
    """keys: shared with who makes observations. learn_after: spans of an operation, before its spans get a score. Not
    thread-safe, but for ``trained``."""

    def __init__(
        self,
        keys: KeyTable,
        detector: DetectorName = "isolation_forest",
        seed: int = 0,
        least_change: float = 0.001,
        learn_after: int = 100,
    ) -> None:
        self.keys = keys
        self.baselines = Baselines(keys, least_change)
        self.least_samples = learn_after
        self._detector, self._seed = detector, seed
        self._reservoir = Reservoir(seed)
        self._trained: Trained | None = None

    @property
    def is_ready(self) -> bool:
        return self._trained is not None

    def judge(self, spans: Observations) -> Verdict:
        """How odd each span is: 0.999 is what one in a thousand of normal ones of its service is."""
        vectors = self._vectors(spans)
        scores = np.full(len(spans), np.nan)
        if self._trained is not None and len(spans):
            known = self.baselines.support(spans.keys) >= self.least_samples
            ratings = self._trained.detector.rate(vectors[known])
            scores[known] = 1 - _probabilities(self._trained, ratings, self._services(spans.keys[known]))
        return Verdict(scores, vectors)

    def learn(self, spans: Observations, accepted: Flags) -> None:
        """accepted: those that may be taken for normal."""
        kept = spans if accepted.all() else _where(spans, accepted)
        if not len(kept):
            return
        self.baselines.observe(kept.keys, kept.values, kept.errors, kept.weights)
        self.sample(kept)

    def sample(self, spans: Observations) -> None:
        self._reservoir.offer(spans, self._services(spans.keys))

    def samples(self) -> Samples | None:
        """What ``trained`` needs; None if there is not enough."""
        return self._reservoir.samples() if len(self._reservoir) >= self.least_samples else None

    def prepared(self, samples: Samples) -> Values:
        """Their vectors by what is normal now."""
        return self._vectors(samples.observations)

    def trained(self, samples: Samples, vectors: Values) -> Trained:
        """A detector and calibrations. Touches nothing that others change."""
        random = np.random.default_rng(self._seed)
        detector = new_detector(self._detector, self._seed)
        detector.fit(vectors[_fair_share(samples.services, random)])
        ratings, weights = detector.rate(vectors), samples.observations.weights
        calibrations = {_OTHERS: calibrated(ratings, weights)}
        for service in np.unique(samples.services).tolist():
            of_it = samples.services == service
            if np.count_nonzero(of_it) >= _SERVICE_SAMPLES:
                calibrations[service] = calibrated(ratings[of_it], weights[of_it])
        return Trained(detector, calibrations)

    def adopt(self, trained: Trained) -> None:
        self._trained = trained

    def _services(self, keys: Rows) -> Rows:
        numbers = np.array(self.keys.service_numbers, np.int32)[keys]
        numbers[numbers > SERVICES_SAMPLED] = _OTHERS
        return numbers

    def _vectors(self, spans: Observations) -> Values:
        vectors = np.zeros((len(spans), VECTOR), np.float32)
        np.arcsinh(self.baselines.deviations(spans.keys, spans.values), out=vectors[:, : len(FEATURES)])
        surprises = (
            (ERROR, self.baselines.error_surprise(spans.keys, spans.errors)),
            (UNUSUAL_CALL, spans.calls),
            (MISSING_CALL, spans.missing),
        )
        for at, surprise in surprises:
            if surprise is not None:
                # As many deviations of a normal distribution as are as surprising.
                vectors[:, at] = np.arcsinh(np.sqrt(2 * surprise))
        return vectors


def _probabilities(trained: Trained, ratings: Reals, services: Rows) -> Reals:
    found = np.empty(len(ratings))
    general = trained.calibrations[_OTHERS]
    for service in np.unique(services).tolist():
        of_it = services == service
        found[of_it] = trained.calibrations.get(service, general).probabilities(ratings[of_it])
    return found


def _fair_share(services: Rows, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows of so many samples as are fitted: of each service as many, where it has them."""
    order = random.permutation(len(services))
    ranks = np.empty(len(services), np.int64)
    for service in np.unique(services).tolist():
        of_it = order[services[order] == service]
        ranks[of_it] = np.arange(len(of_it))
    return np.sort(np.argsort(ranks, kind="stable")[:_FITTED])


def _where(spans: Observations, rows: Flags) -> Observations:
    return Observations(
        spans.keys[rows],
        spans.values[rows],
        spans.errors[rows],
        spans.weights[rows],
        None if spans.calls is None else spans.calls[rows],
        None if spans.missing is None else spans.missing[rows],
    )
