"""A budget of spans a second, shared fairly: what failed and what was slow has a part of its own, each shared by the ports that
have such exchanges, and so have ports that are alarmed (see :mod:`.alarms`); the rest is sampled so that all stay within.

The control loop sets policies (see :mod:`.policies`) from how many exchanges there were lately: at once when there are more, by
and by when there are fewer. Until it has followed a burst, the kernel drops what exceeds the room of a slot, and of all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..pipeline.counters import Counters
from .alarms import Alarms
from .policies import (
    CLASS_NAMES,
    CLASSES,
    COUNTED_FAILED,
    COUNTS,
    FAILED,
    POLICIES,
    REST,
    SLOW,
    Counted,
    Policies,
    Slots,
)
from .sampling import Sampling, levels_of
from .slowness import Floats, Slowness

logger = logging.getLogger(__name__)

#: seconds between two settings of the policies
INTERVAL: Final = 0.5
#: of the budget, by class: the rest, slow, failed. What one does not need the others get, those that failed first.
PARTS: Final = (0.25, 0.25, 0.5)
_FIRST: Final = (FAILED, SLOW, REST)
#: of the budget, before all others: for alarmed slots, of whatever class
ALARMED: Final = 0.25
#: of the part for slow ones, what the learned thresholds aim at; and of the exchanges of a slot, at most
_AIM: Final = 0.7
_SLOW_AT_MOST: Final = 0.05
#: of a rate that falls, what is kept a step
_MEMORY: Final = 0.7
#: a level that may fall by one waits until it may by two: each change parts the ends of exchanges that are under way
_PATIENCE: Final = 2
#: budgets of an interval: room of a slot for what comes all at once, and of all of them if there was little before
_BURST: Final = 2.0
_BURST_OF_ALL: Final = 4.0
#: of the budget, what the room of all grows by: it is for what no slot is due
_REFILL: Final = 1.0
#: intervals whose room there may be at once, if this thread had to wait for a core for so long
_CATCH_UP: Final = 8.0
#: of the budget, what a slot may begin with when all of it is in use
_NEWCOMER: Final = 0.25
#: beyond what a slot is due, its room: rates vary
_VARIATION: Final = 1.5
#: slots in use beyond which those are forgotten that had no exchange for so many intervals
_USED_AT_MOST: Final = 512
_IDLE: Final = 120


def water_fill(demands: Floats, capacity: float) -> Floats:
    """What each gets of a capacity by max-min fairness: its demand, or as much as any other that does not."""
    if not len(demands) or demands.sum() <= capacity:
        return demands.copy()
    ascending = np.sort(demands)
    before = np.concatenate(([0.0], np.cumsum(ascending)[:-1]))
    level = (capacity - before) / np.arange(len(demands), 0, -1)
    highest: float = level[np.argmax(ascending > level)]
    return np.minimum(demands, highest)


def water_fill_rows(demands: Floats, capacities: Floats) -> Floats:
    """The same of each row, (n, m), with a capacity of its own, (n,)."""
    ascending = np.sort(demands, axis=1)
    before = np.cumsum(ascending, axis=1) - ascending
    level = (capacities[:, None] - before) / np.arange(demands.shape[1], 0, -1)
    highest = np.take_along_axis(level, np.argmax(ascending > level, axis=1)[:, None], axis=1)
    filled: Floats = np.where((demands.sum(axis=1) <= capacities)[:, None], demands, np.minimum(demands, highest))
    return filled


def reserved(rates: Floats, alarmed: npt.NDArray[np.bool_], budget: float) -> Floats:
    """Of the budget what alarmed slots get before all others, by class: (n, CLASSES) as rates. Its fast exchanges tell of a slot
    what its slow ones lack, so each class has its share."""
    kept = np.zeros_like(rates)
    if alarmed.any():
        demands = rates[alarmed]
        kept[alarmed] = water_fill_rows(demands, water_fill(demands.sum(axis=1), ALARMED * budget))
    return kept


def shares_of(rates: Floats, alarmed: npt.NDArray[np.bool_], budget: float) -> Floats:
    """Spans a second that are due to each class of each slot, of so many exchanges: (n, CLASSES) both."""
    first = reserved(rates, alarmed, budget)
    left = rates - first
    given = parts_of(left.sum(axis=0), budget - float(first.sum()))
    return first + np.stack([water_fill(left[:, one], given[one]) for one in range(CLASSES)], axis=1)


def parts_of(demands: npt.ArrayLike, budget: float) -> Floats:
    """Of a budget, what each class gets: its part as far as it needs that, and then what the others leave over."""
    wanted = np.asarray(demands, np.float64)
    given = np.minimum(wanted, np.array(PARTS) * budget)
    for one in _FIRST:
        given[one] += max(0.0, min(wanted[one] - given[one], budget - given.sum()))
    return given


def room_of_all(per_second: float) -> int:
    """Spans of this machine for which there is room at once, at most."""
    return max(1, round(_BURST_OF_ALL * per_second * INTERVAL))


def first_room(per_second: float, left_over: float = 1.0) -> int:
    """Spans of a class in a slot that is new, until the next setting. left_over: the share of the budget that nobody uses."""
    return max(1, round(_BURST * per_second * INTERVAL * max(_NEWCOMER, left_over)))


class Settings(NamedTuple):
    """Of n slots. levels: (n, CLASSES), of sampling. room: (n, CLASSES), spans that are due until the next setting. slow: (n,), ns.
    elsewhere: room in any slot beyond that. refill: what the room of all slots together grows by. of_all: to so much at most."""

    levels: npt.NDArray[np.uint8]
    room: npt.NDArray[np.int32]
    slow: npt.NDArray[np.uint64]
    elsewhere: int
    refill: int
    of_all: int


class Lately(NamedTuple):
    """counted: since the start, of n slots. seconds: in which those came that are new since the last time."""

    counted: Counted
    seconds: float


class Budget:
    """per_second: spans of this machine, both ends of an exchange counted; may be changed at any time. slow: seconds, or None: learned."""

    def __init__(self, per_second: float, slow: float | None = None, alarms: Alarms | None = None) -> None:
        self.per_second = per_second
        self.alarms = alarms or Alarms()
        self._slowness = Slowness(slow)
        self._last: dict[int, Counted] = {}  # by source
        self._rates = np.zeros((POLICIES, CLASSES))  # a second
        self._levels = np.zeros((POLICIES, CLASSES), np.uint8)
        self._idle = np.zeros(POLICIES, np.int64)  # settings
        self._owed = 0.0  # of the refill, what is less than one

    def follow(self, slots: Slots, sources: Sequence[Lately], seconds: float) -> Settings:
        """sources: what is counted of these slots, always in the same order. seconds: since the last time."""
        new, durations = np.zeros((len(slots), COUNTS)), np.zeros(len(slots))
        rates = np.zeros((len(slots), CLASSES))
        for which, source in enumerate(sources):
            news, lasted = self._news(which, slots, source.counted)
            new += news
            durations += lasted
            rates += np.add.reduceat(news, range(0, COUNTS, 2), axis=1) / source.seconds
        remembered = _MEMORY * self._rates[slots] + (1 - _MEMORY) * rates
        self._rates[slots] = rates = np.where(remembered < 1e-3, rates, np.maximum(rates, remembered))
        self._idle[slots] = np.where(new.any(axis=1), 0, self._idle[slots] + 1)
        self._slowness.learn(slots, new[:, :COUNTED_FAILED], durations, self._share_to_be_slow(rates))
        self.alarms.learn(slots, new, durations, seconds)
        return self._settings(slots, rates, min(max(1.0, seconds / INTERVAL), _CATCH_UP))

    def _news(self, which: int, slots: Slots, counted: Counted) -> tuple[Floats, Floats]:
        """Of these slots what is new of a source: counts, and durations."""
        if which not in self._last:
            self._last[which] = Counted(np.zeros((POLICIES, COUNTS), np.uint32), np.zeros(POLICIES, np.uint64))
        last = self._last[which]
        new, durations = counted.counts - last.counts[slots], counted.durations - last.durations[slots]
        last.counts[slots], last.durations[slots] = counted.counts, counted.durations
        return new.astype(np.float64), durations.astype(np.float64)

    def highest_level(self, of_class: int) -> int:
        """At any port."""
        return int(self._levels[:, of_class].max())

    def forgettable(self, slots: Slots) -> Slots:
        """Of these slots those that need not be followed any more; they are forgotten here."""
        if len(slots) <= _USED_AT_MOST:
            return slots[:0]
        idle = slots[self._idle[slots] > _IDLE]
        self._rates[idle] = 0
        self._levels[idle] = 0
        self._slowness.forget(idle)
        self.alarms.forget(idle)
        return idle

    def _share_to_be_slow(self, rates: Floats) -> Floats:
        """Of the exchanges of each slot."""
        all_classes = rates.sum(axis=1)
        wanted = water_fill(_SLOW_AT_MOST * all_classes, _AIM * PARTS[SLOW] * self.per_second)
        share: Floats = wanted / np.maximum(all_classes, 1e-9)
        return share

    def _settings(self, slots: Slots, rates: Floats, intervals: float) -> Settings:
        """intervals: that the room is for."""
        due = shares_of(rates, self.alarms.are_on(slots), self.per_second)
        wanted = levels_of(np.where(rates > 0, due / np.maximum(rates, 1e-9), 1.0))
        now = self._levels[slots]
        waits = (wanted < now) & (wanted > 0) & (now - wanted < _PATIENCE)
        self._levels[slots] = levels = np.where(waits, now, wanted)
        budget = intervals * self.per_second
        elsewhere = first_room(budget, max(0.0, 1 - due.sum() / self.per_second))
        room = np.ceil(_VARIATION * due * INTERVAL * intervals).astype(np.int32)
        refill = self._refill(intervals)
        of_all = max(room_of_all(self.per_second), refill)
        return Settings(levels, room, self._slowness.ns[slots], elsewhere, refill, of_all)

    def _refill(self, intervals: float) -> int:
        self._owed += _REFILL * intervals * self.per_second * INTERVAL
        refill = int(self._owed)
        self._owed -= refill
        return refill


class Pacer:
    """Lets policies follow a budget. For the drain's thread. Counts ``wirespan.edges.alarms{reason}``."""

    def __init__(self, sampling: Sampling, policies: Policies, counters: Counters) -> None:
        self._most = sampling.max_per_second or 0.0
        alarms = Alarms(lambda reason, begun: counters.add("wirespan.edges.alarms", begun, reason=reason))
        self._budget = Budget(self._most, sampling.slow, alarms)
        counters.gauge("wirespan.edges.alarmed", alarms.count)
        for number, name in enumerate(CLASS_NAMES):
            counters.gauge("wirespan.sampling.level", partial(self._budget.highest_level, number), **{"class": name})
        self._policies = policies
        self._last = self._drained = self._last_drained = time.monotonic()
        self._said = False

    def pace(self) -> None:
        """Called before each drain; does something every INTERVAL."""
        now = time.monotonic()
        if now - self._last >= INTERVAL:
            self._follow(now)
        self._drained = now

    def _follow(self, now: float) -> None:
        slots = self._policies.used()
        by_kernel, drained = self._policies.counted(slots)
        # What is drained came since the drain before, which may be long ago if this thread had to wait for a core.
        sources = (Lately(by_kernel, now - self._last), Lately(drained, self._drained - self._last_drained))
        settings = self._budget.follow(slots, sources, now - self._last)
        self._policies.set(slots, *settings)
        self._policies.forget(self._budget.forgettable(slots))
        self._last, self._last_drained = now, self._drained
        if not self._said and settings.levels.any():
            self._say()

    def limit(self, share: float) -> None:
        """From now on to this share of the budget."""
        self._budget.per_second = max(1.0, share * self._most)

    def _say(self) -> None:
        self._said = True
        logger.info(
            "More exchanges than spans.max_per_second. A fair share of them becomes spans, and all are counted.",
            extra={"max_per_second": self._most, "keep_all": "spans: {probability: 1}"},
        )
