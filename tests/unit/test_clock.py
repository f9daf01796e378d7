"""Kernel time to Unix time: exact, in order, and the same for the same instant in whatever batch it comes."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirespan.pipeline.counters import Counters
from wirespan.receiver.clock import KNOTS, Clock

EPOCH = 1_790_000_000_123_456_789  # far beyond the 2**53 that a float64 holds exactly
SECOND = 1_000_000_000
DRAIN = SECOND // 20


@dataclass
class Machine:
    """Two clocks that a test turns. ``reading``, ``wall_reading``: ns that pass while one is read; ``ppm``: how the
    wall clock is slewed against the monotonic one."""

    monotonic: int = 5 * SECOND
    wall: float = 0.0  # beyond EPOCH
    reading: int = 40
    wall_reading: int = 40
    ppm: float = 0.0

    def run(self, ns: int) -> None:
        self.monotonic += ns
        self.wall += ns * (1 + self.ppm / 1e6)

    def read_monotonic(self) -> int:
        self.run(self.reading)
        return self.monotonic

    def read_realtime(self) -> int:
        self.run(self.wall_reading)
        return EPOCH + round(self.wall)

    def clock(self, counters: Counters | None = None) -> Clock:
        return Clock(counters or Counters(), self.read_monotonic, self.read_realtime)


def unix(clock: Clock, *times: int) -> list[int]:
    converted = clock.to_unix(np.array(times, np.uint64))
    assert converted.dtype == np.uint64
    return [int(value) for value in converted]


def steps(counters: Counters) -> int:
    return counters.snapshot().get(("wirespan.clock.steps", ()), 0)


INTERVALS = st.lists(
    st.tuples(
        st.integers(1, 3 * SECOND),  # until the next sample
        st.floats(-400, 400),  # slewed meanwhile, ppm
        st.integers(1, 20_000),  # ns that reading the one clock takes,
        st.integers(1, 20_000),  # and the other
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(INTERVALS, st.randoms(use_true_random=False))
def test_under_slew_times_are_in_order_and_never_change_again(
    intervals: list[tuple[int, float, int, int]], rng: random.Random
) -> None:
    machine = Machine()
    clock = machine.clock()
    seen: dict[int, int] = {}
    for length, machine.ppm, machine.reading, machine.wall_reading in intervals:
        began = machine.monotonic
        machine.run(length)
        batch = sorted(rng.randint(began - SECOND, machine.monotonic) for _ in range(6))
        clock.sample()
        seen |= zip(batch, unix(clock, *batch), strict=True)
    times = sorted(seen)
    assert unix(clock, *times) == [seen[t] for t in times]
    assert all(seen[a] <= seen[b] for a, b in pairwise(times))


@settings(deadline=None)
@given(
    st.floats(-400, 400), st.lists(st.integers(1, 2 * SECOND), min_size=1, max_size=20), *[st.integers(1, 2_000)] * 2
)
def test_the_error_under_drift_is_below_the_width_of_a_bracket(
    ppm: float, lengths: list[int], reading: int, wall_reading: int
) -> None:
    machine = Machine(reading=reading, wall_reading=wall_reading, ppm=ppm)
    clock = machine.clock()
    truth: dict[int, int] = {}
    for length in lengths:
        machine.run(length)
        truth[machine.monotonic] = EPOCH + round(machine.wall)
        clock.sample()
    for converted, true in zip(unix(clock, *truth), truth.values(), strict=True):
        assert abs(converted - true) <= reading + wall_reading + 3


def test_a_steady_difference_is_exact_to_the_nanosecond() -> None:
    machine = Machine()
    clock = machine.clock()
    (first,) = unix(clock, machine.monotonic)
    for _ in range(50):
        machine.run(DRAIN)
        clock.sample()
    base = machine.monotonic - SECOND
    assert unix(clock, *range(base, base + 200)) == [first + base - 5 * SECOND - 15 * 40 + i for i in range(200)]


def test_a_reading_that_was_interrupted_moves_nothing() -> None:
    machine = Machine()
    clock = machine.clock()
    (before,) = unix(clock, machine.monotonic)
    at = machine.monotonic
    machine.run(DRAIN)
    machine.wall_reading = 3_000_000  # the agent lost the processor in the middle of every bracket
    clock.sample()
    end = machine.monotonic
    assert unix(clock, at, end) == [before, before + end - at]


def test_a_rough_first_sample_is_corrected_without_running_backwards() -> None:
    machine, counters = Machine(reading=1, wall_reading=20_000), Counters()

    def read_realtime() -> int:
        # Each bracket is tighter than the one before, so a sample's last one counts.
        machine.wall_reading = max(machine.wall_reading - 1, 1)
        return machine.read_realtime()

    clock = Clock(counters, machine.read_monotonic, read_realtime)
    machine.wall_reading = 1
    began = machine.monotonic
    for _ in range(1_000):
        machine.run(10)
        clock.sample()
    converted = unix(clock, *range(began, machine.monotonic))
    assert converted == sorted(converted)
    assert abs(converted[-1] - (EPOCH + round(machine.wall))) <= 3
    assert steps(counters) == 0


@pytest.mark.parametrize("step", [3600 * SECOND, -3600 * SECOND, SECOND // 1000, -SECOND // 1000])
def test_times_before_a_step_keep_the_old_difference(step: int) -> None:
    machine, counters = Machine(), Counters()
    clock = machine.clock(counters)
    before = machine.monotonic
    (expected,) = unix(clock, before)
    machine.run(DRAIN)
    machine.wall += step
    clock.sample()
    after = machine.monotonic
    machine.run(DRAIN)
    clock.sample()
    old, last_old, new = unix(clock, before, before + DRAIN - 1, after)
    assert (old, last_old) == (expected, expected + DRAIN - 1)
    assert abs(new - (expected + (after - before) + step)) <= 2 * machine.reading
    assert steps(counters) == 1


def test_a_suspend_is_a_step() -> None:
    machine, counters = Machine(), Counters()
    clock = machine.clock(counters)
    machine.wall += 8 * 3600 * SECOND  # the monotonic clock stood
    machine.run(DRAIN)
    clock.sample()
    assert steps(counters) == 1
    (converted,) = unix(clock, machine.monotonic)
    assert abs(converted - (EPOCH + round(machine.wall))) <= 2 * machine.reading


def test_a_slew_is_no_step() -> None:
    machine, counters = Machine(ppm=450), Counters()
    clock = machine.clock(counters)
    for _ in range(100):
        machine.run(DRAIN)
        clock.sample()
    assert steps(counters) == 0


def test_a_day_without_a_sample_is_converted_without_overflow() -> None:
    machine, counters = Machine(), Counters()
    clock = machine.clock(counters)
    at = machine.monotonic
    (before,) = unix(clock, at)
    machine.run(24 * 3600 * SECOND)
    machine.wall += 60  # less than the width of a bracket
    clock.sample()
    half = 12 * 3600 * SECOND
    assert abs(unix(clock, at + half)[0] - (before + half + 30)) <= 2 * machine.reading
    assert steps(counters) == 0


def test_a_change_over_too_long_a_time_to_interpolate_is_a_step() -> None:
    machine, counters = Machine(ppm=100), Counters()
    clock = machine.clock(counters)
    machine.run(24 * 3600 * SECOND)
    clock.sample()
    assert abs(unix(clock, machine.monotonic)[0] - (EPOCH + round(machine.wall))) <= 2 * machine.reading
    assert steps(counters) == 1


def test_times_older_than_the_history_take_its_oldest_difference() -> None:
    machine = Machine(ppm=100)
    clock = machine.clock()
    at = machine.monotonic
    (first,) = unix(clock, at)
    for _ in range(3 * KNOTS):
        machine.run(DRAIN)
        clock.sample()
    long_ago, now = unix(clock, at, machine.monotonic)
    assert abs(now - (EPOCH + round(machine.wall))) <= 2 * machine.reading
    drifted = 3 * KNOTS * DRAIN * 100 // 1_000_000
    assert first + drifted // 3 < long_ago < first + drifted


def test_a_batch_may_be_empty() -> None:
    assert unix(Machine().clock()) == []


def test_on_this_machine_it_agrees_with_the_wall_clock() -> None:
    clock = Clock(Counters())
    readings = []
    for _ in range(200):
        readings.append((time.monotonic_ns(), time.time_ns(), time.monotonic_ns()))
    clock.sample()
    before = unix(clock, *(reading[0] for reading in readings))
    after = unix(clock, *(reading[2] for reading in readings))
    tolerance = 2_000
    for low, (_, wall, _), high in zip(before, readings, after, strict=True):
        assert low - tolerance <= wall <= high + tolerance
