"""What a figure is, and how two things are compared on a noisy machine.

The speed of a shared machine drifts by more than what is measured here. So a change is never compared with a baseline
of another minute, only with its two neighbours in time: off, **on**, off, off, off, **on**, off … Each *on* is set
against the mean of the two *off* around it; likewise the middle *off* of the three between, where nothing changed:
that is the A/A noise, found by the same interleaving. Medians with quartiles are quoted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from math import comb
from pathlib import Path
from typing import NamedTuple, TypeAlias

Say: TypeAlias = Callable[[str], None]


class Unmeasurable(Exception):
    """This machine cannot measure the figure; the message says what it lacks."""


class Target(Enum):
    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a figure is to be measured. folder: its own, empty. say: takes a line of progress."""

    rounds: int
    quick: bool
    folder: Path
    say: Say


class Spread(NamedTuple):
    """Median and quartiles."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table.

    values: one a round, in ``unit``. noise: the same measured with nothing changed. noise_excuses: a value within
    the noise meets the target as well. flaw: why the target is missed whatever the values are. notes: what a reader
    has to know.
    """

    what: str
    target: Target
    limit: float
    unit: str
    values: Sequence[float]
    noise: Sequence[float] = ()
    noise_excuses: bool = False
    flaw: str = ""
    notes: Sequence[str] = ()

    @property
    def met(self) -> bool:
        """Whether the median reaches the target, or is excused."""
        median = statistics.median(self.values)
        reached = median <= self.limit if self.target is Target.AT_MOST else median >= self.limit
        return not self.flaw and (reached or (self.noise_excuses and self._is_noise(median)))

    def _is_noise(self, median: float) -> bool:
        """Whether a quarter of the rounds with nothing changed differ as much or more."""
        return bool(self.noise) and abs(median) <= spread([abs(value) for value in self.noise]).high


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value; quartiles are interpolated, and within the range of the values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Within which the true median lies with a probability of at least 95 %, by the order of the values alone; all of their range
    if they are too few."""
    ordered, n = sorted(values), len(values)
    below, tail = 0, 1 / 2**n
    while tail + comb(n, below + 1) / 2**n <= 0.025:
        below += 1
        tail += comb(n, below) / 2**n
    return ordered[below], ordered[n - 1 - below]


class Step(NamedTuple):
    """A measurement between two others."""

    before: float
    middle: float
    after: float

    @property
    def added(self) -> float:
        """The middle less the mean of its neighbours."""
        return self.middle - (self.before + self.after) / 2

    @property
    def added_percent(self) -> float:
        return 100 * self.added / ((self.before + self.after) / 2)


class Comparison(NamedTuple):
    """changed: steps whose middle was measured with the change; unchanged: those of the noise."""

    changed: list[Step]
    unchanged: list[Step]


def interleave(
    plan: Plan,
    measure: Callable[[], Sequence[float]],
    change: Callable[[], AbstractContextManager[object]],
    describe: Callable[[Step], str],
) -> list[Comparison]:
    """Measure with and without a change in turn, see above; a comparison for each number that ``measure`` returns.

    change: makes the change for the duration of its block. describe: a step in the words of the progress line.
    """
    before = measure()
    comparisons = [Comparison([], []) for _ in before]
    for number in range(plan.rounds):
        with change():
            changed = measure()
        between = measure()
        unchanged = measure()
        after = measure()
        numbers = zip(before, changed, between, unchanged, after, strict=True)
        for comparison, values in zip(comparisons, numbers, strict=True):
            comparison.changed.append(Step(*values[:3]))
            comparison.unchanged.append(Step(*values[2:]))
        before = after
        said = (f"{describe(c.changed[-1])} (A/A {describe(c.unchanged[-1])})" for c in comparisons)
        plan.say(f"{number + 1}/{plan.rounds}  {', '.join(said)}")
    return comparisons
