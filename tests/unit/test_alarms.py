"""A port is alarmed when more of its exchanges fail, or they take longer, than is usual there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from wirespan.receiver.alarms import EXCHANGES, HOLD, LEARN, WINDOW, Alarms
from wirespan.receiver.policies import COUNTED_FAILED, COUNTS

MILLISECOND = 1e6
STEP = 0.5


@dataclass
class Port:
    """Exchanges at one slot: so many a second, with this share of failures, this long on average."""

    number: int = 7
    began: Counter[str] = field(default_factory=Counter)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __post_init__(self) -> None:
        self.alarms = Alarms(lambda reason, count: self.began.update({reason: count}))
        self.slots = np.array([self.number])

    def run(
        self, seconds: float, rate: float = 100.0, failing: float = 0.0, ms: float = 5.0, varies: float = 0.1
    ) -> None:
        for _ in range(round(seconds / STEP)):
            counts = np.zeros((1, COUNTS))
            exchanges = self.random.poisson(rate * STEP)
            counts[0, COUNTED_FAILED] = self.random.binomial(exchanges, failing)
            counts[0, 0] = exchanges - counts[0, COUNTED_FAILED]
            mean = ms * MILLISECOND * 2 ** self.random.normal(0, varies)
            self.alarms.learn(self.slots, counts, np.array([exchanges * mean]), STEP)

    @property
    def is_alarmed(self) -> bool:
        return bool(self.alarms.are_on(self.slots)[0])


@pytest.mark.parametrize("rate", [8.0, 100.0, 50_000.0])
@pytest.mark.parametrize("failing", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("varies", [0.05, 0.5])
def test_what_is_usual_is_no_alarm(rate: float, failing: float, varies: float) -> None:
    port = Port()
    port.run(3600, rate, failing, varies=varies)
    assert (port.is_alarmed, port.began) == (False, Counter())


@pytest.mark.parametrize(("usual", "now"), [(0.0, 0.1), (0.01, 0.1), (0.3, 0.6)])
def test_more_failures_than_usual_are_an_alarm(usual: float, now: float) -> None:
    port = Port()
    port.run(300, failing=usual)
    port.run(2 * WINDOW, failing=now)
    assert (port.is_alarmed, port.began) == (True, Counter(errors=1))


@pytest.mark.parametrize(("usual", "now", "varies"), [(5.0, 15.0, 0.1), (0.05, 5.0, 0.3)])
def test_longer_durations_than_usual_are_an_alarm(usual: float, now: float, varies: float) -> None:
    port = Port()
    port.run(300, ms=usual, varies=varies)
    port.run(2 * WINDOW, ms=now, varies=varies)
    assert (port.is_alarmed, port.began) == (True, Counter(latency=1))


def test_fewer_failures_and_shorter_durations_are_none() -> None:
    port = Port()
    port.run(300, failing=0.5, ms=50)
    port.run(60, failing=0.0, ms=5)
    assert port.began == Counter()


def test_a_few_failures_of_few_exchanges_are_none() -> None:
    port = Port()
    port.run(600, rate=EXCHANGES / WINDOW)
    counts = np.zeros((1, COUNTS))
    counts[0, 0], counts[0, COUNTED_FAILED] = EXCHANGES, 4
    port.alarms.learn(port.slots, counts, np.array([EXCHANGES * 5 * MILLISECOND]), WINDOW)
    assert not port.is_alarmed


def test_nothing_is_unusual_where_little_is_known() -> None:
    port = Port()
    port.run(LEARN * WINDOW / 2)
    port.run(WINDOW, failing=1.0, ms=500)
    assert port.began == Counter()


def test_an_alarm_ends_a_while_after_what_was_wrong() -> None:
    port = Port()
    port.run(300)
    port.run(20, failing=0.5)
    port.run(HOLD - 2 * WINDOW)
    assert port.is_alarmed
    port.run(3 * WINDOW)
    assert (port.is_alarmed, port.alarms.count()) == (False, 0)
    port.run(20, failing=0.5)
    assert port.began == Counter(errors=2)


def test_what_is_wrong_for_an_hour_becomes_usual_and_not_sooner_than_in_some_minutes() -> None:
    port = Port()
    port.run(600)
    port.run(300, failing=0.3)
    assert port.is_alarmed
    port.run(7200, failing=0.3)
    assert not port.is_alarmed


def test_what_is_forgotten_is_not_alarmed() -> None:
    port = Port()
    port.run(300)
    port.run(20, failing=0.5)
    port.alarms.forget(port.slots)
    assert (port.is_alarmed, port.alarms.count()) == (False, 0)
