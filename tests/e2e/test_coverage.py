"""How complete spans are, by edge, where they are not complete: the figure is what the counters say."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from support import servers
from support.availability import need_command
from support.counting import counting, points
from support.exchanges import assert_all_accounted

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("redis-server", "redis-benchmark")]

REQUESTS = 50_000


def benchmark(port: int) -> None:
    words = ["-p", str(port), "-n", str(REQUESTS), "-c", "50", "-t", "set", "-q"]
    subprocess.run([need_command("redis-benchmark"), *words], check=True, capture_output=True, timeout=60)


def lost(folder: Path) -> tuple[float, float]:
    """Exchanges of all edges, and how many of them their coverage says were dropped; looked at once, at the end."""
    observed = {tuple(sorted(attributes.items())): point.count for attributes, point in points(folder)}
    covered = {tuple(sorted(a.items())): p.as_double for a, p in points(folder, "wirespan.coverage")}
    assert observed.keys() == covered.keys()
    return sum(observed.values()), sum(count * (1.0 - covered[edge]) for edge, count in observed.items())


def test_a_full_ring_is_seen_in_the_coverage_of_its_edges(tmp_path: Path) -> None:
    rings = {"exchanges": 65_536, "long_exchanges": 65_536, "segments": 65_536}
    with (
        servers.redis(tmp_path) as server,
        counting(tmp_path, server.port, rings=rings, drain_interval="1s", metrics={"interval": "1h"}) as agent,
    ):
        benchmark(server.port)
        assert agent.process.stop() == 0, agent.log
    account = assert_all_accounted(agent)
    observed, dropped = lost(tmp_path)
    assert observed == account["observed"]
    assert account["dropped"]["ring_full"] > REQUESTS
    assert dropped == pytest.approx(account["dropped"]["ring_full"], abs=0.5)


def test_what_exceeds_the_budget_is_seen_too_and_what_is_sampled_out_is_none(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as server,
        counting(tmp_path, server.port, spans={"max_per_second": 100}, metrics={"interval": "1h"}) as agent,
    ):
        time.sleep(1)
        benchmark(server.port)
        assert agent.process.stop() == 0, agent.log
    account = assert_all_accounted(agent)
    observed, dropped = lost(tmp_path)
    assert observed == account["observed"]
    assert account["dropped"].get("rate_limit", 0) > 0
    # Not by edge: the two pipelined commands with which redis-benchmark begins, which user space pairs at both ends.
    assert account["dropped"]["rate_limit"] - 4.5 <= dropped <= account["dropped"]["rate_limit"] + 0.5


def test_all_is_covered_where_nothing_is_lost(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as server,
        counting(tmp_path, server.port, spans={"probability": 0.01}, metrics={"interval": "1h"}) as agent,
    ):
        benchmark(server.port)
        assert agent.process.stop() == 0, agent.log
    assert {point.as_double for _, point in points(tmp_path, "wirespan.coverage")} == {1.0}


@pytest.mark.waits("for a line that comes every minute")
def test_the_log_says_what_it_costs(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server, counting(tmp_path, server.port) as agent:
        benchmark(server.port)
        agent.process.wait_for_log("The last minute", timeout=70)
    (line,) = re.findall(r"^.*The last minute.*$", agent.log, re.MULTILINE)[:1]
    said = json.loads(line)
    assert 0 < said["cores_agent"] < 2
    assert said["cores_hooks"] > 0  # how much: tests/kernel/test_own_cost.py
