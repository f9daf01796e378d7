"""Every detector passes the same checks; and what its ratings are calibrated to."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from wirespan.processors.anomaly.calibration import calibrated
from wirespan.processors.anomaly.detector import DetectorName, new_detector
from wirespan.processors.anomaly.features import VECTOR, Values

pytestmark = pytest.mark.parametrize("name", get_args(DetectorName))


def vectors(count: int = 3000, seed: int = 0) -> Values:
    """As of normal spans: most components usual, some a little off."""
    random = np.random.default_rng(seed)
    found = np.arcsinh(random.standard_t(5, (count, VECTOR)))
    found[:, VECTOR // 2 :] = 0
    return found.astype(np.float32)


def test_its_input_is_left_alone(name: DetectorName) -> None:
    train, test = vectors(), vectors(seed=1)
    before = train.copy(), test.copy()
    detector = new_detector(name, 0)
    detector.fit(train)
    detector.rate(test)
    assert (train == before[0]).all()
    assert (test == before[1]).all()


def test_the_same_seed_gives_the_same_ratings(name: DetectorName) -> None:
    ratings = []
    for _ in range(2):
        detector = new_detector(name, 7)
        detector.fit(vectors())
        ratings.append(detector.rate(vectors(500, 1)))
    assert (ratings[0] == ratings[1]).all()


def test_one_alone_is_rated_as_among_others(name: DetectorName) -> None:
    detector, test = new_detector(name, 0), vectors(50, 1)
    detector.fit(vectors())
    assert [float(detector.rate(test[at : at + 1])[0]) for at in range(50)] == pytest.approx(
        detector.rate(test).tolist()
    )
    assert len(detector.rate(test[:0])) == 0


@pytest.mark.parametrize(
    "train", [vectors(1), vectors(2), np.zeros((500, VECTOR), np.float32)], ids=["one", "two", "same"]
)
def test_little_to_learn_from_is_no_reason_to_fail(name: DetectorName, train: Values) -> None:
    detector = new_detector(name, 0)
    detector.fit(train)
    assert np.isfinite(detector.rate(vectors(100, 1))).all()


@pytest.mark.parametrize("component", range(VECTOR))
def test_what_is_farther_off_is_odder(name: DetectorName, component: int) -> None:
    detector = new_detector(name, 0)
    detector.fit(vectors())
    test = np.zeros((4, VECTOR), np.float32)
    test[1, component], test[2, component], test[3, component] = 3, 6, 12
    ratings = detector.rate(test)
    assert (np.diff(ratings) > 0).all()


def test_one_in_a_thousand_of_others_is_above_its_calibration(name: DetectorName) -> None:
    detector, train = new_detector(name, 0), vectors(8000)
    detector.fit(train)
    calibration = calibrated(detector.rate(train))
    for probability, least, most in ((0.1, 0.08, 0.12), (0.01, 0.007, 0.013), (0.001, 0.0005, 0.002)):
        share = np.mean(calibration.probabilities(detector.rate(vectors(40_000, 1))) <= probability)
        assert least < share < most, probability


@pytest.mark.parametrize("p", [1.0, 0.1, 0.01])
def test_a_sample_that_kept_all_that_is_odd_is_calibrated_by_its_weights(name: DetectorName, p: float) -> None:
    """Spans are a biased sample: what is slow or failed is always kept, the rest with a probability."""
    detector, train = new_detector(name, 0), vectors(20_000)
    detector.fit(vectors(4000, 3))
    ratings = detector.rate(train)
    kept_anyway = ratings > np.quantile(ratings, 0.995)
    kept = kept_anyway | (np.random.default_rng(0).random(len(ratings)) < p)
    weights = np.where(kept_anyway, 1.0, 1 / p)[kept]
    probabilities = calibrated(ratings[kept], weights).probabilities(detector.rate(vectors(40_000, 1)))
    assert 0.0005 < np.mean(probabilities <= 0.001) < 0.002
