"""A pipeline of metrics from the configuration to the backend, beside one of traces, and what a run without one is spared."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sink import Sink
from support.metric_batches import points_of
from support.metrics import read_metrics
from support.otlp_batches import batch_of
from wirespan.pipeline.component import ComponentConfig, Context, Factory, Outputs
from wirespan.pipeline.counters import Counters
from wirespan.service.config import Configuration, load
from wirespan.service.graph import Graph
from wirespan.service.identity import identities
from wirespan.service.registry import Registry

CONFIGURATION = """\
receivers: {{both: }}
exporters:
  otlp_grpc: {{endpoint: "http://127.0.0.1:{grpc}"}}
  otlp_http: {{endpoint: "http://127.0.0.1:{http}"}}
  file/metrics: {{path: {folder}/metrics.jsonl}}
  debug: {{verbosity: basic}}
service:
  pipelines:
    traces: {{receivers: [both], exporters: [otlp_grpc]}}
    metrics: {{receivers: [both], exporters: [otlp_grpc, otlp_http]}}
    metrics/shown: {{receivers: [both], exporters: [file/metrics, debug]}}
"""


class Both:
    """Hands on 5 spans and 3 points when it starts."""

    def __init__(self, config: ComponentConfig, context: Context, outputs: Outputs) -> None:
        self._outputs = outputs

    def start(self) -> None:
        assert self._outputs.traces is not None
        assert self._outputs.metrics is not None
        self._outputs.traces.consume(batch_of(5))
        self._outputs.metrics.consume_encoded(points_of(3))

    def shutdown(self, deadline: float) -> None:
        """Nothing is held back."""


def configured(folder: Path, sink: Sink) -> Configuration:
    file = folder / "w.yaml"
    file.write_text(CONFIGURATION.format(grpc=sink.grpc_port, http=sink.http_port, folder=folder), encoding="utf-8")
    both = Factory("receiver", "both", ComponentConfig, Both, signals=frozenset({"traces", "metrics"}))
    return load(file, {}, (), Registry(lambda: [both]))


@pytest.mark.usefixtures("no_otel_variables")
def test_metrics_reach_every_exporter_of_their_pipelines_and_spans_those_of_theirs(
    tmp_path: Path, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    counters, configuration = Counters(), configured(tmp_path, sink)
    counters.add("wirespan.exchanges.observed", 5)
    graph = Graph(configuration, counters)
    graph.start()
    facts = graph.facts()
    assert graph.shutdown(time.monotonic() + 5)
    assert sink.metrics_payloads == [points_of(3).data] * 2
    assert sink.span_count == 5
    assert [request.SerializeToString() for request in read_metrics(tmp_path / "metrics.jsonl")] == [points_of(3).data]
    assert "metrics: 1, data points: 3, resources: 1" in capsys.readouterr().out
    sums = counters.snapshot()
    for exporter in ("otlp_grpc", "otlp_http", "file/metrics", "debug"):
        assert sums["otelcol_exporter_sent_metric_points", (("exporter", exporter),)] == 3
    assert facts["exports_to"] == [
        "stdout",
        f"{tmp_path}/metrics.jsonl",
        f"http://127.0.0.1:{sink.http_port}/v1/metrics",
        f"http://127.0.0.1:{sink.grpc_port}",
    ]
    (identity,) = identities(counters, configuration)
    assert (identity.exporter, identity.exported, identity.unaccounted) == ("otlp_grpc", 5, 0)


@pytest.mark.usefixtures("no_otel_variables")
def test_gauges_of_an_exporter_are_those_of_its_signals(tmp_path: Path, sink: Sink) -> None:
    counters = Counters()
    Graph(configured(tmp_path, sink), counters)
    in_flight = {(name, *attributes) for name, attributes in counters.gauges() if "in_flight" in name}
    assert in_flight == {
        ("wirespan.exporter.in_flight_spans", ("exporter", "otlp_grpc")),
        ("wirespan.exporter.in_flight_metric_points", ("exporter", "otlp_grpc")),
        ("wirespan.exporter.in_flight_metric_points", ("exporter", "otlp_http")),
    }


SPANS_ONLY = """
import sys, time
from support.otlp_batches import batch_of  # imports opentelemetry-proto itself
for name in [name for name in sys.modules if name.startswith(("opentelemetry", "google"))]:
    del sys.modules[name]
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters
from wirespan.service.registry import Registry
settings = {"file": {"path": "/dev/null"}, "debug": {}, "otlp_grpc": {}, "otlp_http": {}}
for name, given in settings.items():
    factory = Registry(list).find("exporter", name)
    exporter = factory.create(factory.config.model_validate(given), Context(name, Counters()))
    exporter.start()
    exporter.consume(batch_of(1))
    exporter.shutdown(time.monotonic())
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "google"))), file=sys.stderr)
"""


def test_spans_alone_import_no_protobuf() -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SPANS_ONLY], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tests)}
    )
    assert done.stderr.splitlines()[-1] == "[]"
