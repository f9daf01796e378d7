"""What the agent gives up while it takes more CPU than it may, and takes up again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

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
    assert budget.degradation == 3
    assert [record.message for record in caplog.records].count(NOT_ENOUGH) == 1
    agent.cores = lambda share, reads: 0.09
    agent.run(budget, 600)
    assert budget.degradation == 2
    agent.cores = lambda share, reads: 0.2
    agent.run(budget, 600)
    assert budget.degradation == 3
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
    assert (budget.degradation, [record.message for record in caplog.records]) == (3, [NOT_ENOUGH])


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
    assert budget.degradation == 3


def test_the_agents_cpu_is_that_of_its_process() -> None:
    before = cpu_used()
    sum(range(2_000_000))
    assert 0.001 < cpu_used() - before < 10
