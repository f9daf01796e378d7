"""A budget of spans a second: shared fairly by the ports of servers, with parts for what failed and what was slow."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespan.receiver.budget import (
    ALARMED,
    INTERVAL,
    PARTS,
    Budget,
    Lately,
    Settings,
    first_room,
    parts_of,
    room_of_all,
    shares_of,
    water_fill,
)
from wirespan.receiver.policies import COUNTS, FAILED, NEVER, POLICIES, REST, SLOW, Counted
from wirespan.receiver.sampling import LEVELS, Sampling, levels_of, threshold_of, trace_state

Floats = npt.NDArray[np.float64]

RATES = st.floats(0, 1e7)
DEMANDS = st.lists(RATES, max_size=40).map(np.array)
CAPACITIES = st.floats(0.5, 1e6)
MILLISECOND = 1_000_000


@given(DEMANDS, CAPACITIES)
def test_fair_shares_use_what_there_is_and_no_more(demands: Floats, capacity: float) -> None:
    shares = water_fill(demands, capacity)
    assert (shares <= demands).all()
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(min(capacity, demands.sum()), rel=1e-9)


@given(DEMANDS, CAPACITIES)
def test_who_gets_less_than_it_needs_gets_no_less_than_any_other(demands: Floats, capacity: float) -> None:
    shares = water_fill(demands, capacity)
    wanting = shares < demands
    if wanting.any():
        assert shares[wanting].min() >= shares.max() * (1 - 1e-9)


@given(DEMANDS, CAPACITIES, st.randoms(use_true_random=False))
def test_fair_shares_do_not_depend_on_the_order(demands: Floats, capacity: float, random: Random) -> None:
    order = random.sample(range(len(demands)), len(demands))
    assert water_fill(demands[order], capacity) == pytest.approx(water_fill(demands, capacity)[order])


@given(st.tuples(RATES, RATES, RATES), CAPACITIES)
def test_each_class_has_its_part_and_what_is_left_over_flows_on(
    demands: tuple[float, float, float], budget: float
) -> None:
    given_to = parts_of(demands, budget)
    assert given_to.sum() == pytest.approx(min(budget, sum(demands)), rel=1e-9)
    for which, demand in enumerate(demands):
        assert given_to[which] >= min(demand, PARTS[which] * budget) * (1 - 1e-9)
        assert given_to[which] <= demand


def test_what_is_left_over_is_for_what_failed_first_and_for_the_rest_last() -> None:
    assert parts_of([1000, 1000, 1000], 100).tolist() == [25, 25, 50]
    assert parts_of([0, 1000, 1000], 100).tolist() == [0, 25, 75]
    assert parts_of([1000, 1000, 10], 100).tolist() == [25, 65, 10]
    assert parts_of([1000, 0, 10], 100).tolist() == [90, 0, 10]


@dataclass
class Load:
    """Exchanges a second by port, and what the budget lets pass of them."""

    budget: Budget
    slots: npt.NDArray[np.int64] = field(default_factory=lambda: np.arange(0))
    counts: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros((POLICIES, COUNTS), np.uint32))
    durations: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(POLICIES, np.uint64))

    def run(self, rates: dict[int, tuple[float, float, float]], intervals: int = 30) -> Settings:
        """rates: by slot, of the rest, of slow ones, of failures."""
        self.slots = np.array(sorted(rates))
        for _ in range(intervals):
            for slot, (rest, slow, failed) in rates.items():
                new = np.array([rest, 0, slow, 0, failed]) * INTERVAL
                self.counts[slot] += np.round(new).astype(np.uint32)
            counted = Counted(self.counts[self.slots], self.durations[self.slots])
            settings = self.budget.follow(self.slots, [Lately(counted, INTERVAL)], INTERVAL)
        return settings

    def passed(self, settings: Settings, rates: dict[int, tuple[float, float, float]]) -> Floats:
        """(n, classes) spans a second."""
        shares = np.array([Sampling(max_per_second=1).kept_by(level).probability for level in range(LEVELS)])
        passed: Floats = shares[settings.levels] * np.array([rates[slot] for slot in sorted(rates)])
        return passed


@pytest.mark.parametrize("rest", [0, 10, 98, 1_000, 1_000_000])
@pytest.mark.parametrize("slow", [0, 10, 1_000])
@pytest.mark.parametrize("failed", [0, 10, 98, 1_000, 1_000_000])
def test_what_passes_is_within_the_budget_and_not_far_below(rest: int, slow: int, failed: int) -> None:
    load, rates = Load(Budget(100, slow=0.1)), {7: (float(rest), float(slow), float(failed))}
    passed = load.passed(load.run(rates), rates).sum()
    assert passed <= 100 * 1.001
    assert passed >= min(100, rest + slow + failed) * 2 ** (-1 / 8) * 0.999


def test_a_busy_port_does_not_drown_a_quiet_one() -> None:
    load, rates = Load(Budget(100)), {7: (120_000.0, 0.0, 0.0), 9: (4.0, 0.0, 0.0), 11: (2_000.0, 0.0, 0.0)}
    settings = load.run(rates)
    busy, quiet, other = load.passed(settings, rates)[:, REST]
    assert settings.levels[1, REST] == 0
    assert quiet == 4
    assert busy == pytest.approx(other, rel=0.1)
    assert settings.room[1, REST] > 4 * INTERVAL


@given(st.lists(st.tuples(RATES, RATES, RATES), min_size=1, max_size=20), CAPACITIES, st.randoms(use_true_random=False))
def test_of_what_is_reserved_alarmed_slots_get_what_they_need_and_nothing_is_left_over(
    demands: list[tuple[float, float, float]], budget: float, random: Random
) -> None:
    rates, alarmed = np.array(demands), np.array([random.random() < 0.3 for _ in demands])
    shares = shares_of(rates, alarmed, budget)
    assert (shares <= rates * (1 + 1e-9)).all()
    assert shares.sum() == pytest.approx(min(budget, rates.sum()), rel=1e-6)
    assert shares[alarmed].sum() >= min(ALARMED * budget, rates[alarmed].sum()) * (1 - 1e-6)


def test_an_alarmed_port_has_spans_of_each_class_in_a_flood_from_others() -> None:
    rates = np.array([[10_000.0, 5_000.0, 8_000.0]] * 20 + [[400.0, 30.0, 2.0]])
    alarmed = np.arange(21) == 20
    before, now = shares_of(rates, ~alarmed & alarmed, 100)[20], shares_of(rates, alarmed, 100)[20]
    assert before.tolist() == pytest.approx([25 / 21, 25 / 21, 2])
    assert now.tolist() == pytest.approx([11.5 + 18.75 / 21, 11.5 + 18.75 / 21, 2.0], rel=0.02)


def test_the_budget_knows_who_is_alarmed() -> None:
    load = Load(Budget(100, slow=0.1))
    quiet = dict.fromkeys(range(20), (500.0, 0.0, 100.0))
    load.run({**quiet, 99: (300.0, 0.0, 0.0)}, intervals=200)
    settings = load.run({**quiet, 99: (300.0, 0.0, 60.0)}, intervals=25)
    passed = load.passed(settings, {**quiet, 99: (300.0, 0.0, 60.0)})
    assert load.budget.alarms.count() == 1
    assert passed[20, [REST, FAILED]].min() >= 4 * passed[:20].max()
    assert 80 <= passed.sum() <= 100.1


def test_a_flood_of_failures_is_within_its_part_and_leaves_the_others_theirs() -> None:
    load, rates = Load(Budget(100, slow=0.1)), {7: (10_000.0, 50.0, 10_000.0), 9: (0.0, 0.0, 4.0)}
    passed = load.passed(load.run(rates), rates)
    assert passed[1, FAILED] == 4
    assert 40 <= passed[:, FAILED].sum() <= 50
    assert 20 <= passed[0, REST] <= 25
    assert 20 <= passed[0, SLOW] <= 25


def test_a_burst_is_followed_at_once_and_a_lull_by_and_by() -> None:
    load = Load(Budget(100))
    before = load.run({7: (50.0, 0.0, 0.0)}).levels[0, REST]
    burst = load.run({7: (100_000.0, 0.0, 0.0)}, intervals=1).levels[0, REST]
    lull = [load.run({7: (0.0, 0.0, 0.0)}, intervals=1).levels[0, REST] for _ in range(40)]
    assert (before, lull[-1]) == (0, 0)
    assert burst > 0
    assert lull == sorted(lull, reverse=True)
    assert lull[0] > 0


def test_a_rate_that_varies_a_little_leaves_the_level_alone() -> None:
    load, random = Load(Budget(100)), np.random.default_rng(1)
    load.run({7: (20_000.0, 0.0, 0.0)})
    levels = [
        int(load.run({7: (20_000.0 * random.uniform(0.97, 1.0), 0.0, 0.0)}, intervals=1).levels[0, REST])
        for _ in range(60)
    ]
    assert len(set(levels)) == 1


def test_until_the_levels_follow_a_slot_has_room_for_twice_the_budget_and_all_for_four_times() -> None:
    assert first_room(100) == 100
    assert room_of_all(100) == 200
    settings = Load(Budget(100)).run({7: (1_000_000.0, 0.0, 0.0)})
    assert settings.room.max() <= 150 * INTERVAL
    assert settings.elsewhere == 25
    assert settings.of_all == 200
    assert first_room(1) == room_of_all(0.1) == 1


def test_what_is_drained_late_is_no_burst_and_has_room_for_as_long_as_it_took() -> None:
    budget, slots, durations = Budget(100), np.array([7]), np.zeros(1, np.uint64)
    by_kernel = drained = np.zeros((1, COUNTS), np.uint32)
    a_second = np.array([[20, 0, 0, 0, 10]], np.uint32)
    for seconds, late in ((INTERVAL, 0.0), (INTERVAL, 0.0), (3.0, 0.0), (INTERVAL, 3.0), (INTERVAL, 0.0)):
        by_kernel = by_kernel + (a_second * seconds).astype(np.uint32)
        drained = drained + (a_second * (late or INTERVAL)).astype(np.uint32)
        sources = [
            Lately(Counted(by_kernel, durations), seconds),
            Lately(Counted(drained, durations), late or INTERVAL),
        ]
        settings = budget.follow(slots, sources, seconds)
        assert not settings.levels.any()
        assert settings.room[0, [REST, FAILED]].tolist() == [60 * seconds, 30 * seconds]
        assert settings.refill == pytest.approx(100 * seconds, abs=1)
        assert settings.of_all == max(200, settings.refill)
    assert budget.follow(slots, sources, 60.0).refill == pytest.approx(100 * 8 * INTERVAL, abs=1)


def test_a_small_budget_is_refilled_too() -> None:
    load = Load(Budget(1))
    refills = [load.run({7: (1_000.0, 0.0, 0.0)}, intervals=1).refill for _ in range(40)]
    assert sum(refills) == pytest.approx(40 * INTERVAL, abs=1)


def test_nothing_is_slow_before_there_were_some_exchanges() -> None:
    load = Load(Budget(100))
    load.durations[:] = 0
    assert load.run({7: (190.0, 0.0, 0.0)}, intervals=1).slow.tolist() == [NEVER]
    load.durations[7] = 190 * MILLISECOND
    (slow,) = load.run({7: (190.0, 0.0, 0.0)}, intervals=1).slow
    assert slow == 4 * MILLISECOND


def test_slots_are_forgotten_where_there_are_many_and_they_are_idle() -> None:
    budget, slots = Budget(100), np.arange(600)
    counts, durations = np.ones((600, COUNTS), np.uint32), np.zeros(600, np.uint64)
    for _ in range(200):
        counts[0] += 1
        budget.follow(slots, [Lately(Counted(counts, durations), INTERVAL)], INTERVAL)
    forgotten = budget.forgettable(slots)
    assert forgotten.tolist() == list(range(1, 600))
    assert not len(budget.forgettable(slots[:10]))


@pytest.mark.parametrize("share", [1.0, 0.999, 0.5, 0.01, 1e-6, 0.0])
def test_a_level_keeps_no_more_than_was_asked_for(share: float) -> None:
    (level,) = levels_of(np.array([share])).tolist()
    assert 0 <= level < LEVELS
    if share >= 2**-31:
        kept = Sampling(max_per_second=1).kept_by(level).probability
        assert share * 2 ** (-1 / 8) <= kept <= share * (1 + 1e-9)


def test_a_fixed_probability_has_one_level() -> None:
    sampling = Sampling(0.25)
    assert (sampling.active, sampling.budgeted, sampling.by_policy, sampling.first_level) == (True, False, False, 1)
    assert sampling.kept_by(1).trace_state == "ot=th:c"
    assert sampling.kept_by(1).probability == 0.25
    assert not Sampling().active


def test_with_a_fixed_probability_what_failed_or_was_slow_is_kept_only_if_asked_for() -> None:
    assert Sampling(0.25, keep_errors=True).first_levels == (1, 1, 0)
    assert Sampling(0.25, slow=1.0).first_levels == (1, 0, 1)
    assert Sampling(0.25, keep_errors=True, slow=1.0).by_policy
    assert not Sampling(1.0, keep_errors=True, slow=1.0).by_policy


def test_thresholds_are_those_of_the_specification() -> None:
    assert [trace_state(threshold_of(share)) for share in (1.0, 0.5, 0.01)] == ["", "ot=th:8", "ot=th:fd70a3d70a3d7"]
