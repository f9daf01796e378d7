"""Numbers of CPUs, which may leave some out."""

from __future__ import annotations

import pytest

from wirespan.receiver.kernel.library import cpu_numbers, highest_cpu, possible_cpus


@pytest.mark.parametrize(
    ("ranges", "highest"), [("0\n", 0), ("0-3\n", 3), ("0-3,8-11\n", 11), ("0,2\n", 2), ("0-1,16\n", 16)]
)
def test_the_highest_number_is_at_the_end_of_the_list(ranges: str, highest: int) -> None:
    assert highest_cpu(ranges) == highest


def test_there_are_at_least_as_many_numbers_as_cpus() -> None:
    assert cpu_numbers() >= possible_cpus()
