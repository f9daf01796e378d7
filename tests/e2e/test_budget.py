"""A budget of spans a second: held under load, shared fairly, failures and slow ones first, both ends of what is kept, and counts
that are exact."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import servers
from support.availability import need_command
from support.exchanges import assert_all_accounted, watch
from support.own_metrics import own_metrics
from support.pausing import paused
from support.processes import free_port
from support.spans import Span

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("redis-server", "redis-benchmark")]

BUDGET = 200


def benchmark(port: int, requests: int, pipeline: int = 1) -> float:
    """Seconds that so many requests took."""
    began = time.monotonic()
    options = ["-p", port, "-n", requests, "-c", 20, "-P", pipeline, "-t", "get", "-q"]
    command = [need_command("redis-benchmark"), *map(str, options)]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    return time.monotonic() - began


@contextmanager
def answering(slow_every: int = 0, slow: float = 0.0) -> Iterator[socket.socket]:
    """A connection to a server in this process, that sleeps before every so manieth answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()

        def serve() -> None:
            number = 0
            while accepted.recv(10):
                number += 1
                if slow_every and number % slow_every == 0:
                    time.sleep(slow)
                accepted.sendall(b"pong")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield client
        finally:
            client.close()
            thread.join()
            accepted.close()


def ask(client: socket.socket) -> float:
    """Seconds that an exchange took."""
    began = time.monotonic()
    client.sendall(b"ping")
    assert client.recv(10) == b"pong"
    return time.monotonic() - began


def read_lines(client: socket.socket, count: int) -> None:
    received = b""
    while received.count(b"\r\n") < count:
        received += client.recv(4096)


def of_port(spans: Sequence[Span], port: int) -> list[Span]:
    return [span for span in spans if span["attributes"]["server.port"] == port]


def share_with_server(spans: Sequence[Span]) -> float:
    """Of the client spans of sampled exchanges, how many have their server span."""
    parents = {span["parent_span_id"] for span in spans if span["kind"] == "SERVER"}
    clients = [span for span in spans if span["kind"] == "CLIENT"]
    return sum(span["span_id"] in parents for span in clients) / max(1, len(clients))


@pytest.mark.alone("fills the rings, and the levels lag, where the agent has to wait for a processor")
@pytest.mark.parametrize("pipeline", [1, 16])
def test_a_load_far_beyond_the_budget_is_sampled_to_it(tmp_path: Path, pipeline: int) -> None:
    requests = 300_000
    with (
        servers.redis(tmp_path) as server,
        # None is slow: an exchange may be slow at the client alone, and then that end alone is kept for it.
        watch(tmp_path, server.port, ebpf={"spans": {"max_per_second": BUDGET, "slow": "60s"}}) as agent,
    ):
        took = benchmark(server.port, requests, pipeline=pipeline)
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["observed"] > 2 * requests
    # What came in before the first setting is the burst.
    assert len(spans) <= BUDGET * (took + 2) + 2 * BUDGET
    later = [span for span in spans if "wirespan.sampling.probability" in span["attributes"]]
    assert len(later) > 0.5 * BUDGET * (took - 2)
    assert all(span["attributes"]["span.metrics.skip"] for span in later)
    assert all(span["trace_state"].startswith("ot=th:") for span in later)
    # Both ends were kept alike, but where the level changed between the two.
    assert not later or share_with_server(later) >= 0.9  # pipelined, all of it may come before the levels follow


@pytest.mark.alone("the levels lag where the agent has to wait for a processor")
def test_a_busy_port_does_not_drown_a_quiet_one(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as server,
        answering() as quiet,
        watch(tmp_path, server.port, quiet.getpeername()[1], ebpf={"spans": {"max_per_second": 100}}) as agent,
    ):
        port, asked, began = quiet.getpeername()[1], 0, time.monotonic()
        load = threading.Thread(target=benchmark, args=(server.port, 400_000))
        load.start()
        while load.is_alive() or time.monotonic() < began + 8:
            ask(quiet)
            asked += 1
            time.sleep(0.3)
        load.join()
        took = time.monotonic() - began
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["observed"] > 2 * 400_000
    assert len(of_port(spans, port)) == 2 * asked
    assert len(spans) <= 100 * (took + 2) + 200


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


def pipeline_commands(client: socket.socket, seconds: float) -> int:
    """How many of the commands failed, one among hundreds."""
    pings, nonsense = b"*1\r\n$4\r\nPING\r\n" * 6, b"*1\r\n$8\r\nNONSENSE\r\n"
    until, failures = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for commands in (*[pings] * 30, pings + nonsense):
            client.sendall(commands)
            read_lines(client, commands.count(b"*"))
        failures += 1
        time.sleep(0.05)
    return failures


@pytest.mark.alone("the levels lag where the agent has to wait for a processor")
def test_errors_of_pipelined_commands_come_first_and_are_counted(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as server,
        own_metrics() as metrics,
        watch(tmp_path, server.port, ebpf={"spans": {"max_per_second": BUDGET}}, metrics=metrics) as agent,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        failures = pipeline_commands(client, 1.5)
        with paused(agent.pid):  # as an agent that waits for a core
            failures += pipeline_commands(client, 3)
        failures += pipeline_commands(client, 1.5)
        spans = agent.stop()
    assert_all_accounted(agent)
    kept = Counter(span["attributes"].get("error.type", "") for span in spans)
    assert kept["ERR"] >= 0.9 * 2 * failures
    assert 0 < kept[""] < 0.2 * 2 * 31 * 6 * failures
    assert metrics.value("wirespan.exchanges.failed") == 2 * failures


@pytest.mark.alone("the levels lag where the agent has to wait for a processor")
@pytest.mark.parametrize("keep_errors", [True, False])
def test_nothing_but_errors_is_within_the_budget_and_counted(tmp_path: Path, keep_errors: bool) -> None:
    spans_settings = {"max_per_second": BUDGET, "keep_errors": keep_errors}
    with servers.redis(tmp_path) as server, watch(tmp_path, server.port, ebpf={"spans": spans_settings}) as agent:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            began, asked = time.monotonic(), 0
            while (took := time.monotonic() - began) < 5:
                client.sendall(b"*1\r\n$8\r\nNONSENSE\r\n")
                assert client.recv(200).startswith(b"-ERR unknown command")
                asked += 1
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["observed"] == 2 * asked > 100 * len(spans)
    assert 0.5 * BUDGET * (took - 2) < len(spans) <= BUDGET * (took + 2) + 2 * BUDGET
    assert account["sampled_out"] + account["dropped"]["rate_limit"] == account["observed"] - len(spans)
    assert account["sampled_out"] > account["dropped"]["rate_limit"]
    assert sum("error.type" in span["attributes"] for span in spans if span["kind"] == "CLIENT") > 0


@pytest.mark.parametrize("slow", [None, "25ms"], ids=["learned", "fixed"])
@pytest.mark.alone("only those that it makes slow are to be slow")
def test_slow_ones_are_kept_at_a_high_rate(tmp_path: Path, slow: str | None) -> None:
    settings = {"max_per_second": 40, **({} if slow is None else {"slow": slow})}
    with answering(slow_every=200, slow=0.05) as client:
        port = client.getpeername()[1]
        with watch(tmp_path, port, ebpf={"spans": settings}) as agent:
            began, durations = time.monotonic(), []
            while time.monotonic() < began + 12:
                durations.append((time.monotonic() - began, ask(client)))
                time.sleep(0.001)
            spans = agent.stop()
    assert_all_accounted(agent)
    late = sorted(span["start"] for span in spans)[0] + 4_000_000_000
    asked = sum(at > 4 and duration >= 0.05 for at, duration in durations)
    lasting = [span for span in spans if span["start"] > late and span["end"] - span["start"] >= 50_000_000]
    assert asked >= 8
    assert len(durations) > 100 * asked
    for kind in ("CLIENT", "SERVER"):
        assert sum(span["kind"] == kind for span in lasting) >= 0.9 * asked
    assert len(spans) <= 40 * 14 + 80
    assert any(span["end"] - span["start"] < 25_000_000 for span in spans if span["start"] > late)


def test_below_the_budget_everything_is_kept_and_nothing_says_sampled(tmp_path: Path) -> None:
    with (
        servers.redis(tmp_path) as server,
        watch(tmp_path, server.port, ebpf={"spans": {}}) as agent,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        for _ in range(20):
            client.sendall(b"PING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            time.sleep(0.02)
        spans = agent.stop()
    assert len(spans) == 40
    assert not [span for span in spans if "wirespan.sampling.probability" in span["attributes"] or span["trace_state"]]
    assert "More exchanges than spans.max_per_second" not in agent.log


def test_by_default_there_are_a_hundred_spans_a_second_and_the_log_says_so(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server, watch(tmp_path, server.port, ebpf={"spans": {}}) as agent:
        took = benchmark(server.port, 200_000)
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert account["observed"] >= 2 * 200_000
    assert len(spans) <= 100 * (took + 2) + 200
    (said,) = [line for line in agent.log.splitlines() if "More exchanges than spans.max_per_second" in line]
    assert "keep_all" in said
