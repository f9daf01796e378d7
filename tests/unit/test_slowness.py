"""From which duration on exchanges are slow: learned from counts, whatever the distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from wirespan.receiver.policies import NEVER
from wirespan.receiver.slowness import LEARN, Slowness

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
SLOT = np.array([5])
MS = 1e6


def counts_of(durations: npt.NDArray[np.float64], slow: int) -> npt.NDArray[np.float64]:
    edges = [0, slow / 2, slow, slow * 2, np.inf]
    return np.histogram(durations, edges)[0].astype(np.float64)[None]


def learned(draw: Draw, rate: int, wanted: float, looks: int = 60) -> list[float]:
    """The shares that were slow in the second half of the looks."""
    slowness, random, shares = Slowness(None), np.random.default_rng(7), []
    for _ in range(looks):
        durations, threshold = draw(random, rate), int(slowness.ns[5])
        counts = counts_of(durations, threshold)
        shares.append(counts[0, 2:].sum() / rate)
        slowness.learn(SLOT, counts, durations.sum(keepdims=True), np.array([wanted]))
    return shares[looks // 2 :]


def lognormal(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return random.lognormal(np.log(2 * MS), 0.5, count)


def two_speeds(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    slow = random.random(count) < 0.01
    return np.where(slow, random.normal(200 * MS, 5 * MS, count), random.normal(1 * MS, 0.1 * MS, count))


def heavy_tailed(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return 20_000 * (1 + random.pareto(1.5, count))


def all_alike(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return np.full(count, 3 * MS) + random.uniform(0, 1000, count)


@pytest.mark.parametrize("draw", [lognormal, heavy_tailed])
@pytest.mark.parametrize(("rate", "wanted"), [(300, 0.05), (60_000, 0.0005), (5_000, 0.01)])
def test_about_as_many_are_slow_as_are_wanted(draw: Draw, rate: int, wanted: float) -> None:
    assert wanted / 1.6 < np.mean(learned(draw, rate, wanted)) < wanted * 1.6


def test_where_most_are_alike_the_others_are_slow() -> None:
    slowness, random = Slowness(None), np.random.default_rng(3)
    for _ in range(60):
        durations = two_speeds(random, 500)
        slowness.learn(SLOT, counts_of(durations, int(slowness.ns[5])), durations.sum(keepdims=True), np.array([0.012]))
    assert 1.1 * MS < slowness.ns[5] < 190 * MS


def test_a_threshold_among_equals_stays_near_them() -> None:
    slowness, random = Slowness(None), np.random.default_rng(3)
    for _ in range(100):
        durations = all_alike(random, 500)
        slowness.learn(SLOT, counts_of(durations, int(slowness.ns[5])), durations.sum(keepdims=True), np.array([0.05]))
    assert 0.7 * MS < slowness.ns[5] < 13 * MS


def test_a_change_of_pace_is_followed() -> None:
    slowness, random = Slowness(None), np.random.default_rng(3)
    for factor in [1.0] * 30 + [30.0] * 30 + [1.0] * 60:
        durations = factor * lognormal(random, 500)
        slowness.learn(SLOT, counts_of(durations, int(slowness.ns[5])), durations.sum(keepdims=True), np.array([0.05]))
    assert np.mean(lognormal(random, 10_000) > slowness.ns[5]) == pytest.approx(0.05, abs=0.03)


def test_nothing_is_slow_before_it_is_known_what_is_usual() -> None:
    slowness = Slowness(None)
    few = np.array([[LEARN - 1.0, 0, 0, 0]])
    slowness.learn(SLOT, few, np.array([1e9]), np.array([0.05]))
    assert slowness.ns[5] == NEVER
    slowness.learn(SLOT, np.array([[1.0, 0, 0, 0]]), np.array([0.0]), np.array([0.05]))
    assert slowness.ns[5] == 4e9 / LEARN
    slowness.forget(SLOT)
    assert slowness.ns[5] == NEVER


def test_a_fixed_duration_is_not_learned() -> None:
    slowness = Slowness(0.25)
    slowness.learn(SLOT, np.array([[1000.0, 0, 0, 0]]), np.array([1e9]), np.array([0.05]))
    assert slowness.ns.tolist() == [250 * MS] * len(slowness.ns)
