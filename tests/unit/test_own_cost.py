"""Which runs of hooks are timed, sums of time, and what the log says of them."""

from __future__ import annotations

import ctypes
import random
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.compiling import clang
from wirespan.pipeline.counters import Counters
from wirespan.receiver.kernel.own_cost import STANDS_FOR
from wirespan.service.own_cost import OwnCost

KEY = ("wirespan.hooks.duration", (("program", "sock_send_length"),))


def test_durations_of_several_sources_are_added() -> None:
    counters = Counters()
    counters.duration_source(lambda: {KEY: 0.25})
    counters.duration_source(lambda: {KEY: 0.5, ("other", ()): 1.0})
    assert counters.durations() == {KEY: 0.75, ("other", ()): 1.0}


def test_cores_are_those_since_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, hooks = [0.0, 0.0], [1.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "process_time", lambda: clock[1])
    counters = Counters()
    counters.duration_source(lambda: {KEY: hooks[0]})
    cost = OwnCost(counters)
    clock[:], hooks[0] = [60.0, 3.0], 1.6
    assert cost.fields() == {"cores_agent": 0.05, "cores_hooks": 0.01}
    clock[:] = [120.0, 3.0]
    assert cost.fields() == {"cores_agent": 0.0, "cores_hooks": 0.0}


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path, root = tmp_path_factory.mktemp("host") / "timed_runs.so", Path(__file__).parents[2]
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", f"-I{root}/bpf", "-shared", "-fPIC"]
    subprocess.run([clang(), *flags, f"{root}/tests/host/timed_runs_host.c", "-o", path], check=True)
    loaded = ctypes.CDLL(str(path))
    loaded.took.restype, loaded.took.argtypes = ctypes.c_uint64, (ctypes.c_uint64,) * 3
    return loaded


def test_what_is_timed_stands_for_as_many_as_the_kernel_says(hooks: ctypes.CDLL) -> None:
    assert hooks.one_in() == STANDS_FOR


@pytest.mark.parametrize("size", [1, 6, 7, 64, 100, 128, 1_000, 1_024, 1_448, 4_096, 16_384, 65_536, 1 << 20])
def test_one_run_in_1024_is_timed_whatever_the_size_of_messages(hooks: ctypes.CDLL, size: int) -> None:
    generator = random.Random(size)
    for which in range(4):
        found = hooks.timed(which, generator.getrandbits(32), size, 1 << 20)
        assert 0.95 * 1_024 <= found <= 1.05 * 1_024


@given(since=st.integers(0, 1 << 62), took=st.integers(0, 1 << 40), clock=st.integers(0, 1 << 40))
def test_what_reading_the_clock_takes_is_taken_off_and_never_more_than_there_is(
    hooks: ctypes.CDLL, since: int, took: int, clock: int
) -> None:
    assert hooks.took(since, since + took, clock) == max(0, took - clock)
