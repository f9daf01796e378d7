"""The agent's own telemetry: log formats, the identity of all exchanges, and metrics and logs over OTLP."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from support.waiting import wait_until
from wirespan.pipeline.counters import Counters
from wirespan.receiver.otlp.receiver import FACTORY as OTLP
from wirespan.service.config import ComponentSettings, Configuration, Pipeline
from wirespan.service.emitted import own_resource
from wirespan.service.identity import identities
from wirespan.service.logs import ConsoleFormatter, JsonFormatter
from wirespan.service.own_cost import count_process
from wirespan.service.own_telemetry import OwnTelemetry
from wirespan.service.settings import TelemetrySettings


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    logger = logging.Logger("wirespan.test")
    made = logger.makeRecord(logger.name, level, __file__, 1, message, (), None, extra=extra)
    made.created = 0.25
    return made


def failed_record() -> logging.LogRecord:
    made = record("broke", logging.ERROR)
    try:
        raise LookupError("lost")
    except LookupError:
        made.exc_info = sys.exc_info()
    return made


def test_a_console_line_is_time_level_message_and_fields() -> None:
    line = ConsoleFormatter().format(record("Shutting down", spans=3, exporter="file", why="no more", dropped={"a": 1}))
    at, *rest = line.split("\t")
    assert rest == ["info", "Shutting down", 'spans=3 exporter=file why="no more" dropped={"a": 1}']
    assert at[-10:-6] == ".250"


def test_a_console_value_cannot_pass_for_another_field() -> None:
    line = ConsoleFormatter().format(record("x", a="b c=d", e="", f="g\nh"))
    assert line.endswith('\ta="b c=d" e="" f="g\\nh"')


def test_a_json_line_has_the_collectors_keys_and_the_fields() -> None:
    entry = json.loads(JsonFormatter().format(record("Sent", logging.WARNING, spans=3)))
    assert entry.pop("ts").endswith(tuple("0123456789"))
    assert entry == {"level": "warn", "logger": "wirespan.test", "msg": "Sent", "spans": 3}


def test_an_exception_is_logged_with_its_trace() -> None:
    assert "LookupError: lost" in ConsoleFormatter().format(failed_record())
    assert "LookupError: lost" in json.loads(JsonFormatter().format(failed_record()))["stacktrace"]


def configuration(*pipelines: tuple[str, ...]) -> Configuration:
    made = tuple(Pipeline(f"traces/{n}", ("ebpf",), (), exporters) for n, exporters in enumerate(pipelines))
    return Configuration({"receiver": {}, "processor": {}, "exporter": {}}, made, TelemetrySettings(), ())


def counted() -> Counters:
    counters = Counters()
    counters.add("wirespan.exchanges.observed", 100)
    counters.add("wirespan.exchanges.sampled_out", 20)
    counters.add("wirespan.exchanges.dropped", 3, reason="ring_full")
    counters.add("wirespan.exchanges.dropped", 4, reason="ring_full", ring="segments")
    counters.gauge("wirespan.exchanges.in_flight", lambda: 5)
    counters.add("otelcol_exporter_sent_spans", 60, exporter="file")
    counters.add("otelcol_exporter_enqueue_failed_spans", 1, exporter="file")
    counters.gauge("wirespan.exporter.in_flight_spans", lambda: 7, exporter="file")
    return counters


def test_the_identity_sums_what_each_part_counted() -> None:
    (identity,) = identities(counted(), configuration(("file",)))
    assert (identity.observed, identity.exported, identity.sampled_out, identity.in_flight) == (100, 60, 20, 12)
    assert identity.dropped == {"ring_full": 7, "enqueue_failed": 1}
    assert identity.unaccounted == 0
    assert identity.coverage == 0.8


def test_the_identity_is_a_sum_to_read() -> None:
    counters = counted()
    (identity,) = identities(counters, configuration(("file",)))
    assert identity.fields()["sum"] == (
        "100 observed = 60 exported + 20 sampled_out + 7 dropped by ring_full + 1 dropped by enqueue_failed + 12 in_flight"
    )
    counters.add("wirespan.exchanges.observed", 2)
    (identity,) = identities(counters, configuration(("file",)))
    assert identity.fields()["sum"].endswith(" + 12 in_flight + 2 unaccounted")
    (nothing,) = identities(Counters(), configuration(("file",)))
    assert nothing.fields()["sum"] == "0 observed = 0 exported"


def test_what_a_storage_carries_from_run_to_run_is_a_part_of_the_identity() -> None:
    counters = counted()
    counters.add("wirespan.exporter.recovered_spans", 30, exporter="file")
    counters.add("wirespan.exporter.recovered_spans", 5, exporter="debug")
    counters.add("wirespan.exporter.recovered_metric_points", 5, exporter="file")
    counters.add("wirespan.exporter.kept_spans", 10, exporter="file")
    counters.add("otelcol_exporter_sent_spans", 20, exporter="file")
    (identity,) = identities(counters, configuration(("file",)))
    assert (identity.recovered, identity.kept, identity.unaccounted) == (30, 10, 0)
    assert identity.sum.startswith("100 observed + 30 recovered = 80 exported")
    assert identity.sum.endswith(" + 12 in_flight + 10 kept")
    assert identity.coverage == 100 / 120
    assert {"recovered": 30, "kept": 10}.items() <= identity.fields().items()


def test_what_exceeds_the_budget_is_said_to_be_no_defect() -> None:
    counters = counted()
    (identity,) = identities(counters, configuration(("file",)))
    assert "note" not in identity.fields()
    counters.add("wirespan.exchanges.dropped", 1, reason="rate_limit")
    (identity,) = identities(counters, configuration(("file",)))
    assert identity.fields()["note"].startswith("rate_limit is no defect")


def test_what_nobody_counted_is_unaccounted() -> None:
    counters = counted()
    counters.add("wirespan.exchanges.observed", 2)
    (identity,) = identities(counters, configuration(("file",)))
    assert identity.unaccounted == 2


def test_each_exporter_has_an_identity_of_its_own() -> None:
    counters = counted()
    counters.add("otelcol_exporter_sent_spans", 68, exporter="debug")
    assert [
        (identity.exporter, identity.exported, identity.unaccounted)
        for identity in identities(counters, configuration(("file", "debug")))
    ] == [("file", 60, 0), ("debug", 68, 0)]


def test_an_exporter_of_two_pipelines_is_to_get_everything_twice() -> None:
    counters = counted()
    counters.add("otelcol_exporter_sent_spans", 68, exporter="file")
    (identity,) = identities(counters, configuration(("file",), ("file",)))
    assert (identity.observed, identity.unaccounted) == (200, 0)


def test_what_came_by_otlp_is_observed_by_the_exporters_of_its_pipelines_alone() -> None:
    otlp = ComponentSettings("otlp", OTLP, OTLP.config.model_validate({"protocols": {"grpc": None}}))
    pipelines = (
        Pipeline("traces/seen", ("ebpf",), (), ("file", "both")),
        Pipeline("traces/passed", ("otlp",), (), ("debug", "both")),
    )
    settings = Configuration(
        {"receiver": {"otlp": otlp}, "processor": {}, "exporter": {}}, pipelines, TelemetrySettings(), ()
    )
    counters = counted()
    counters.add("otelcol_receiver_accepted_spans", 30, receiver="otlp", transport="grpc")
    counters.add("otelcol_receiver_accepted_spans", 9, receiver="otlp", transport="http")
    counters.add("otelcol_receiver_refused_spans", 1, receiver="otlp", transport="http")
    counters.add("otelcol_exporter_sent_spans", 39, exporter="debug")
    counters.add("otelcol_exporter_enqueue_failed_spans", 1, exporter="debug")
    counters.add("otelcol_exporter_sent_spans", 108, exporter="both")
    found = {
        identity.exporter: (identity.observed, identity.unaccounted) for identity in identities(counters, settings)
    }
    assert found == {"file": (100, 0), "both": (140, 0), "debug": (40, 0)}


def test_what_processors_refuse_hold_or_lose_is_accounted_for_where_they_stand() -> None:
    otlp = ComponentSettings("otlp", OTLP, OTLP.config.model_validate({"protocols": {"grpc": None}}))
    pipelines = (
        Pipeline("traces/a", ("otlp",), ("memory_limiter", "batch"), ("file",)),
        Pipeline("traces/b", ("otlp",), (), ("debug",)),
    )
    settings = Configuration(
        {"receiver": {"otlp": otlp}, "processor": {}, "exporter": {}}, pipelines, TelemetrySettings(), ()
    )
    counters = Counters()
    counters.add("otelcol_receiver_accepted_spans", 30, receiver="otlp", transport="grpc")
    counters.add("otelcol_receiver_refused_spans", 5, receiver="otlp", transport="grpc")
    counters.add("otelcol_processor_refused_spans", 5, processor="memory_limiter", pipeline="traces/a")
    counters.gauge("wirespan.processor.in_flight_items", lambda: 7, processor="batch", pipeline="traces/a")
    counters.add("otelcol_exporter_sent_spans", 23, exporter="file")
    counters.add("otelcol_exporter_sent_spans", 35, exporter="debug")
    file, debug = identities(counters, settings)
    assert (file.observed, file.dropped, file.in_flight, file.unaccounted) == (35, {"refused": 5}, 7, 0)
    assert (debug.observed, debug.dropped, debug.in_flight, debug.unaccounted) == (35, {}, 0, 0)


def test_of_nothing_everything_is_covered() -> None:
    (identity,) = identities(Counters(), configuration(("file",)))
    assert identity.coverage == 1


class Backend:
    """What an OTLP receiver got, by signal, decoded."""

    def __init__(self) -> None:
        self.metrics: list[metrics_service_pb2.ExportMetricsServiceRequest] = []
        self.logs: list[logs_service_pb2.ExportLogsServiceRequest] = []

    def values(self) -> dict[Any, Any]:
        """The last value of each metric; those of several points by their attributes."""
        found: dict[Any, Any] = {}
        for request in self.metrics:
            for metric in request.resource_metrics[0].scope_metrics[0].metrics:
                for point in (metric.sum if metric.HasField("sum") else metric.gauge).data_points:
                    attributes = tuple((pair.key, pair.value.string_value) for pair in point.attributes)
                    found[(metric.name, *attributes)] = point.as_int or point.as_double
        return found

    def resource(self) -> dict[str, str]:
        (resource_metrics,) = self.metrics[-1].resource_metrics
        return {pair.key: pair.value.string_value for pair in resource_metrics.resource.attributes}


@contextmanager
def http_backend() -> Iterator[tuple[Backend, str]]:
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/metrics":
                backend.metrics.append(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
            elif self.path == "/v1/logs":
                backend.logs.append(logs_service_pb2.ExportLogsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not on the terminal of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield backend, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def grpc_backend() -> Iterator[tuple[Backend, str]]:
    backend = Backend()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> metrics_service_pb2.ExportMetricsServiceResponse:
            backend.metrics.append(request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    class Logs(logs_service_pb2_grpc.LogsServiceServicer):
        def Export(self, request: Any, context: Any) -> logs_service_pb2.ExportLogsServiceResponse:
            backend.logs.append(request)
            return logs_service_pb2.ExportLogsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield backend, f"127.0.0.1:{port}"
    server.stop(None)


def settings(protocol: str, endpoint: str, interval: int = 60_000) -> TelemetrySettings:
    exporter = {"otlp": {"protocol": protocol, "endpoint": endpoint, "insecure": True}}
    return TelemetrySettings.model_validate(
        {
            "metrics": {"readers": [{"periodic": {"interval": interval, "exporter": exporter}}]},
            "logs": {"processors": [{"batch": {"exporter": exporter}}]},
        }
    )


@pytest.mark.parametrize(
    ("protocol", "serve"), [("http/protobuf", http_backend), ("grpc", grpc_backend)], ids=["http", "grpc"]
)
def test_metrics_and_logs_arrive_at_the_latest_at_shutdown(protocol: str, serve: Any) -> None:
    counters = counted()
    count_process(counters)
    with serve() as (backend, endpoint):
        telemetry = OwnTelemetry(settings(protocol, endpoint), counters, own_resource())
        logging.getLogger("wirespan.test").warning("Queue is full", extra={"exporter": "file", "dropped": {"x": 1}})
        telemetry.shutdown(5)
    values = backend.values()
    assert values["wirespan.exchanges.observed",] == 100
    assert values["otelcol_exporter_sent_spans", ("exporter", "file")] == 60
    assert values["wirespan.exporter.in_flight_spans", ("exporter", "file")] == 7
    assert values["otelcol_process_memory_rss",] > 10_000_000
    assert values["otelcol_process_cpu_seconds",] > 0
    assert values["otelcol_process_uptime",] > 0
    assert backend.resource()["service.name"] == "wirespan"
    assert {"service.version", "service.instance.id"} <= backend.resource().keys()
    assert backend.resource()["host.name"] == os.uname().nodename
    (log,) = backend.logs[0].resource_logs[0].scope_logs[0].log_records
    assert (log.body.string_value, log.severity_text) == ("Queue is full", "WARNING")
    assert {pair.key for pair in log.attributes} >= {"exporter", "dropped"}


def test_a_counter_that_appears_later_is_exported_too() -> None:
    counters = Counters()
    count_process(counters)
    with http_backend() as (backend, endpoint):
        telemetry = OwnTelemetry(settings("http/protobuf", endpoint, interval=100), counters, own_resource())
        wait_until("two exports", lambda: len(backend.metrics) >= 2)
        counters.add("wirespan.exchanges.dropped", 3, reason="ring_full")
        telemetry.shutdown(5)
    assert backend.values()["wirespan.exchanges.dropped", ("reason", "ring_full")] == 3


def test_a_backend_that_is_down_does_not_hold_up_the_end() -> None:
    telemetry = OwnTelemetry(settings("http/protobuf", "http://127.0.0.1:9"), counted(), own_resource())
    logging.getLogger("wirespan.test").warning("anything")
    began = time.monotonic()
    telemetry.shutdown(0.5)
    assert time.monotonic() - began < 1
