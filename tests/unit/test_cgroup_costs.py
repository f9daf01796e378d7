"""Which control group costs the agent most."""

from __future__ import annotations

import numpy as np

from wirespan.receiver.cgroup_costs import UNWATCHED_AT_MOST, CgroupCosts, Group
from wirespan.receiver.kernel.cgroups import Use
from wirespan.receiver.process import ImageKey


class Kernel:
    def __init__(self) -> None:
        self.costs: dict[int, list[int]] = {}
        self.counts = False
        self.unwatched: dict[int, str] = {}
        self.rejoined: list[int] = []

    def count(self, whether: bool) -> None:
        self.counts = whether

    def uses(self) -> dict[int, Use]:
        return {
            group: Use(ImageKey(group, 1, 1, b"any"), np.array(costs, np.uint64))
            for group, costs in self.costs.items()
            if group not in self.unwatched
        }

    def forget(self, groups: list[int]) -> None:
        for group in groups:
            del self.costs[group]

    def unwatch(self, group: int, name: str) -> None:
        self.unwatched[group] = name

    def watch(self, group: int) -> None:
        del self.unwatched[group]


class Watching:
    def __init__(self) -> None:
        self.now = 100.0
        self.kernel = Kernel()
        self.costs = CgroupCosts(
            self.kernel, self.kernel.rejoined.append, lambda group, process: (f"/{group}", "any"), lambda: self.now
        )

    def counted(self, costs: dict[int, list[int]], seconds: float = 5.0) -> None:
        """records, segments, visits by group, in so many seconds."""
        self.costs.are_known()
        self.kernel.costs = costs
        self.now += seconds


def test_what_groups_cost_is_counted_when_somebody_asks() -> None:
    watching = Watching()
    watching.kernel.costs = {7: [1, 1, 1]}
    assert not watching.costs.are_known()
    assert (watching.kernel.counts, watching.kernel.costs) == (True, {})
    assert watching.costs.are_known()
    watching.costs.forget()
    assert not watching.kernel.counts


def test_what_was_counted_long_ago_is_counted_anew() -> None:
    watching = Watching()
    watching.counted({7: [9, 9, 9]}, 60)
    assert not watching.costs.are_known()
    assert watching.kernel.costs == {}


def test_the_group_that_costs_most_a_second_is_left_out() -> None:
    watching = Watching()
    watching.counted({7: [1000, 0, 0], 8: [0, 2000, 0], 9: [0, 0, 5000]})
    group = watching.costs.leave_out(0.001)
    assert group is not None
    assert (group.id, group.path, round(group.cores, 4)) == (8, "/8", 0.004)
    assert watching.kernel.unwatched == {8: "/8"}
    watching.costs.take_back(group)
    assert (watching.kernel.unwatched, watching.kernel.rejoined) == ({}, [8])


def test_who_is_in_no_group_and_who_costs_little_stays() -> None:
    watching = Watching()
    watching.counted({1: [1_000_000, 0, 0], 0: [1_000_000, 0, 0], 9: [50, 0, 0]})
    assert watching.costs.leave_out(0.001) is None
    assert watching.kernel.unwatched == {}


def test_so_many_groups_are_left_out_and_no_more() -> None:
    watching = Watching()
    left: list[Group | None] = []
    for _ in range(UNWATCHED_AT_MOST + 1):
        watching.counted({group: [10_000, 0, 0] for group in range(2, 200) if group not in watching.kernel.unwatched})
        left.append(watching.costs.leave_out(0.001))
    assert None not in left[:-1]
    assert left[-1] is None
