"""A real server that becomes slow: its spans, and those of its client, say so and why; before they are calm."""

from __future__ import annotations

import http.client
import random
import re
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.exchanges import PROGRAMS, assert_all_accounted
from support.spans import Span
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

READY = "Knows what is normal; spans get scores"
SLOW = 400  # ms


def ask(port: int, delays: list[float]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for delay in delays:
        client.request("GET", f"/{delay:.2f}")
        client.getresponse().read()
    client.close()


def usual(count: int) -> list[float]:
    return [random.lognormvariate(1.4, 0.2) for _ in range(count)]


def is_anomalous(span: Span) -> bool:
    return span["attributes"].get("wirespan.anomaly") is True


def test_a_server_that_becomes_slow_is_told_with_the_reason(tmp_path: Path) -> None:
    with servers.python_server(PROGRAMS / "unsteady_web_server.py", tmp_path) as server:
        configuration = {
            "receivers": {"ebpf": {"select": {"ports": [server.port]}}},
            "processors": {"anomaly": {"learn_after": 50}},
            "exporters": {"file": {}},
            "service": {
                "pipelines": {"traces": {"receivers": ["ebpf"], "processors": ["anomaly"], "exporters": ["file"]}},
                "telemetry": {"logs": {"encoding": "json"}},
            },
        }
        with Agent(configuration, tmp_path) as agent:
            wait_until(READY, lambda: ask(server.port, usual(50)) or READY in agent.log, 60)
            ask(server.port, usual(300))
            ask(server.port, [SLOW + delay for delay in usual(30)])
            spans = agent.stop()
    assert_all_accounted(agent)
    assert min(spans, key=lambda span: span["start"])["attributes"]["wirespan.anomaly.state"] == "learning"
    slow = [span for span in spans if span["end"] - span["start"] >= SLOW * 1_000_000]
    calm = [span for span in spans if span not in slow and "wirespan.anomaly.score" in span["attributes"]]
    assert len(slow) == 60
    assert len(calm) > 200
    assert sum(map(is_anomalous, calm)) <= 0.05 * len(calm)
    # On a machine that is busy while it learns, what comes before the service is known to be in trouble may pass for chance.
    assert sum(map(is_anomalous, slow)) >= 0.7 * len(slow)
    for kind in ("SERVER", "CLIENT"):
        of_kind = [span["attributes"] for span in slow if span["kind"] == kind and is_anomalous(span)]
        words = [str(attributes["wirespan.anomaly.drivers"]) for attributes in of_kind]
        assert all(re.search(r"processing \d{3} ms, usually \d+(\.\d+)? ", text) for text in words), words
