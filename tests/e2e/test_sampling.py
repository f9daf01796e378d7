"""A share of the exchanges becomes spans: the same ones at both ends, the others are counted."""

from __future__ import annotations

import socket
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


def test_of_a_hundredth_nearly_every_client_span_has_its_server_span(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as redis:
        agent = watch(tmp_path, redis.port, ebpf={"spans": {"probability": 0.01}})
        words = ["-p", redis.port, "-n", 300_000, "-c", 50, "-t", "get", "-q"]
        subprocess.run([need_command("redis-benchmark"), *map(str, words)], check=True, capture_output=True, timeout=60)
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["observed"] >= 2 * 300_000
    parents = {span["parent_span_id"] for span in spans if span["kind"] == "SERVER"}
    clients = [span for span in spans if span["kind"] == "CLIENT"]
    assert len(clients) > 2_500
    assert sum(span["span_id"] in parents for span in clients) >= 0.999 * len(clients)


def test_what_failed_or_was_slow_is_kept_beyond_a_fixed_share_if_asked_for(tmp_path: Path) -> None:
    kept = {}
    for settings in ({}, {"keep_errors": True, "slow": "100ms"}):
        with servers.redis(tmp_path) as redis, socket.create_connection(("127.0.0.1", redis.port)) as client:
            with watch(tmp_path, redis.port, ebpf={"spans": {"probability": 0, **settings}}) as agent:
                for command in (b"PING", b"NONSENSE", b"DEBUG SLEEP 0.15", b"PING"):
                    words = command.split()
                    client.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
                    assert client.recv(200)
                spans = agent.stop()
            kept[bool(settings)] = sorted((span["name"], span["kind"]) for span in spans)
            assert_all_accounted(agent)
            assert not [span for span in spans if "wirespan.sampling.probability" in span["attributes"]]
            (tmp_path / "spans.jsonl").unlink(missing_ok=True)
    assert kept[False] == []
    assert kept[True] == [(name, kind) for name in ("DEBUG SLEEP", "redis") for kind in ("CLIENT", "SERVER")]
