"""Metrics count what the load generators count, whatever becomes of the spans; series do not grow with clients."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint

from support import servers
from support.counting import counting, counts, generate, points
from support.exchanges import PROGRAMS, assert_all_accounted, count_kinds
from support.processes import free_port
from support.servers import Listening
from support.waiting import wait_until

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("redis-server", "redis-benchmark")]

REQUESTS = 50_000
#: spans.probability
SHARES = (1.0, 0.01, 0.0)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with servers.nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.mark.parametrize(
    "pipeline",
    [1, pytest.param(16, marks=pytest.mark.alone("fills the rings where the agent has to wait for a processor"))],
)
@pytest.mark.parametrize("share", SHARES)
def test_redis_benchmark(tmp_path: Path, share: float, pipeline: int) -> None:
    with servers.redis(tmp_path) as server, counting(tmp_path, server.port, spans={"probability": share}) as agent:
        port, depth = ("-p", server.port), ("-P", pipeline)
        generate("redis-benchmark", *port, "-n", REQUESTS, "-c", 50, *depth, "-t", "set", "-q")
        assert agent.process.stop() == 0, agent.log
    account = assert_all_accounted(agent)
    found = counts(tmp_path, "span.kind", "network.protocol.name", "wirespan.response.status_class", "error.type")
    # It asks for some of the server's configuration before it begins.
    assert set(found) == {(f"SPAN_KIND_{kind}", "redis", "success", None) for kind in ("SERVER", "CLIENT")}
    assert set(found.values()) == {account["observed"] // 2}
    assert REQUESTS <= account["observed"] // 2 <= REQUESTS + 2
    assert account["exported"] == account["observed"] - account["sampled_out"]
    if share == 0:
        assert account["exported"] == 0
    if share == 0.01 and pipeline == 1:
        kinds = count_kinds(tmp_path / "spans.jsonl")
        assert abs(kinds["CLIENT"] - kinds["SERVER"]) <= 0.001 * kinds["CLIENT"]


@pytest.mark.requires_command("nginx", "ab")
@pytest.mark.parametrize("share", SHARES)
def test_http_by_status_class(tmp_path: Path, nginx: Listening, share: float) -> None:
    with counting(tmp_path, nginx.port, spans={"probability": share}) as agent:
        for path, requests in (("", 10_000), ("no-such-page", 2_000)):
            generate("ab", "-q", "-k", "-n", requests, "-c", 10, f"http://127.0.0.1:{nginx.port}/{path}")
        assert agent.process.stop() == 0, agent.log
    found = counts(tmp_path, "span.kind", "network.protocol.name", "wirespan.response.status_class")
    assert found == {
        (f"SPAN_KIND_{kind}", "http", status): count
        for kind in ("SERVER", "CLIENT")
        for status, count in (("success", 10_000), ("client_error", 2_000))
    }


def quantile(point: ExponentialHistogramDataPoint, share: float) -> tuple[float, float]:
    """The bounds of the bucket that this share of all lies in, in seconds."""
    wanted, seen = share * point.count, point.zero_count
    if seen >= wanted:
        return 0.0, point.zero_threshold
    base = 2 ** (2**-point.scale)
    for index, count in enumerate(point.positive.bucket_counts, point.positive.offset):
        seen += count
        if seen >= wanted:
            return base**index, base ** (index + 1)
    raise AssertionError("a point holds fewer than its count")


def test_quantiles_lie_within_one_bucket_of_those_of_the_spans(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server, counting(tmp_path, server.port) as agent:
        generate("redis-benchmark", "-p", server.port, "-n", 20_000, "-c", 20, "-t", "get", "-q")
        spans = agent.stop()
    for kind in ("SERVER", "CLIENT"):
        durations = sorted((span["end"] - span["start"]) / 1e9 for span in spans if span["kind"] == kind)
        ((_, point),) = [(a, p) for a, p in points(tmp_path) if a["span.kind"] == f"SPAN_KIND_{kind}"]
        assert point.count == len(durations)
        assert point.sum == pytest.approx(sum(durations), rel=1e-9)
        for share in (0.01, 0.5, 0.9, 0.99, 0.999):
            exact = durations[max(0, -(-int(share * 1000) * len(durations) // 1000) - 1)]
            low, high = quantile(point, share)
            assert low * 2**-0.125 <= exact <= high * 2**0.125, (kind, share, exact, low, high)


def test_bytes_are_counted_each_way_as_each_end_has_them(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server, counting(tmp_path, server.port) as agent:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            for _ in range(100):
                client.sendall(b"PING\r\n")
                assert client.recv(100) == b"+PONG\r\n"
        assert agent.process.stop() == 0, agent.log
    found = {(a["span.kind"], a["network.io.direction"]): p.as_int for a, p in points(tmp_path, "wirespan.exchange.io")}
    assert found == {
        ("SPAN_KIND_CLIENT", "transmit"): 600,
        ("SPAN_KIND_CLIENT", "receive"): 700,
        ("SPAN_KIND_SERVER", "receive"): 600,
        ("SPAN_KIND_SERVER", "transmit"): 700,
    }


def test_answers_of_one_connection_that_stays_open_are_each_counted_as_what_they_are(tmp_path: Path) -> None:
    """In runs of all lengths, so that none is added to what belongs elsewhere, or kept back."""
    statuses = [200] * 17 + [500] + [200, 404] * 5 + [404] * 9 + [503] * 8 + [200] * 3
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            counting(tmp_path, port) as agent,
            socket.create_connection(("127.0.0.1", port)) as client,
            listener.accept()[0] as accepted,
        ):
            for status in statuses:
                client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                assert accepted.recv(1000)
                accepted.sendall(b"HTTP/1.1 %d Because\r\nContent-Length: 0\r\n\r\n" % status)
                assert client.recv(1000)
            assert agent.process.stop() == 0, agent.log
    found = counts(tmp_path, "span.kind", "wirespan.response.status_class")
    assert found == {
        (f"SPAN_KIND_{kind}", status): count
        for kind in ("SERVER", "CLIENT")
        for status, count in (("success", 25), ("client_error", 14), ("server_error", 9))
    }


def test_what_a_connection_keeps_back_is_counted_soon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            counting(tmp_path, port),
            socket.create_connection(("127.0.0.1", port)) as client,
            listener.accept()[0] as accepted,
        ):
            for _ in range(3):
                client.sendall(b"ping")
                assert accepted.recv(100)
                accepted.sendall(b"pong")
                assert client.recv(100)
            both = {("SPAN_KIND_SERVER",): 3, ("SPAN_KIND_CLIENT",): 3}
            file = tmp_path / "metrics.jsonl"
            wait_until("the first metrics", lambda: file.exists() and file.stat().st_size)
            wait_until("all exchanges", lambda: counts(tmp_path, "span.kind") == both)


def test_what_fails_is_counted_by_its_error(tmp_path: Path) -> None:
    port = free_port()
    with counting(tmp_path, port, spans={"probability": 0.0}, request_timeout="1s") as agent:
        for _ in range(10):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)) as listener:
            for request in range(20):
                with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as accepted:
                    client.sendall(b"request %d" % request)
                    accepted.recv(100)
        assert agent.process.stop() == 0, agent.log
    found = counts(tmp_path, "span.kind", "error.type")
    assert found["SPAN_KIND_CLIENT", "connection_refused"] == 10
    assert found["SPAN_KIND_CLIENT", "connection_closed"] == found["SPAN_KIND_SERVER", "connection_closed"] == 20


def test_a_full_ring_loses_spans_and_no_counts(tmp_path: Path) -> None:
    rings = {"exchanges": 65_536, "long_exchanges": 65_536, "segments": 65_536}
    with (
        servers.redis(tmp_path) as server,
        counting(tmp_path, server.port, rings=rings, drain_interval="1s") as agent,
    ):
        generate("redis-benchmark", "-p", server.port, "-n", REQUESTS, "-c", 50, "-t", "set", "-q")
        assert agent.process.stop() == 0, agent.log
    account = assert_all_accounted(agent)
    assert account["dropped"]["ring_full"] > REQUESTS
    assert sum(counts(tmp_path).values()) == account["observed"] >= 2 * REQUESTS


def test_ten_thousand_clients_are_one_series(tmp_path: Path) -> None:
    with (
        servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as server,
        counting(tmp_path, server.port, spans={"probability": 0.0}) as agent,
    ):
        for _ in range(10_000):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
        assert agent.process.stop() == 0, agent.log
    found = points(tmp_path)
    assert {(a["span.kind"], p.count) for a, p in found} == {("SPAN_KIND_SERVER", 10_000), ("SPAN_KIND_CLIENT", 10_000)}
    assert len(found) == 2


def test_more_programs_than_there_is_room_for_share_a_series(tmp_path: Path) -> None:
    """Each curl is a program image of its own, so an edge of its own until it has been idle."""
    with (
        servers.redis(tmp_path) as server,
        counting(tmp_path, server.port, metrics={"interval": "1h", "max_memory": 1 << 20}) as agent,
    ):
        command = f"for i in $(seq 400); do redis-cli -p {server.port} PING; done"
        subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=60)
        assert agent.process.stop() == 0, agent.log
    overflow = [p.count for a, p in points(tmp_path) if a.get("otel.metric.overflow")]
    assert sum(overflow) > 0
    assert sum(counts(tmp_path).values()) == assert_all_accounted(agent)["observed"]
