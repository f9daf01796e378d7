"""Sums of time, and what the log says of them."""

from __future__ import annotations

import time

import pytest

from wirespan.pipeline.counters import Counters
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
