"""Metrics in OTLP JSON, read back as messages by rules of our own: hex where protobuf's JSON mapping has base64."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest


def read_metrics(path: Path) -> list[ExportMetricsServiceRequest]:
    """The requests of metrics in a file that the file exporter writes."""
    requests = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return [metrics_from_json(request) for request in requests if "resourceMetrics" in request]


def metrics_from_json(request: dict[str, Any]) -> ExportMetricsServiceRequest:
    """Of a request in the OTLP JSON encoding; fields that OTLP does not have are an error."""
    return ParseDict(_with_base64(request), ExportMetricsServiceRequest())


def _with_base64(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_with_base64(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ids = {key: base64.b64encode(bytes.fromhex(tree[key])).decode() for key in ("traceId", "spanId") if key in tree}
    return {key: _with_base64(value) for key, value in tree.items()} | ids
