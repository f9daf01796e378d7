"""Own metrics as Prometheus reads them: spelled as a Collector spells its own, and served as one serves them."""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.processes import free_port
from support.spellings import SPELLINGS, Spelling, emitted_metrics
from wirespan.pipeline.component import StartError
from wirespan.pipeline.counters import Counters
from wirespan.service.emitted import documented_metrics, own_resource
from wirespan.service.metrics_listener import MetricsListener
from wirespan.service.own_cost import count_process
from wirespan.service.prometheus_text import CONTENT_TYPE, PrometheusText
from wirespan.service.settings import MetricsSettings, PrometheusSettings

SHORT, LONG = PrometheusSettings(), PrometheusSettings(without_type_suffix=False, without_units=False)


def text_of(counters: Counters, settings: PrometheusSettings = SHORT) -> str:
    return PrometheusText(counters, settings, {"service.name": "wirespan", "host.name": "here"}).text()


def test_names_labels_and_types_are_those_of_a_collector() -> None:
    counters = Counters()
    counters.add("otelcol_receiver_accepted_spans", 3, receiver="otlp", transport="grpc")
    counters.add("otelcol_receiver_accepted_spans", 4, receiver="otlp/b", transport="http")
    counters.add("otelcol_processor_incoming_items", 7, processor="batch", **{"otel.signal": "traces"})
    counters.gauge("otelcol_exporter_queue_size", lambda: 5, exporter="otlp_grpc")
    counters.duration_source(lambda: {("otelcol_process_cpu_seconds", ()): 1.5})
    assert text_of(counters) == (
        "# HELP otelcol_exporter_queue_size What the sending queue holds, requests being sent included, "
        "in the unit of its sizer.\n"
        "# TYPE otelcol_exporter_queue_size gauge\n"
        'otelcol_exporter_queue_size{exporter="otlp_grpc"} 5\n'
        "# HELP otelcol_process_cpu_seconds CPU time, user and system.\n"
        "# TYPE otelcol_process_cpu_seconds counter\n"
        "otelcol_process_cpu_seconds 1.5\n"
        "# HELP otelcol_processor_incoming_items Items that came to a processor. By attributes `processor` and "
        "`otel.signal`.\n"
        "# TYPE otelcol_processor_incoming_items counter\n"
        'otelcol_processor_incoming_items{otel_signal="traces",processor="batch"} 7\n'
        "# HELP otelcol_receiver_accepted_spans Spans that were handed on. By attributes `receiver` and `transport`.\n"
        "# TYPE otelcol_receiver_accepted_spans counter\n"
        'otelcol_receiver_accepted_spans{receiver="otlp",transport="grpc"} 3\n'
        'otelcol_receiver_accepted_spans{receiver="otlp/b",transport="http"} 4\n'
        "# HELP target_info Target metadata\n"
        "# TYPE target_info gauge\n"
        'target_info{service_name="wirespan",host_name="here"} 1\n'
    )


def test_what_a_plug_in_counts_is_there_and_cannot_break_the_rest() -> None:
    counters = Counters()
    counters.add("shop.sold-items", 1, **{"a.b": 'said "x\\y"\nand left'})
    assert 'shop_sold_items{a_b="said \\"x\\\\y\\"\\nand left"} 1\n' in text_of(counters)


@pytest.mark.parametrize(("settings", "spelling"), [(SHORT, SPELLINGS[1]), (LONG, SPELLINGS[0])], ids=["short", "long"])
def test_every_metric_is_spelled_as_the_rules_and_dashboards_of_a_strategy(
    settings: PrometheusSettings, spelling: Spelling
) -> None:
    counters = Counters()
    names = {name: facts for name, facts in emitted_metrics().items() if facts.type in ("sum", "gauge")}
    for name, facts in names.items():
        if facts.type == "sum":
            counters.add(name, 1)
        else:
            counters.gauge(name, lambda: 1)
    lines = {line for line in text_of(counters, settings).splitlines() if not line.startswith("#")}
    counted = documented_metrics()  # the others go to pipelines of metrics
    assert {f"{spelling.metric(name)} 1" for name in names if name in counted} <= lines


def test_what_emits_is_a_label_if_that_is_wanted() -> None:
    counters = Counters()
    counters.add("a", 1)
    assert 'a{otel_scope_name="wirespan",otel_scope_version="' in text_of(
        counters, PrometheusSettings(without_scope_info=False)
    )


@contextmanager
def serving(port: int, counters: Counters, *, wanted: bool = True) -> Iterator[None]:
    settings = PrometheusSettings(host="127.0.0.1", port=port)
    server = MetricsListener([settings], counters, own_resource(), wanted)
    try:
        yield
    finally:
        server.stop()


def asked(port: int, path: str = "/metrics") -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.getheader("Content-Type"), response.read().decode()


def test_a_scrape_reads_everything_anew() -> None:
    port, counters = free_port(), Counters()
    count_process(counters)
    with serving(port, counters):
        status, content_type, text = asked(port)
        assert (status, content_type) == (200, CONTENT_TYPE)
        assert "otelcol_process_memory_rss" in text
        counters.add("otelcol_exporter_sent_spans", 9, exporter="file")
        assert 'otelcol_exporter_sent_spans{exporter="file"} 9\n' in asked(port)[2]
        assert asked(port, "/")[0] == 404


def test_a_port_in_use_is_fatal_only_if_it_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(StartError, match=f"own metrics cannot listen on 127.0.0.1:{port}: "),
            serving(port, Counters()),
        ):
            pass
        with caplog.at_level(logging.WARNING), serving(port, Counters(), wanted=False):
            (record,) = caplog.records
    assert record.getMessage() == "Own metrics are not served to Prometheus"


@pytest.mark.parametrize(
    ("given", "pulled", "pushed", "is_default"),
    [
        ({}, 1, 0, True),
        ({"level": "none"}, 0, 0, True),
        ({"readers": []}, 0, 0, False),
        ({"readers": [{"pull": {"exporter": {"prometheus": {}}}}]}, 1, 0, False),
        ({"readers": [{"periodic": {"exporter": {"otlp": {"endpoint": "http://a"}}}}]}, 0, 1, False),
    ],
)
def test_readers_are_as_in_the_collector(given: object, pulled: int, pushed: int, is_default: bool) -> None:
    settings = MetricsSettings.model_validate(given)
    assert (len(settings.pulled), len(settings.pushed), settings.is_default) == (pulled, pushed, is_default)


@pytest.mark.parametrize(
    "reader", [{}, {"periodic": {"exporter": {"otlp": {"endpoint": "a"}}}, "pull": {"exporter": {}}}]
)
def test_a_reader_is_pulled_or_periodic(reader: object) -> None:
    with pytest.raises(ValueError, match=r"needs periodic or pull|Field required"):
        MetricsSettings.model_validate({"readers": [reader]})
