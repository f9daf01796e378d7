"""The agent's own metrics, received over OTLP as it says them when it stops."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest


class OwnMetrics:
    """The latest value of each sum and gauge."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._seconds: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    @property
    def telemetry(self) -> dict[str, Any]:
        """What ``service.telemetry.metrics`` has to be."""
        exporter = {"otlp": {"protocol": "http/protobuf", "endpoint": f"http://127.0.0.1:{self._port}"}}
        return {"readers": [{"periodic": {"interval": 60000, "exporter": exporter}}]}

    def value(self, name: str, **attributes: str) -> int:
        """0 if it was never said."""
        return self._values.get((name, tuple(sorted(attributes.items()))), 0)

    def seconds(self, name: str, **attributes: str) -> float:
        """Of a sum of time; 0 if it was never said."""
        return self._seconds.get((name, tuple(sorted(attributes.items()))), 0.0)

    def take(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in (*metric.sum.data_points, *metric.gauge.data_points):
                        attributes = sorted((pair.key, pair.value.string_value) for pair in point.attributes)
                        self._values[metric.name, tuple(attributes)] = point.as_int
                        self._seconds[metric.name, tuple(attributes)] = point.as_double


@contextmanager
def own_metrics() -> Iterator[OwnMetrics]:
    """Listens for them inside of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            metrics.take(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: a test's output is its own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        metrics = OwnMetrics(server.server_port)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield metrics
        finally:
            server.shutdown()
            thread.join()
