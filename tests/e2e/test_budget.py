"""A budget of spans a second: held under load, failures first, both ends of what is kept, and counts that are exact."""

from __future__ import annotations

import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from support import servers
from support.availability import need_command
from support.exchanges import assert_all_accounted, watch
from support.processes import free_port

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("redis-server", "redis-benchmark")]

BUDGET = 200


@pytest.mark.parametrize(
    "pipeline",
    [1, pytest.param(16, marks=pytest.mark.alone("fills the rings where the agent has to wait for a processor"))],
)
def test_a_load_far_beyond_the_budget_is_sampled_to_it(tmp_path: Path, pipeline: int) -> None:
    with (
        servers.redis(tmp_path) as server,
        watch(tmp_path, server.port, ebpf={"spans": {"max_per_second": BUDGET}}) as agent,
    ):
        began = time.monotonic()
        words = ["-p", str(server.port), "-n", "300000", "-c", "20", "-P", str(pipeline), "-t", "get", "-q"]
        subprocess.run([need_command("redis-benchmark"), *words], check=True, capture_output=True, timeout=60)
        took = time.monotonic() - began
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["observed"] > 2 * 300_000
    # What came in before the first setting is the burst; pipelined exchanges are paired, and sampled, a drain later.
    first = 2 * BUDGET if pipeline == 1 else 0.1 * account["observed"]
    assert len(spans) <= BUDGET * (took + 2) + first
    later = [span for span in spans if "wirespan.sampling.probability" in span["attributes"]]
    assert all(span["attributes"]["span.metrics.skip"] for span in later)
    assert all(span["trace_state"].startswith("ot=th:") for span in later)
    # Both ends were kept alike, but where the level changed between the two.
    ids = {span["span_id"] for span in later if span["kind"] == "CLIENT"}
    served = [span for span in later if span["kind"] == "SERVER"]
    assert sum(span["parent_span_id"] in ids for span in served) >= 0.8 * len(served)


def test_failures_come_first(tmp_path: Path) -> None:
    port, refusing = free_port(), free_port()
    with watch(tmp_path, port, refusing, ebpf={"spans": {"max_per_second": BUDGET}}) as agent:
        with socket.create_server(("127.0.0.1", port)) as listener:
            until = time.monotonic() + 4
            refused = 0
            with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as accepted:
                while time.monotonic() < until:
                    for _ in range(200):
                        client.sendall(b"ping")
                        accepted.recv(10)
                        accepted.sendall(b"pong")
                        client.recv(10)
                    for _ in range(2):
                        with pytest.raises(ConnectionRefusedError):
                            socket.create_connection(("127.0.0.1", refusing))
                        refused += 1
                    time.sleep(0.02)
        spans = agent.stop()
    assert_all_accounted(agent)
    kept = Counter(span["attributes"].get("error.type", "") for span in spans)
    assert kept["connection_refused"] >= 0.9 * refused
    assert 0 < kept[""] < 0.2 * 100 * refused


def test_below_the_budget_everything_is_kept_and_nothing_says_sampled(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as server,
        watch(tmp_path, server.port, ebpf={"spans": {"max_per_second": BUDGET}}) as agent,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        for _ in range(20):
            client.sendall(b"PING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            time.sleep(0.02)
        spans = agent.stop()
    assert len(spans) == 40
    assert not [span for span in spans if "wirespan.sampling.probability" in span["attributes"] or span["trace_state"]]
