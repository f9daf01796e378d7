"""otlp_grpc and otlp_http against a backend that listens, fails, stalls and comes back."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from sink import Answer, Sink
from support.otlp_batches import batch_of, spans_of
from support.waiting import wait_until

from wirespan.exporters.sending import SendingExporter
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters

PROTOCOLS = ("otlp_grpc", "otlp_http")
QUICK_RETRY = {"initial_interval": "20ms", "max_interval": "50ms", "max_elapsed_time": "10s"}


def unavailable(delay: float = 0.0) -> Answer:
    return Answer(grpc_code=grpc.StatusCode.UNAVAILABLE, http_status=503, delay=delay)


def refused() -> Answer:
    return Answer(grpc_code=grpc.StatusCode.INVALID_ARGUMENT, http_status=400)


def partly(rejected: int, message: str = "") -> Answer:
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return Answer(body=ExportTraceServiceResponse(partial_success=partial).SerializeToString())


def retry_info(seconds: float) -> bytes:
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(nanos=int(seconds * 1e9))))
    return Status(code=8, message="slow down", details=[detail]).SerializeToString()


@dataclass
class Running:
    """A started exporter and what it counted."""

    exporter: SendingExporter
    counters: Counters
    consumed: int = field(default=0)

    def consume(self, spans: int) -> None:
        self.consumed += spans
        self.exporter.consume(batch_of(spans))

    def count(self, name: str) -> int:
        return self.counters.snapshot().get((f"otelcol_exporter_{name}", (("exporter", "under test"),)), 0)

    def gauge(self, name: str) -> int:
        return self.counters.gauges()[(name, (("exporter", "under test"),))]

    def accounted(self) -> int:
        done = self.count("sent_spans") + self.count("send_failed_spans") + self.count("enqueue_failed_spans")
        return done + self.gauge("wirespan.exporter.in_flight_spans")

    def shutdown(self, seconds: float = 5.0) -> None:
        self.exporter.shutdown(time.monotonic() + seconds)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as listening:
        yield listening
