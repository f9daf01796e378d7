"""The agent sends what it counts of real traffic, and what it counts of itself, to a real Prometheus: counts are those of
its spans, quantiles are theirs within a bucket, and a server that fails makes an alert."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pytest

from support import servers
from support.agent import Agent
from support.alerting import impatient
from support.availability import need_command
from support.exchanges import PROGRAMS, of_kind
from support.processes import free_port
from support.prometheus_query import alerts, exemplars, query, rule_problems, value
from support.servers import Prometheus
from support.spans import Span
from support.waiting import wait_until

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.requires_tool("prometheus"),
    pytest.mark.requires_command("nginx", "ab"),
]

CONNECTIONS, REQUESTS_EACH = 10, 200
BROKEN = 300
REFUSED = 60
STRATEGY = "UnderscoreEscapingWithSuffixes"


@dataclass(frozen=True)
class Run:
    prometheus: Prometheus
    spans: list[Span]
    working_port: int
    broken_port: int
    closed_port: int

    def at(self, port: int, kind: str) -> list[Span]:
        return [span for span in of_kind(self.spans, kind) if span["attributes"]["server.port"] == port]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        prometheus = stack.enter_context(servers.prometheus(folder, impatient(STRATEGY, folder)))
        working = stack.enter_context(servers.python_server(PROGRAMS / "working_server.py", folder))
        broken = stack.enter_context(servers.nginx(folder, "location / { return 503; }"))
        ports = [working.port, broken.port, free_port()]
        agent = stack.enter_context(Agent(configuration(prometheus, ports), folder))
        make_traffic(*ports)
        yield Run(prometheus, agent.stop(), *ports)


def configuration(prometheus: Prometheus, ports: list[int]) -> dict[str, object]:
    own = {"otlp": {"protocol": "http/protobuf", "endpoint": f"{prometheus.otlp_endpoint}/v1/metrics"}}
    return {
        "receivers": {
            "ebpf": {"select": {"ports": ports}, "spans": {"probability": 1}, "metrics": {"interval": "1s"}},
        },
        "exporters": {"otlp_http": {"endpoint": prometheus.otlp_endpoint}, "file": {}},
        "service": {
            "pipelines": {
                "traces": {"receivers": ["ebpf"], "exporters": ["file"]},
                "metrics": {"receivers": ["ebpf"], "exporters": ["otlp_http"]},
            },
            "telemetry": {"metrics": {"readers": [{"periodic": {"interval": 1000, "exporter": own}}]}},
        },
    }


def make_traffic(working_port: int, broken_port: int, closed_port: int) -> None:
    """Requests that take from a tenth of a millisecond to some 30, requests that fail, and connections that are refused."""
    for _ in range(REFUSED):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", closed_port))
    ab = [need_command("ab"), "-q", "-k", "-n", str(BROKEN), f"http://127.0.0.1:{broken_port}/"]
    subprocess.run(ab, check=True, capture_output=True)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        assert all(pool.map(ask, [working_port] * CONNECTIONS, range(CONNECTIONS)))


def ask(port: int, seed: int) -> bool:
    chance = random.Random(seed)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(REQUESTS_EACH):
            connection.sendall(min(int(chance.lognormvariate(6.9, 1.2)), 30_000).to_bytes(4, "big"))
            assert len(connection.recv(16, socket.MSG_WAITALL)) == 16
    return True


def durations(port: int, kind: str) -> str:
    return f"wirespan_exchange_duration_seconds{{server_port='{port}', span_kind='SPAN_KIND_{kind}'}}"


@pytest.mark.parametrize("kind", ["SERVER", "CLIENT"])
def test_prometheus_counts_the_exchanges_that_became_spans(run: Run, kind: str) -> None:
    for port, exchanges in ((run.working_port, CONNECTIONS * REQUESTS_EACH), (run.broken_port, BROKEN)):
        assert len(run.at(port, kind)) == exchanges
        assert value(run.prometheus, f"histogram_count(sum({durations(port, kind)}))") == exchanges


@pytest.mark.parametrize("kind", ["SERVER", "CLIENT"])
def test_quantiles_are_those_of_the_spans_within_a_bucket(run: Run, kind: str) -> None:
    took = np.array([span["end"] - span["start"] for span in run.at(run.working_port, kind)]) / 1e9
    assert took.max() > 20 * took.min()
    for quantile in (0.01, 0.25, 0.5, 0.75, 0.9, 0.99):
        exact = np.quantile(took, quantile, method="inverted_cdf")
        found = value(run.prometheus, f"histogram_quantile({quantile}, sum({durations(run.working_port, kind)}))")
        assert abs(np.log2(found / exact)) <= 1 / 8, (quantile, found, exact)
    total = value(run.prometheus, f"histogram_sum(sum({durations(run.working_port, kind)}))")
    assert total == pytest.approx(took.sum(), rel=1e-6)


def test_a_job_is_a_service(run: Run) -> None:
    found = {
        sample.labels["job"] for sample in query(run.prometheus, "sum by (job) (wirespan_exchange_io_bytes_total)")
    }
    assert found == {span["resource"]["service.name"] for span in run.spans}


def test_the_agent_says_on_which_node_it_is(run: Run) -> None:
    observed = "wirespan_exchanges_observed_total * on (job, instance) group_left (host_name) target_info"
    (sample,) = query(run.prometheus, observed)
    assert sample.labels["job"] == "wirespan"
    assert sample.labels["host_name"] == os.uname().nodename
    assert sample.value == len(run.spans)


@pytest.mark.parametrize("kind", ["SERVER", "CLIENT"])
def test_prometheus_knows_how_well_connections_do(run: Run, kind: str) -> None:
    end = f"{{server_port='{run.working_port}', span_kind='SPAN_KIND_{kind}'}}"
    assert value(run.prometheus, f"wirespan_tcp_connects_total{end}") == CONNECTIONS
    assert 0 < value(run.prometheus, f"histogram_quantile(0.5, sum(wirespan_tcp_srtt_seconds{end}))") < 0.1


@pytest.mark.parametrize("kind", ["SERVER", "CLIENT"])
def test_prometheus_has_the_durations_of_the_conventions(run: Run, kind: str) -> None:
    counted = f"http_{kind.lower()}_request_duration_seconds_count{{http_response_status_code='503', error_type='503'}}"
    (sample,) = query(run.prometheus, counted)
    assert sample.value == BROKEN
    assert (sample.labels["server_port"], sample.labels["http_request_method"]) == (str(run.broken_port), "GET")


@pytest.mark.parametrize(
    "metric", ["wirespan_exchange_duration_seconds", "http_server_request_duration_seconds_bucket"]
)
def test_prometheus_keeps_exemplars_that_are_spans(run: Run, metric: str) -> None:
    spans = {(span["trace_id"], span["span_id"]): span for span in run.spans}
    found = exemplars(run.prometheus, f"{metric}{{server_port='{run.broken_port}'}}")
    assert found
    for exemplar in found:
        span = spans[exemplar.labels["trace_id"], exemplar.labels["span_id"]]
        assert span["attributes"]["server.port"] == run.broken_port
        assert exemplar.value == pytest.approx((span["end"] - span["start"]) / 1e9)


def test_a_server_that_fails_makes_an_alert_at_both_of_its_ends(run: Run) -> None:
    failing = firing(run, "WirespanErrorRate", at_least=3)
    assert {(labels["server_port"], labels["span_kind"]) for labels in failing} == {
        (str(run.broken_port), "SPAN_KIND_SERVER"),
        (str(run.broken_port), "SPAN_KIND_CLIENT"),
        (
            str(run.closed_port),
            "SPAN_KIND_CLIENT",
        ),  # a connection that cannot be made is an exchange without a response
    }


def test_connections_that_are_refused_make_an_alert(run: Run) -> None:
    refused = f"wirespan_tcp_connect_failures_total{{server_port='{run.closed_port}', error_type='connection_refused'}}"
    assert value(run.prometheus, f"sum({refused})") == REFUSED
    (labels,) = firing(run, "WirespanConnectFailures", at_least=1)
    assert labels["server_port"] == str(run.closed_port)


def firing(run: Run, name: str, at_least: int) -> list[dict[str, str]]:
    """The labels of an alert's instances, as soon as there are so many."""

    def labels() -> list[dict[str, str]]:
        return [alert["labels"] for alert in alerts(run.prometheus) if alert["labels"]["alertname"] == name]

    wait_until(f"{at_least} alerts {name}", lambda: len(labels()) >= at_least)
    assert rule_problems(run.prometheus) == []
    return labels()
