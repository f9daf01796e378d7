"""A budget of CPU that cannot be kept: the agent gives up spans, then payload, says so, and accounts for all."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from support import servers
from support.exchanges import assert_all_accounted, watch
from support.own_metrics import own_metrics

pytestmark = [
    pytest.mark.waits("for the agent to look at what it takes"),
    pytest.mark.requires_bpf,
    pytest.mark.requires_command("redis-server"),
]

SECOND = 1_000_000_000


def test_beyond_its_budget_the_agent_makes_fewer_spans_and_then_reads_no_payload(tmp_path: Path) -> None:
    settings = {"spans": {"max_per_second": 64}, "cpu_budget": 0.001}  # looking at the rings takes more
    with (
        servers.redis(tmp_path) as server,
        own_metrics() as metrics,
        watch(tmp_path, server.port, ebpf=settings, metrics=metrics) as agent,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        began = time.time_ns()
        until = time.monotonic() + 55
        while time.monotonic() < until and "Reading no payload" not in agent.log:
            client.sendall(b"*1\r\n$4\r\nPING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            time.sleep(0.002)
        off, end = time.time_ns(), time.monotonic() + 8
        while time.monotonic() < end:
            client.sendall(b"*1\r\n$4\r\nPING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            time.sleep(0.002)
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["sampled_out"] > account["exported"]
    entries = [json.loads(line) for line in agent.log.splitlines() if line.startswith("{")]
    said = [entry for entry in entries if entry["msg"].startswith("The agent takes more CPU than cpu_budget.")]
    assert [entry["msg"].split(". ")[1].split(":")[0] for entry in said] == [
        "Making fewer spans.",
        "Reading no payload",
    ]
    (helpless,) = [entry for entry in entries if "with all given up that can be" in entry["msg"]]
    assert helpless["cores"] > helpless["cpu_budget"]
    assert all(entry["cores"] > entry["cpu_budget"] == 0.001 for entry in said)
    first = [span for span in spans if span["start"] < began + 10 * SECOND]
    last = [span for span in spans if span["start"] > off + SECOND]
    assert len(first) > 64 * 5
    assert {span["name"] for span in first} == {"PING"}
    assert 1 <= len(last) <= 2 * 8 + 4
    assert {span["name"] for span in last} == {f"TCP {server.port}"}
    assert metrics.value("wirespan.degradation") == 3
