"""A share of the exchanges becomes spans: the same ones at both ends, the others are counted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import servers
from support.availability import need_command
from support.exchanges import assert_all_accounted, assert_paired, watch

pytestmark = pytest.mark.requires_bpf

REQUESTS = 20_000
PROBABILITY = 0.1
LOW_56_BITS = (1 << 56) - 1


@pytest.mark.parametrize("pipeline", [1, 16], ids=["turns", "segments"])
def test_both_ends_keep_the_same_tenth(tmp_path: Path, pipeline: int) -> None:
    with servers.redis(tmp_path) as redis:
        agent = watch(tmp_path, redis.port, ebpf={"spans": {"probability": PROBABILITY}})
        words = ["-p", redis.port, "-n", REQUESTS, "-c", 10, "-P", pipeline, "-t", "get", "-q"]
        subprocess.run([need_command("redis-benchmark"), *map(str, words)], check=True, capture_output=True, timeout=60)
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["observed"] >= 2 * REQUESTS
    assert account["sampled_out"] == account["observed"] - len(spans)
    assert PROBABILITY * 0.9 < len(spans) / account["observed"] < PROBABILITY * 1.1
    threshold = round((1 - PROBABILITY) * 2**56)
    assert all(int(span["trace_id"], 16) & LOW_56_BITS >= threshold for span in spans)
    assert {span["trace_state"] for span in spans} == {"ot=th:e6666666666668"}
    assert_paired(spans, len(spans) // 2)
