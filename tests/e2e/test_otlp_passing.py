"""In the middle of Collectors: what one sends arrives behind the other once and equal, field by field."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3
import yaml

from sink import Answer, Sink
from support import servers
from support.agent import Agent
from support.exchanges import accounts
from support.foreign_batches import Request, every_log, every_span, items_of
from support.metric_batches import every_kind
from support.outages import outages
from support.processes import free_port
from support.receiving import METHOD_OF
from support.waiting import wait_until
from wirespan.pipeline.component import Signal

pytestmark = pytest.mark.requires_tool("otelcol")

REQUESTS = 50
#: of outages; a newcomer's run stays short
SECONDS = 30 if os.environ.get("CI") == "true" else 8
KEYS: dict[str, str] = {"otlp_grpc": "grpc", "otlp_http": "http"}


@dataclass
class Chain:
    """client → Collector → wirespan → Collector → sink, all by one protocol, with gzip."""

    protocol: str
    front: servers.Collector
    agent: Agent
    sink: Sink

    def send(self, signal: Signal, requests: list[Request]) -> None:
        if self.protocol == "otlp_grpc":
            with grpc.insecure_channel(f"127.0.0.1:{self.front.grpc_port}") as channel:
                for request in requests:
                    channel.unary_unary(METHOD_OF[signal])(request.SerializeToString(), timeout=10)
            return
        headers = {"Content-Type": "application/x-protobuf"}
        url = f"http://127.0.0.1:{self.front.http_port}/v1/{signal}"
        for request in requests:
            assert urllib3.request("POST", url, body=request.SerializeToString(), headers=headers).status == 200


@pytest.fixture(scope="module", params=["otlp_grpc", "otlp_http"])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    protocol: str = request.param
    folder: Path = tmp_path_factory.mktemp("chain")
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(grpc_port=None))
        assert sink.http_port is not None
        behind = stack.enter_context(servers.relay(folder / "behind", "otlp_http", sink.http_port))
        port, next_port = free_port(), behind.grpc_port if protocol == "otlp_grpc" else behind.http_port
        exporter = {"endpoint": f"http://127.0.0.1:{next_port}", "compression": "gzip"}
        pipeline = {"receivers": ["otlp"], "exporters": [protocol]}
        configuration: dict[str, Any] = {
            "receivers": {"otlp": {"protocols": {KEYS[protocol]: {"endpoint": f"127.0.0.1:{port}"}}}},
            "exporters": {protocol: exporter},
            "service": {
                "pipelines": dict.fromkeys(("traces", "metrics", "logs"), pipeline),
                "telemetry": {"logs": {"encoding": "json"}},
            },
        }
        agent = stack.enter_context(Agent(configuration, folder))
        front = stack.enter_context(servers.relay(folder / "front", protocol, port))
        yield Chain(protocol, front, agent, sink)


def in_order(requests: list[Any]) -> list[bytes]:
    return sorted(request.SerializeToString(deterministic=True) for request in requests)


def numbered_spans() -> list[Request]:
    requests = []
    for number in range(REQUESTS):
        request = every_span(5)
        for i, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
            span.span_id = (1 + 5 * number + i).to_bytes(8, "big")
        requests.append(request)
    return requests


def numbered_metrics() -> list[Request]:
    requests = [every_kind() for _ in range(REQUESTS)]
    for number, request in enumerate(requests):
        for group in request.resource_metrics:
            for metric in group.scope_metrics[0].metrics:
                metric.description = f"number {number}"
    return [*requests]


def numbered_logs() -> list[Request]:
    requests = [every_log(3) for _ in range(REQUESTS)]
    for number, request in enumerate(requests):
        for record in request.resource_logs[0].scope_logs[0].log_records[1:]:
            record.body.string_value += f" of {number}"
    return [*requests]


def test_spans_arrive_once_and_equal(chain: Chain) -> None:
    sent = numbered_spans()
    chain.send("traces", sent)
    wait_until("all spans behind", lambda: chain.sink.span_count >= 5 * REQUESTS)
    arrived = [type(sent[0]).FromString(payload) for payload in chain.sink.payloads]
    assert in_order(arrived) == in_order(sent)


def test_metrics_arrive_once_and_equal(chain: Chain) -> None:
    sent = numbered_metrics()
    chain.send("metrics", sent)
    wait_until("all metrics behind", lambda: len(chain.sink.metrics) >= REQUESTS)
    assert in_order(chain.sink.metrics) == in_order(sent)


def test_logs_arrive_once_and_equal(chain: Chain) -> None:
    sent = numbered_logs()
    chain.send("logs", sent)
    wait_until("all logs behind", lambda: len(chain.sink.logs) >= REQUESTS)
    assert in_order(chain.sink.logs) == in_order(sent)


def test_what_finds_no_room_is_sent_again_by_a_collector_until_there_is_some(chain: Chain, tmp_path: Path) -> None:
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(grpc_port=None))
        sink.answers.extend([Answer(http_status=503, delay=0.02)] * 40)
        port, key = free_port(), KEYS[chain.protocol]
        exporter = {
            "endpoint": f"http://127.0.0.1:{sink.http_port}",
            "sending_queue": {"queue_size": 2, "num_consumers": 1},
            "retry_on_failure": {"initial_interval": "20ms", "max_interval": "50ms"},
        }
        configuration = {
            "receivers": {"otlp": {"protocols": {key: {"endpoint": f"127.0.0.1:{port}"}}}},
            "exporters": {"otlp_http": exporter},
            "service": {
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}},
                "telemetry": {"logs": {"encoding": "json"}},
            },
        }
        agent = stack.enter_context(Agent(configuration, tmp_path))
        front = stack.enter_context(servers.relay(tmp_path / "front", chain.protocol, port))
        sent = numbered_spans()
        Chain(chain.protocol, front, agent, sink).send("traces", sent)
        wait_until("all spans", lambda: sink.span_count >= 5 * REQUESTS, 60)
        agent.stop()
        arrived = [type(sent[0]).FromString(payload) for payload in sink.payloads]
        assert in_order(arrived) == in_order(sent)
        (account,) = accounts(agent)
        assert account["exported"] == 5 * REQUESTS
        assert account["dropped"]["enqueue_failed"] > 0, "nothing was refused"
        assert account["unaccounted"] == 0
        assert "Sending queue is full." in agent.log


def test_a_backend_that_is_killed_again_and_again_gets_everything(tmp_path: Path) -> None:
    """Between its ends nothing is lost; what was under way at one of them may come twice. `make soak` does it for longer."""
    found = outages(SECONDS, tmp_path)
    print(found)
    assert found.flaws() == []
    assert found.sent > 20 * SECONDS


def test_the_json_of_a_collector_arrives_once_and_equal(tmp_path: Path) -> None:
    port = free_port()
    pipeline = {"receivers": ["otlp"], "exporters": ["otlp_http"]}
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(grpc_port=None))
        configuration = {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
            "exporters": {"otlp_http": {"endpoint": f"http://127.0.0.1:{sink.http_port}"}},
            "service": {"pipelines": dict.fromkeys(("traces", "metrics", "logs"), pipeline)},
        }
        agent = stack.enter_context(Agent(configuration, tmp_path))
        front = stack.enter_context(servers.relay(tmp_path / "front", "otlp_http", port, exporter={"encoding": "json"}))
        chain = Chain("otlp_http", front, agent, sink)
        sent: dict[Signal, list[Any]] = {
            "traces": numbered_spans(),
            "metrics": numbered_metrics(),
            "logs": numbered_logs(),
        }
        for signal, requests in sent.items():
            chain.send(signal, requests)
        arriving: dict[Signal, list[bytes]] = {
            "traces": sink.payloads,
            "metrics": sink.metrics_payloads,
            "logs": sink.logs_payloads,
        }
        wait_until("all requests", lambda: all(len(payloads) >= REQUESTS for payloads in arriving.values()))
        for signal, payloads in arriving.items():
            assert in_order([type(sent[signal][0]).FromString(payload) for payload in payloads]) == in_order(
                sent[signal]
            )


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_what_is_split_and_joined_on_the_way_arrives_once_and_equal(signal: Signal, tmp_path: Path) -> None:
    """Split by a Collector, joined as config/gateway.yaml has it, and joined by another Collector."""
    configuration = yaml.safe_load((Path(__file__).parents[2] / "config" / "gateway.yaml").read_text())
    numbered = {"traces": numbered_spans, "metrics": numbered_metrics, "logs": numbered_logs}
    sent: list[Any] = numbered[signal]()
    port = free_port()
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(grpc_port=None))
        assert sink.http_port is not None
        behind = stack.enter_context(servers.relay(tmp_path / "behind", "otlp_http", sink.http_port, batch={}))
        configuration["receivers"]["otlp"]["protocols"] = {"grpc": {"endpoint": f"127.0.0.1:{port}"}}
        configuration["exporters"]["otlp_grpc"]["endpoint"] = f"http://127.0.0.1:{behind.grpc_port}"
        agent = stack.enter_context(Agent(configuration, tmp_path))
        small = {"send_batch_size": 2, "send_batch_max_size": 2, "timeout": "20ms"}
        front = stack.enter_context(servers.relay(tmp_path / "front", "otlp_grpc", port, batch=small))
        Chain("otlp_grpc", front, agent, sink).send(signal, sent)
        payloads = {"traces": sink.payloads, "metrics": sink.metrics_payloads, "logs": sink.logs_payloads}[signal]

        def arrived() -> list[Any]:
            return [item for payload in list(payloads) for item in items_of(type(sent[0]).FromString(payload))]

        expected = [item for request in sent for item in items_of(request)]
        wait_until("all behind", lambda: len(arrived()) >= len(expected))
        agent.stop()
        assert in_order(arrived()) == in_order(expected)
        assert len(payloads) < REQUESTS // 2


def test_the_identity_of_what_only_passed_holds(chain: Chain) -> None:
    chain.send("traces", numbered_spans())
    chain.agent.stop()
    (account,) = accounts(chain.agent)
    assert account["observed"] == account["exported"] >= 5 * REQUESTS
    assert account["unaccounted"] == 0
