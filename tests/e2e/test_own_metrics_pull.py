"""Own metrics as Prometheus pulls them: beside those of a real Collector that does the same, and by a real Prometheus."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sink import Sink
from support import servers
from support.agent import Agent
from support.foreign_batches import every_request
from support.processes import Process, free_port
from support.prometheus_query import query, value
from support.waiting import wait_until

#: what dashboards for Collectors ask for (docs of the Collector, "Internal telemetry"), of a pipeline that sends
SHARED = [
    "otelcol_receiver_accepted_spans",
    "otelcol_receiver_accepted_log_records",
    "otelcol_exporter_sent_spans",
    "otelcol_exporter_sent_log_records",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    "otelcol_processor_batch_timeout_trigger_send",
    "otelcol_process_cpu_seconds",
    "otelcol_process_memory_rss",
    "otelcol_process_uptime",
    "target_info",
]
#: labels of a Collector alone: its queues are of a signal each, and what was sent says where to, which dashboards sum over
OF_A_COLLECTOR = {"data_type", "server_address", "server_port", "url_path"}


@dataclass(frozen=True)
class Family:
    """type: of the text format. labels: names, of each series."""

    type: str
    labels: set[frozenset[str]]
    values: dict[str, float]


def scraped(port: int) -> dict[str, Family]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    families: dict[str, Family] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, type_ = line.split(" ")
            families[name] = Family(type_, set(), {})
        elif not line.startswith("#"):
            name, labels, number = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]
            if name in families:
                families[name].labels.add(frozenset(re.findall(r'(\w+)="', labels or "")))
                families[name].values[labels or ""] = float(number)
    return families


def configuration(http_port: int, own_port: int, backend: int) -> dict[str, Any]:
    """The same for a Collector and for wirespan."""
    pipeline = {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp_http"]}
    prometheus = {"prometheus": {"host": "127.0.0.1", "port": own_port}}
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{http_port}"}}}},
        "processors": {"batch": {"timeout": "100ms"}},
        "exporters": {"otlp_http": {"endpoint": f"http://127.0.0.1:{backend}"}},
        "service": {
            "pipelines": {"traces": pipeline, "logs": pipeline},
            "telemetry": {"metrics": {"readers": [{"pull": {"exporter": prometheus}}]}},
        },
    }


@contextmanager
def collector(config: dict[str, Any], folder: Path) -> Iterator[None]:
    path = folder / "collector.yaml"
    path.write_text(yaml.safe_dump(config))
    with Process("otelcol", [servers.need_tool("otelcol"), "--config", path], folder) as process:
        process.wait_for_log("Everything is ready")
        yield


def send(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for signal in ("traces", "logs"):
        body = every_request()[signal].SerializeToString()
        connection.request("POST", f"/v1/{signal}", body, {"Content-Type": "application/x-protobuf"})
        response = connection.getresponse()
        assert (response.status, response.read() is not None) == (200, True)


@pytest.mark.requires_tool("otelcol")
def test_a_scrape_of_wirespan_looks_like_one_of_a_collector(tmp_path: Path) -> None:
    """Names, types and labels; and what is counted of the same requests."""
    with Sink() as sink:
        receiving, own = free_port(), free_port()
        config = configuration(receiving, own, sink.http_port)
        with collector(config, tmp_path):
            send(receiving)
            wait_until("what the Collector sent", lambda: "otelcol_exporter_sent_log_records" in scraped(own))
            of_collector = scraped(own)
        with Agent(config, tmp_path):
            send(receiving)
            wait_until("what wirespan sent", lambda: "otelcol_exporter_sent_log_records" in scraped(own))
            ours = scraped(own)
    for name in SHARED:
        theirs = of_collector[name]
        assert ours[name].type == theirs.type, name
        if name != "target_info":
            assert ours[name].labels == {labels - OF_A_COLLECTOR for labels in theirs.labels}, name
        if name.startswith(("otelcol_receiver_", "otelcol_exporter_sent_")):
            assert list(ours[name].values.values()) == list(theirs.values.values()), name
    assert set().union(*of_collector["target_info"].labels) <= set().union(*ours["target_info"].labels)


@pytest.mark.requires_tool("prometheus")
def test_prometheus_scrapes_it(tmp_path: Path) -> None:
    with Sink() as sink:
        receiving, own = free_port(), free_port()
        scraping = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "wirespan", "static_configs": [{"targets": [f"127.0.0.1:{own}"]}]}],
        }
        with (
            Agent(configuration(receiving, own, sink.http_port), tmp_path),
            servers.prometheus(tmp_path, scraping) as prometheus,
        ):
            send(receiving)
            wait_until("the sent spans", lambda: query(prometheus, 'otelcol_exporter_sent_spans{exporter="otlp_http"}'))
            assert value(prometheus, "up") == 1
            sent = value(prometheus, "sum(otelcol_exporter_sent_spans)")
            assert sent == value(prometheus, "sum(otelcol_receiver_accepted_spans)") > 0
            assert value(prometheus, 'sum(otelcol_processor_incoming_items{otel_signal="traces"})') == sent
            assert value(prometheus, "otelcol_process_memory_rss") > 10_000_000
            (info,) = query(prometheus, "target_info")
            assert info.labels["service_name"] == "wirespan"


def test_a_second_agent_runs_without_where_the_default_port_is_taken(tmp_path: Path) -> None:
    def gateway(port: int) -> dict[str, Any]:
        config = configuration(port, 0, 9)
        del config["service"]["telemetry"]
        return config

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Agent(gateway(free_port()), first), Agent(gateway(free_port()), second) as agent:
        assert "Own metrics are not served to Prometheus" in agent.log
        assert "otelcol_process_uptime" in scraped(8888)  # of whoever was first


def test_an_agent_does_not_start_without_a_port_that_was_asked_for(tmp_path: Path) -> None:
    with Sink() as sink, pytest.raises(AssertionError, match="own metrics cannot listen on 127"):
        Agent(configuration(free_port(), sink.http_port, 9), tmp_path)
