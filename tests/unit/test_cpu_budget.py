"""What the agent gives up while it takes more CPU than it may, and takes up again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from wirespan.receiver.cgroup_costs import Group
from wirespan.receiver.cpu_budget import CpuBudget, Steps, cpu_used


@dataclass
class Agent:
    """Takes as many cores as ``cores`` says of the share of spans, and of whether payload is read."""

    cores: Callable[[float, bool], float]
    share: float = 1.0
    reads: bool = True
    now: float = 0.0
    used: float = 0.0
    shares: list[float] = field(default_factory=list)

    def limit(self, share: float) -> None:
        self.share = share
        self.shares.append(share)

    def read(self, whether: bool) -> None:
        self.reads = whether

    def budget(self, cores: float = 0.1) -> CpuBudget:
        return CpuBudget(cores, Steps(self.limit, self.read), lambda: self.used, lambda: self.now)

    def run(self, budget: CpuBudget, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            self.used += 0.5 * self.cores(self.share, self.reads)
            budget.pace()


def test_within_the_budget_nothing_is_given_up() -> None:
    agent = Agent(lambda share, reads: 0.09)
    budget = agent.budget()
    agent.run(budget, 600)
    assert (agent.shares, agent.reads, budget.degradation) == ([], True, 0)


def test_the_cost_of_the_start_is_not_judged() -> None:
    agent = Agent(lambda share, reads: 1.0)
    budget = agent.budget()
    agent.run(budget, 12)
    agent.cores = lambda share, reads: 0.05
    agent.run(budget, 60)
    assert agent.shares == []


def test_fewer_spans_are_made_until_it_is_within_the_budget() -> None:
    agent = Agent(lambda share, reads: 0.02 + 0.4 * share)
    budget = agent.budget()
    agent.run(budget, 120)
    assert budget.degradation == 1
    assert agent.reads
    assert 0.05 < agent.cores(agent.share, True) <= 0.1


def test_with_hardly_a_span_left_payload_goes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    agent = Agent(lambda share, reads: 0.05 + 0.2 * share + 0.3 * reads)
    budget = agent.budget()
    agent.run(budget, 60)
    assert (agent.share, agent.reads, budget.degradation) == (1 / 64, False, 2)
    assert [record.message.split(".")[1].strip() for record in caplog.records] == [
        "Making fewer spans",
        "Reading no payload: exchanges are of unknown protocols",
    ]


NOT_ENOUGH = (
    "The agent takes more CPU than cpu_budget with all given up that can be. Raise cpu_budget, or narrow select."
)


def test_where_nothing_is_left_to_give_up_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(lambda share, reads: 0.2)
    budget = agent.budget()
    agent.run(budget, 600)
    assert budget.degradation == 4
    assert [record.message for record in caplog.records].count(NOT_ENOUGH) == 1
    agent.cores = lambda share, reads: 0.09
    agent.run(budget, 600)
    assert budget.degradation == 2
    agent.cores = lambda share, reads: 0.2
    agent.run(budget, 600)
    assert budget.degradation == 4
    assert [record.message for record in caplog.records].count(NOT_ENOUGH) == 1


def test_that_nothing_is_left_is_said_again_when_something_had_come_back(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(lambda share, reads: 0.2)
    budget = agent.budget()
    agent.run(budget, 100)
    agent.cores = lambda share, reads: 0.01
    agent.run(budget, 600)
    assert budget.degradation == 0
    agent.cores = lambda share, reads: 0.2
    agent.run(budget, 100)
    assert [record.message for record in caplog.records].count(NOT_ENOUGH) == 2


def test_where_nothing_can_be_given_up_that_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(lambda share, reads: 0.2)
    budget = CpuBudget(0.1, Steps(None, None), lambda: agent.used, lambda: agent.now)
    agent.run(budget, 600)
    assert (budget.degradation, [record.message for record in caplog.records]) == (4, [NOT_ENOUGH])


def test_when_the_load_is_gone_all_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    agent = Agent(lambda share, reads: 0.5)
    budget = agent.budget()
    agent.run(budget, 60)
    agent.cores = lambda share, reads: 0.01
    agent.run(budget, 25)
    assert not agent.reads
    agent.run(budget, 120)
    assert (agent.share, agent.reads, budget.degradation) == (1.0, True, 0)
    assert caplog.records[-1].message.endswith("Making as many spans as configured.")


def test_what_comes_back_in_vain_comes_back_later_and_later() -> None:
    agent = Agent(lambda share, reads: 0.02 + 0.3 * reads)
    budget = agent.budget()
    off = []
    for _ in range(7200):
        before = agent.reads
        agent.run(budget, 0.5)
        if before and not agent.reads:
            off.append(agent.now)
    waits = [after - before for before, after in pairwise(off)]
    assert len(waits) >= 4
    assert waits == sorted(waits)
    assert waits[3] > 4 * waits[0]


def test_between_the_marks_nothing_changes() -> None:
    agent = Agent(lambda share, reads: 0.5)
    budget = agent.budget()
    agent.run(budget, 20)
    share = agent.share
    agent.cores = lambda share, reads: 0.08
    agent.run(budget, 600)
    assert (agent.share, agent.share < 1) == (share, True)


def test_without_spans_to_lower_payload_goes_first() -> None:
    agent = Agent(lambda share, reads: 0.5)
    budget = CpuBudget(0.1, Steps(None, agent.read), lambda: agent.used, lambda: agent.now)
    agent.run(budget, 21)
    assert (agent.reads, budget.degradation) == (False, 2)
    agent.run(budget, 5)
    assert budget.degradation == 4


class Watched:
    """Control groups that take so many cores each; the agent takes what those do that are watched."""

    def __init__(self, **cores: float) -> None:
        self.names = list(cores)
        self.cores = dict(cores)
        self.counted = False
        self.left_out: list[str] = []

    def are_known(self) -> bool:
        known, self.counted = self.counted, True
        return known

    def forget(self) -> None:
        self.counted = False

    def leave_out(self, at_least: float) -> Group | None:
        watched = {name: cores for name, cores in self.cores.items() if name not in self.left_out}
        name = max(watched, key=lambda one: watched[one], default=None)
        if name is None or watched[name] < at_least:
            return None
        self.left_out.append(name)
        return Group(self.names.index(name) + 2, f"/{name}", name, watched[name])

    def take_back(self, group: Group) -> None:
        self.left_out.remove(group.service)

    def sum(self) -> float:
        return sum(cores for name, cores in self.cores.items() if name not in self.left_out)


def watching(agent: Agent, groups: Watched) -> CpuBudget:
    agent.cores = lambda share, reads: 0.02 + groups.sum() + 0.01 * reads
    return CpuBudget(0.1, Steps(None, agent.read, groups), lambda: agent.used, lambda: agent.now)


def test_the_costliest_group_goes_when_nothing_else_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    agent, groups = Agent(lambda share, reads: 0.0), Watched(quiet=0.01, busy=0.3, middling=0.05)
    budget = watching(agent, groups)
    agent.run(budget, 120)
    assert (groups.left_out, agent.reads, budget.degradation) == (["busy"], False, 3)
    (record,) = [record for record in caplog.records if "Not watching" in record.message]
    assert (record.__dict__["cgroup"], record.__dict__["service"]) == ("/busy", "busy")


def test_groups_go_one_after_the_other_and_the_last_one_comes_back_first() -> None:
    agent, groups = Agent(lambda share, reads: 0.0), Watched(first=0.4, second=0.3, third=0.05)
    budget = watching(agent, groups)
    agent.run(budget, 120)
    assert groups.left_out == ["first", "second"]
    groups.cores = dict.fromkeys(groups.cores, 0.001)
    agent.run(budget, 32)
    assert (groups.left_out, agent.reads) == (["first"], False)
    agent.run(budget, 32)
    assert (groups.left_out, agent.reads) == ([], False)
    agent.run(budget, 40)
    assert (agent.reads, budget.degradation, groups.counted) == (True, 0, False)


def test_a_group_that_takes_little_is_watched_whatever_the_agent_takes(caplog: pytest.LogCaptureFixture) -> None:
    agent, groups = Agent(lambda share, reads: 0.0), Watched(some=0.005, others=0.004)
    budget = watching(agent, groups)
    agent.cores = lambda share, reads: 0.5
    agent.run(budget, 120)
    assert (groups.left_out, budget.degradation) == ([], 4)
    assert NOT_ENOUGH in [record.message for record in caplog.records]


def test_a_group_that_comes_back_in_vain_comes_back_later_and_later() -> None:
    agent, groups = Agent(lambda share, reads: 0.0), Watched(busy=0.3)
    budget = watching(agent, groups)
    gone = []
    for _ in range(7200):
        before = len(groups.left_out)
        agent.run(budget, 0.5)
        if len(groups.left_out) > before:
            gone.append(agent.now)
    waits = [after - before for before, after in pairwise(gone)]
    assert len(waits) >= 3
    assert waits == sorted(waits)
    assert waits[2] > 2 * waits[0]


def test_the_agents_cpu_is_that_of_its_process() -> None:
    before = cpu_used()
    sum(range(2_000_000))
    assert 0.001 < cpu_used() - before < 10
