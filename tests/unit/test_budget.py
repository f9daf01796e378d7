"""A budget of spans a second, held by levels of sampling that follow the load."""

from __future__ import annotations

import pytest

from wirespan.receiver.budget import INTERVAL, Budget, Settings
from wirespan.receiver.sampling import LEVELS, Sampling, level_of, threshold_of, trace_state


def spans_a_second(settings: Settings, rest: float, failed: float) -> tuple[float, float]:
    """What the levels let pass of these rates."""
    sampling = Sampling(budgeted=True)
    shares = [sampling.kept_by(level).probability for level in settings.levels]
    return rest * shares[0], failed * shares[1]


@pytest.mark.parametrize("rest", [0, 10, 98, 1_000, 1_000_000])
@pytest.mark.parametrize("failed", [0, 10, 98, 1_000, 1_000_000])
def test_what_passes_is_within_the_budget_and_not_far_below(rest: int, failed: int) -> None:
    budget, observed, failures = Budget(100), 0, 0
    settings = budget.first()
    for _ in range(20):
        observed += round((rest + failed) * INTERVAL)
        failures += round(failed * INTERVAL)
        settings = budget.follow(observed, failures, INTERVAL)
    kept_rest, kept_failed = spans_a_second(settings, rest, failed)
    assert kept_rest + kept_failed <= 100 * 1.001
    assert kept_rest + kept_failed >= min(100, rest + failed) * 2 ** (-1 / 8) * 0.999


def test_what_failed_comes_first_and_leaves_a_part_to_the_rest() -> None:
    budget = Budget(100)
    kept_rest, kept_failed = spans_a_second(budget.follow(20_000, 10_000, 1.0), 10_000, 10_000)
    assert 65 <= kept_failed <= 75
    assert 20 <= kept_rest <= 35


def test_few_failures_are_all_kept() -> None:
    assert Budget(100).follow(1_000_010, 10, 1.0).levels[1] == 0


def test_a_burst_is_followed_at_once_and_a_lull_by_and_by() -> None:
    budget = Budget(100)
    before = budget.follow(50, 0, 1.0).levels[0]
    burst = budget.follow(100_050, 0, 1.0).levels[0]
    lull = [budget.follow(100_050, 0, 1.0).levels[0] for _ in range(40)]
    assert (before, lull[-1]) == (0, 0)
    assert burst > 0
    assert lull == sorted(lull, reverse=True)
    assert lull[0] > 0


def test_until_the_levels_follow_there_is_room_for_twice_the_budget_at_most() -> None:
    settings = Budget(100).first()
    assert sum(settings.room) <= 2 * 2 * 100 * INTERVAL
    settings = Budget(100).follow(1_000_000, 500_000, 1.0)
    assert sum(settings.room) <= 2 * 100 * INTERVAL + 1


@pytest.mark.parametrize("share", [1.0, 0.999, 0.5, 0.01, 1e-6, 0.0])
def test_a_level_keeps_no_more_than_was_asked_for(share: float) -> None:
    level = level_of(share)
    assert 0 <= level < LEVELS
    if share >= 2**-31:
        assert share * 2 ** (-1 / 8) <= Sampling(budgeted=True).kept_by(level).probability <= share


def test_a_fixed_probability_has_one_level() -> None:
    sampling = Sampling(0.25)
    assert (sampling.active, sampling.budgeted, sampling.first_level) == (True, False, 1)
    assert sampling.kept_by(1).trace_state == "ot=th:c"
    assert sampling.kept_by(1).probability == 0.25
    assert not Sampling().active


def test_thresholds_are_those_of_the_specification() -> None:
    assert [trace_state(threshold_of(share)) for share in (1.0, 0.5, 0.01)] == ["", "ot=th:8", "ot=th:fd70a3d70a3d7"]
